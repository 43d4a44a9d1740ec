//! A real Postgres, Debian's, for the length of a test.

use std::{
    ffi::OsStr,
    fs,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};
use tempfile::TempDir;

use crate::{pids, process::Process};

/// The user that Debian's package makes: Postgres does not run as root.
const USER: &str = "postgres";

/// How long a fast shutdown may take.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A Postgres with a cluster of its own, as durable as in production, which anybody on
/// this machine may enter. Dropping it stops it and removes the cluster.
#[derive(Debug)]
pub struct Postgres {
    /// Its first process, whose children are the others.
    pub process: Process,
    /// The port it listens on, of 127.0.0.1.
    pub port: u16,
    programs: PathBuf,
    /// Apart from the test's folder, which another user can't enter.
    home: TempDir,
    /// Where its log is.
    folder: PathBuf,
}

impl Postgres {
    /// Makes a cluster and starts it on a free port; its log goes to `folder`.
    ///
    /// # Errors
    /// Where it does not start, or is not installed (`make setup` does that).
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let programs = programs()?;
        let home = tempfile::Builder::new()
            .prefix("weir-postgres-")
            .tempdir()?;
        if let Some(user) = user()? {
            chown(
                home.path(),
                Some(user.uid.as_raw()),
                Some(user.gid.as_raw()),
            )?;
        }
        let mut command = as_user(&programs.join("initdb"))?;
        command
            .args(["--auth=trust", "--username", USER, "--no-sync", "--pgdata"])
            .arg(home.path().join("data"))
            .args(["--encoding=UTF8", "--locale=C"]);
        said("initdb", command.output().context("initdb")?)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = launch(&programs, home.path(), port, folder)?;
        Ok(Self {
            process,
            port,
            programs,
            home,
            folder: folder.to_owned(),
        })
    }

    /// `postgres://…`
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(&self.address())
    }

    /// The same through somebody who hands on to it, such as a
    /// [`Proxy`](crate::proxy::Proxy), at that `host:port`.
    #[must_use]
    pub fn url_at(&self, address: &str) -> String {
        format!("postgres://{USER}@{address}/postgres")
    }

    /// `host:port`
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What psql prints of a query: a line for each row, `|` between columns.
    ///
    /// # Errors
    /// Where it fails; with what psql said.
    pub fn ask(&self, sql: &str) -> anyhow::Result<String> {
        let output = self.psql().args(["-c", sql]).output()?;
        said("psql", output)
    }

    /// A psql that prints rows and nothing else, and ends at the first error.
    #[must_use]
    pub fn psql(&self) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url());
        command
    }

    /// SIGKILL to all of it, as a power cut would.
    ///
    /// # Errors
    /// Where a process does not go.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        // So that it starts no other meanwhile.
        self.process.signal(Signal::SIGSTOP);
        let children = children(self.process.id());
        send(&children, Signal::SIGKILL);
        self.process.kill();
        let begun = Instant::now();
        while children.iter().any(|pid| pids::started(*pid).is_some()) {
            if begun.elapsed() > STOP_MAX {
                bail!("postgres: {children:?} do not go");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Starts it again, at the same port and on the same cluster, and waits until it has
    /// recovered.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop()?;
        self.process = launch(&self.programs, self.home.path(), self.port, &self.folder)?;
        Ok(())
    }

    /// SIGSTOP to all of it: connections stay, and nobody answers.
    pub fn pause(&self) {
        self.process.signal(Signal::SIGSTOP);
        send(&children(self.process.id()), Signal::SIGSTOP);
    }

    /// SIGCONT to all of it.
    pub fn resume(&self) {
        send(&children(self.process.id()), Signal::SIGCONT);
        self.process.signal(Signal::SIGCONT);
    }

    /// Its processes: what they cost is what Postgres costs.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let mut all = children(self.process.id());
        all.push(self.process.id());
        all
    }

    /// A fast shutdown, which waits for no client.
    fn stop(&mut self) -> anyhow::Result<()> {
        if !self.process.is_running() {
            return Ok(());
        }
        self.resume();
        self.process.signal(Signal::SIGINT);
        let begun = Instant::now();
        while self.process.is_running() {
            if begun.elapsed() > STOP_MAX {
                return self.kill9();
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}

/// Starts the server and waits until it answers.
fn launch(programs: &Path, home: &Path, port: u16, folder: &Path) -> anyhow::Result<Process> {
    let mut command = as_user(&programs.join("postgres"))?;
    command
        .arg("-D")
        .arg(home.join("data"))
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", ""])
        // What is asked of a disk is the default's: each commit is on it.
        .args(["-c", "max_wal_size=512MB", "-c", "shared_buffers=128MB"]);
    let mut process = Process::start("postgres", &mut command, folder)?;
    let ready = programs.join("pg_isready");
    process.wait_for(|| {
        let status = Command::new(&ready)
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .status();
        status.is_ok_and(|s| s.success()).then_some(())
    })?;
    Ok(process)
}

/// Where its programs are: in the PATH, or where Debian puts each version's; the newest.
fn programs() -> anyhow::Result<PathBuf> {
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&in_path).collect();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut versions: Vec<PathBuf> = versions.flatten().map(|entry| entry.path()).collect();
    let number = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str);
        name.and_then(|n| n.parse::<u32>().ok()).unwrap_or(0)
    };
    versions.sort_by_key(number);
    folders.extend(versions.into_iter().rev().map(|path| path.join("bin")));
    folders
        .into_iter()
        // A link stands for a program whose companions may be elsewhere.
        .filter_map(|folder| folder.join("postgres").canonicalize().ok())
        .filter_map(|program| Some(program.parent()?.to_owned()))
        .find(|folder| folder.join("initdb").exists())
        .context("postgres is missing: run make setup")
}

/// The user that Postgres runs as; `None` where that is who runs this.
fn user() -> anyhow::Result<Option<User>> {
    if !nix::unistd::Uid::effective().is_root() {
        return Ok(None);
    }
    let user = User::from_name(USER)?;
    let user = user.with_context(|| format!("no user {USER}: run make setup"))?;
    Ok(Some(user))
}

/// A command of Postgres', as who may run it, where that user may be.
fn as_user(program: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some(user) = user()? {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    Ok(command)
}

fn said(name: &str, output: Output) -> anyhow::Result<String> {
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim_end().to_owned())
}

fn send(pids: &[u32], signal: Signal) {
    for pid in pids {
        // One that has ended needs none.
        let _ = kill(Pid::from_raw(*pid as i32), signal);
    }
}

/// The children of a process: Postgres puts each into a session of its own (proc(5),
/// `/proc/[pid]/stat`, field 4).
fn children(of: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.split(' ').nth(1)?.parse().ok()
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| parent(*pid) == Some(of))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_outlives_a_power_cut_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut postgres = Postgres::start(folder.path()).unwrap();
        postgres.ask("CREATE TABLE t (n BIGINT)").unwrap();
        postgres.ask("INSERT INTO t VALUES (7)").unwrap();
        let before = postgres.pids();
        postgres.kill9().unwrap();
        assert!(postgres.ask("SELECT 1").is_err());
        assert!(before.iter().all(|pid| pids::started(*pid).is_none()));
        postgres.restart().unwrap();
        assert_eq!(postgres.ask("SELECT n FROM t").unwrap(), "7");
        postgres.restart().unwrap();
        assert_eq!(postgres.ask("SELECT n FROM t").unwrap(), "7");
        let (home, pids) = (postgres.home.path().to_owned(), postgres.pids());
        postgres.pause();
        drop(postgres);
        assert!(!home.exists());
        assert!(pids.iter().all(|pid| pids::started(*pid).is_none()));
    }
}
