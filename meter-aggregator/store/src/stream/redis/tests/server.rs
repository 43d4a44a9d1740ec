//! A real Redis: a child on a free port, in a folder of its own.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use redis::FromRedisValue;

use crate::stream::{
    body::Place,
    redis::{RedisSettings, RedisStream},
    transport::Transport,
};

/// Debian's and everybody's name for it.
const PROGRAM: &str = "redis-server";

/// A running server. Dropping it stops it.
pub struct Server {
    child: Mutex<Child>,
    pub folder: tempfile::TempDir,
    arguments: Vec<String>,
    pub port: u16,
    pub is_cluster: bool,
}

impl Server {
    /// One that keeps what it acknowledges.
    pub fn start() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// With these arguments beside those that all have.
    pub fn start_with(arguments: &[&str]) -> Self {
        // Another one may take the port before Redis does.
        let started = (0..10).find_map(|_| Self::try_start(free_port(), arguments));
        started.unwrap_or_else(|| panic!("{PROGRAM} does not start; is it one of Redis 7?"))
    }

    /// On that port, where another one was.
    pub fn start_at(port: u16, arguments: &[&str]) -> Self {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(server) = Self::try_start(port, arguments) {
                return server;
            }
            assert!(
                Instant::now() < end,
                "{PROGRAM} does not start on port {port}"
            );
        }
    }

    fn try_start(port: u16, arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let mut child = spawn(port, &folder, &arguments);
        is_up(&mut child, port).then(|| Self {
            child: Mutex::new(child),
            folder,
            arguments,
            port,
            is_cluster: false,
        })
    }

    /// A cluster of one.
    pub fn start_cluster() -> Self {
        Self::start_cluster_with(&[])
    }

    /// The same, with these arguments, too.
    pub fn start_cluster_with(arguments: &[&str]) -> Self {
        let server = Self::start_node(arguments);
        server.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        let end = Instant::now() + Duration::from_secs(20);
        while !server
            .run::<String>(&["CLUSTER", "INFO"])
            .contains("cluster_state:ok")
        {
            assert!(Instant::now() < end, "the cluster does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// One that becomes part of a cluster.
    pub fn start_node(arguments: &[&str]) -> Self {
        let node = ["--appendonly", "yes", "--cluster-enabled", "yes"];
        let mut server = Self::start_with(&[&node[..], arguments].concat());
        server.is_cluster = true;
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn settings(&self, consumer: &str) -> RedisSettings {
        RedisSettings {
            cluster: self.is_cluster,
            ..RedisSettings::new(self.url(), consumer.to_owned())
        }
    }

    pub async fn stream(&self, consumer: &str) -> Arc<dyn Transport> {
        Arc::new(RedisStream::open(self.settings(consumer)).await.unwrap())
    }

    /// Runs a command as the default user.
    pub fn run<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let (name, arguments) = command.split_first().unwrap();
        let mut command = redis::cmd(name);
        command.arg(arguments).query(&mut connection).unwrap()
    }

    /// Kills it, with all that it has in memory.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again after [`Server::kill`], on its port.
    pub fn start_again(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let mut child = spawn(self.port, &self.folder, &self.arguments);
            if is_up(&mut child, self.port) {
                *self.child.lock().unwrap() = child;
                return;
            }
            assert!(Instant::now() < end, "{PROGRAM} does not start again");
        }
    }
}

#[async_trait]
impl Place for Server {
    async fn transport(&self, replica: &str) -> Arc<dyn Transport> {
        self.stream(replica).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        // Gone already where a test killed it.
        drop(child.kill());
        drop(child.wait());
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn spawn(port: u16, folder: &tempfile::TempDir, arguments: &[String]) -> Child {
    Command::new(PROGRAM)
        // A file comes first.
        .args(arguments)
        .args(["--save", "", "--bind", "127.0.0.1"])
        .args(["--port", &port.to_string()])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| {
            panic!("the tests of the stream need {PROGRAM} (Debian: apt install {PROGRAM}): {e}")
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
