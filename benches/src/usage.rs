//! What a process has used, from `/proc`.

use std::fs;
use std::time::Duration;

/// Clock ticks per second in `/proc`; Linux fixes it for user space.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of a process so far, user and system, of all its threads, ended ones included; to 10 ms.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th fields after it.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("there is text").split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number of ticks");
    Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND)
}

/// CPU time of this process so far.
pub(crate) fn own_cpu() -> Duration {
    cpu(std::process::id())
}

/// CPU time of each live thread of a process whose name begins with `name`; to the last time that it was descheduled.
pub(crate) fn thread_cpus(pid: u32, name: &str) -> Vec<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let own = tasks
        .flatten()
        .map(|task| task.path())
        .filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name)));
    let nanos = own.filter_map(|task| {
        let text = fs::read_to_string(task.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    nanos.map(Duration::from_nanos).collect()
}

/// CPU time of all of them together.
pub(crate) fn threads_cpu(pid: u32, name: &str) -> Duration {
    thread_cpus(pid, name).into_iter().sum()
}

/// Resident memory of a process, and its highest so far, in bytes.
pub(crate) fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let bytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("the line is there");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number of KiB") << 10
    };
    (bytes("VmRSS:"), bytes("VmHWM:"))
}
