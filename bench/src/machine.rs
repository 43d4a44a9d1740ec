//! What the kernel says: CPU time of a process, and on what it was spent.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};

/// Nanoseconds that all threads of a process have spent on a CPU.
///
/// From `/proc/<pid>/task/*/schedstat`, first field (the kernel's
/// `Documentation/scheduler/sched-stats.rst`): the clock ticks of
/// `/proc/<pid>/stat` are 10 ms. A thread's value is behind while it runs, so
/// read this when the process is idle.
///
/// # Errors
/// Where the process is gone or the kernel does not keep it.
pub fn cpu_ns(pid: u32) -> anyhow::Result<u64> {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    let mut sum: u64 = 0;
    for task in fs::read_dir(&tasks).with_context(|| format!("{}", tasks.display()))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        sum = sum.saturating_add(on_cpu_ns(&text).context("schedstat is not as expected")?);
    }
    if sum == 0 {
        bail!("this kernel keeps no schedstat: CPU can't be measured");
    }
    Ok(sum)
}

/// The same with what threads spent that have ended, to 10 ms (proc(5), `/proc/<pid>/stat`,
/// fields 14 and 15, in ticks of which Linux shows a hundred a second).
///
/// # Errors
/// Where the process is gone.
pub fn cpu_ever_ns(pid: u32) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ticks(&stat)
        .map(|ticks| ticks.saturating_mul(10_000_000))
        .context("stat is not as expected")
}

fn ticks(stat: &str) -> Option<u64> {
    // The second field is the program's name, which may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    user.parse::<u64>().ok()?.checked_add(system.parse().ok()?)
}

/// Bytes of a process that are in memory (`VmRSS` of `/proc/<pid>/status`).
///
/// # Errors
/// Where the process is gone.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    let kib: u64 = kib.context("no VmRSS")?;
    Ok(kib.saturating_mul(1_024))
}

fn on_cpu_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// One line on the machine: its model and how many CPUs.
#[must_use]
pub fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown model", |(_, model)| model);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cpus} CPUs")
}

/// The load average over the last minute, to tell a quiet machine from a busy
/// one.
#[must_use]
pub fn load_average() -> String {
    fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| Some(text.split_whitespace().next()?.to_owned()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_is_the_time_on_a_cpu() {
        assert_eq!(on_cpu_ns("123456 789 3\n"), Some(123_456));
        assert_eq!(on_cpu_ns(""), None);
    }

    #[test]
    fn ticks_are_the_users_and_the_systems() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 10 0 0 0 31 11 0 0 20 0 1 0 5 9 9";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a"), None);
    }
}
