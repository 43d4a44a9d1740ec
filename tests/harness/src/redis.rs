//! A real Redis, Debian's `redis-server`, for the length of a test.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process::Process;

/// Keeps nothing on disk.
const VOLATILE: [&str; 4] = ["--save", "", "--appendonly", "no"];

/// What was answered is on disk.
const DURABLE: [&str; 6] = [
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
];

/// A Redis.
#[derive(Debug)]
pub struct Redis {
    /// Its process.
    pub process: Process,
    /// The port it listens on, of 127.0.0.1.
    pub port: u16,
    folder: PathBuf,
    settings: &'static [&'static str],
}

impl Redis {
    /// Starts one that keeps nothing on disk, on a free port.
    ///
    /// # Errors
    /// Where it does not start, or is not installed (`make setup` does that).
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        Self::launch(free_port()?, folder, &VOLATILE)
    }

    /// Starts one on that port: again, where one was killed.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_at(port: u16, folder: &Path) -> anyhow::Result<Self> {
        Self::launch(port, folder, &VOLATILE)
    }

    /// Starts one on a free port that has on disk, in `folder`, what it answered.
    ///
    /// # Errors
    /// Where it does not start, or is not installed (`make setup` does that).
    pub fn durable(folder: &Path) -> anyhow::Result<Self> {
        Self::launch(free_port()?, folder, &DURABLE)
    }

    fn launch(port: u16, folder: &Path, settings: &'static [&'static str]) -> anyhow::Result<Self> {
        let mut process = Process::start(
            "redis",
            Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--port"])
                .arg(port.to_string())
                .args(settings)
                .arg("--dir")
                .arg(folder),
            folder,
        )?;
        // One that still reads what it has on disk answers -LOADING.
        process.wait_for(|| (ping(port).ok()? == *b"+PONG\r\n").then_some(()))?;
        Ok(Self {
            process,
            port,
            folder: folder.to_owned(),
            settings,
        })
    }

    /// SIGKILL, as a power cut would.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Starts it again, at the same port and in the same folder.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process.stop();
        *self = Self::launch(self.port, &self.folder, self.settings)?;
        Ok(())
    }

    /// `redis://…`
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn ping(port: u16) -> std::io::Result<[u8; 7]> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a command in one line; gives the first line of the answer.
    fn say(redis: &Redis, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .unwrap();
        let mut bytes = [0; 256];
        let count = stream.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).trim().to_owned()
    }

    #[test]
    fn a_durable_one_has_after_a_kill_what_it_had_and_another_has_nothing() {
        for (is_durable, left) in [(true, ":1"), (false, ":0")] {
            let folder = tempfile::tempdir().unwrap();
            let mut redis = match is_durable {
                true => Redis::durable(folder.path()),
                false => Redis::start(folder.path()),
            }
            .unwrap();
            assert_eq!(say(&redis, "SET k v"), "+OK");
            redis.kill9();
            redis.restart().unwrap();
            assert_eq!(say(&redis, "EXISTS k"), left);
        }
    }
}
