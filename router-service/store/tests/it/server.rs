//! A real Redis: a child on a free port, in a folder of its own.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use redis::FromRedisValue;

/// Debian's and everybody's name for it.
const PROGRAM: &str = "redis-server";

/// A running server. Dropping it stops it.
pub struct Server {
    child: Child,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    pub port: u16,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With these arguments beside those that all have.
    pub fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        // Another one may take the port before Redis does.
        for _ in 0..10 {
            let port = free_port();
            let mut child = spawn(port, &folder, &arguments);
            if is_up(&mut child, port) {
                return Self {
                    child,
                    folder,
                    arguments,
                    port,
                };
            }
        }
        panic!("{PROGRAM} does not start; is it one of Redis 6 or later?");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Runs a command as the default user.
    pub fn run<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let (name, arguments) = command.split_first().unwrap();
        redis::cmd(name)
            .arg(arguments)
            .query(&mut connection)
            .unwrap()
    }

    /// Kills it, with all that it holds.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after [`Server::kill`], on its port.
    pub fn start_again(&mut self) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            self.child = spawn(self.port, &self.folder, &self.arguments);
            if is_up(&mut self.child, self.port) {
                return;
            }
            assert!(Instant::now() < end, "{PROGRAM} does not start again");
        }
    }

    /// It answers nothing, and keeps its connections.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already where a test killed it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn spawn(port: u16, folder: &tempfile::TempDir, arguments: &[String]) -> Child {
    Command::new(PROGRAM)
        .args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"])
        .args(["--port", &port.to_string()])
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| {
            panic!(
                "the tests of the Redis store need {PROGRAM} (Debian: apt install {PROGRAM}): {e}"
            )
        })
}

/// Waits until it answers; `false` where it ends before.
fn is_up(child: &mut Child, port: u16) -> bool {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        let answered = client
            .get_connection()
            .and_then(|mut c| redis::cmd("PING").query::<String>(&mut c));
        if answered.is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{PROGRAM} on port {port} does not answer");
}
