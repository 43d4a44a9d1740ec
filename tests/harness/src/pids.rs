//! The process ids of a run, each in a file as soon as there is one: whoever
//! comes after a run that was killed finds what it had started.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};
use weir_process::write_whole;

/// The name under which the run itself is noted.
pub const RUN: &str = "run";

/// A process of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunProcess {
    /// Such as `router`.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// When it started, as the kernel counts: the number may be another's by
    /// now, and a process may become another program.
    #[serde(skip)]
    started: u64,
}

/// Notes a process in `<folder>/<name>.pid`.
///
/// # Errors
/// Where the file can't be written.
pub fn write(folder: &Path, name: &str, pid: u32) -> io::Result<()> {
    let text = format!("{pid} {}", started(pid).unwrap_or(0));
    write_whole(&folder.join(format!("{name}.pid")), &text)
}

/// Those that are noted in the folder and still run, the run itself first.
#[must_use]
pub fn running(folder: &Path) -> Vec<RunProcess> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<RunProcess> = entries
        .filter_map(|entry| read(&entry.path()))
        .filter(RunProcess::is_running)
        .collect();
    found.sort_by(|a, b| (a.name != RUN, &a.name).cmp(&(b.name != RUN, &b.name)));
    found
}

fn read(path: &Path) -> Option<RunProcess> {
    if path.extension()? != "pid" {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let (pid, started) = text.split_once(' ')?;
    Some(RunProcess {
        name: path.file_stem()?.to_string_lossy().into_owned(),
        pid: pid.parse().ok()?,
        started: started.parse().ok()?,
    })
}

impl RunProcess {
    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// When the process started, in ticks since the machine did; `None` where there
/// is none, or a zombie alone (proc(5), `/proc/[pid]/stat`, fields 3 and 22).
pub(crate) fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, which may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_runs_is_found_and_what_ended_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        write(folder.path(), "sleeper", child.id()).unwrap();
        let found = running(folder.path());
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].pid),
            ("sleeper", child.id())
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(running(folder.path()).is_empty());
    }
}
