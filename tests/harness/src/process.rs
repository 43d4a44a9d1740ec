//! Child processes: started with a log, waited for until they are ready,
//! stopped by process id.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::pids;
use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a process may take until it is ready.
const READY_MAX: Duration = Duration::from_secs(180);

/// How long a process may take to stop after a signal.
const STOP_MAX: Duration = Duration::from_secs(30);

/// A running child. Dropping it stops it.
#[derive(Debug)]
pub struct Process {
    /// For messages and `endpoints.json`.
    pub name: String,
    child: Child,
    /// What it wrote to its standard output and error.
    pub log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own, so that a Ctrl-C at the
    /// terminal reaches the parent alone; output goes to `<folder>/<name>.log`,
    /// the process id to `<folder>/<name>.pid`.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let process = Self {
            name: name.to_owned(),
            child,
            log,
        };
        pids::write(folder, name, process.id())?;
        Ok(process)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `path` exists, and gives what is in it.
    ///
    /// # Errors
    /// Where the process ends before, or takes too long; with its log's end.
    pub fn wait_for_file(&mut self, path: &Path) -> anyhow::Result<String> {
        self.wait_for(|| {
            fs::read_to_string(path)
                .ok()
                .filter(|text| !text.is_empty())
        })
    }

    /// Waits until `ready` gives something.
    ///
    /// # Errors
    /// Where the process ends before, or takes too long; with its log's end.
    pub fn wait_for<T>(&mut self, mut ready: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = ready() {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, self.log_end());
            }
            if start.elapsed() > READY_MAX {
                bail!(
                    "{} is not ready after {READY_MAX:?}:\n{}",
                    self.name,
                    self.log_end()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // A process that has ended needs none.
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    /// SIGTERM, then SIGKILL where that was not heeded; gives whether it was.
    pub fn stop(&mut self) -> bool {
        self.signal(Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < STOP_MAX {
            if !self.is_running() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        false
    }

    /// SIGKILL, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.stop();
        }
    }
}
