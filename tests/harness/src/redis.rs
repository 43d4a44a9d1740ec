//! A real Redis, Debian's `redis-server`, for the length of a test.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
};

use crate::process::Process;

/// A Redis that keeps nothing on disk.
#[derive(Debug)]
pub struct Redis {
    /// Its process.
    pub process: Process,
    /// The port it listens on, of 127.0.0.1.
    pub port: u16,
}

impl Redis {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// Where it does not start, or is not installed (`make setup` does that).
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Self::start_at(port, folder)
    }

    /// Starts one on that port: again, where one was killed.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_at(port: u16, folder: &Path) -> anyhow::Result<Self> {
        let mut process = Process::start(
            "redis",
            Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--port"])
                .arg(port.to_string())
                .args(["--save", "", "--appendonly", "no", "--dir"])
                .arg(folder),
            folder,
        )?;
        process.wait_for(|| TcpStream::connect(("127.0.0.1", port)).ok())?;
        Ok(Self { process, port })
    }

    /// `redis://…`
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}
