//! The usual metrics of a process, read from `/proc` at each scrape.

use std::fmt::Write;
use std::fs;

/// Ticks of `/proc/PID/stat` per second: `USER_HZ`, which the kernel keeps at 100 for user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds the metrics of this process to an OpenMetrics text. Where there is no `/proc` the text stays as it is.
pub(super) fn with_process_metrics(mut text: String) -> String {
    const END: &str = "# EOF\n";
    if text.ends_with(END) {
        text.truncate(text.len() - END.len());
    }
    append(&mut text);
    text.push_str(END);
    text
}

fn append(out: &mut String) {
    if let Some((cpu, start)) = cpu_and_start() {
        counter(out, "process_cpu_seconds", "CPU time of the process, user and system", cpu);
        gauge(out, "process_start_time_seconds", "When the process started, seconds since 1970", start);
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let field = |name| status.lines().find_map(|line| kibibytes(line, name)).map(|kib| kib * 1024.0);
        let rows = [
            ("VmRSS:", "process_resident_memory_bytes", "Memory that is resident"),
            ("VmSize:", "process_virtual_memory_bytes", "Memory that is mapped"),
        ];
        for (field_name, name, help) in rows {
            if let Some(bytes) = field(field_name) {
                gauge(out, name, help, bytes);
            }
        }
        if let Some(threads) = status.lines().find_map(|line| number(line, "Threads:")) {
            gauge(out, "process_threads", "Threads", threads);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        gauge(out, "process_open_fds", "Open file descriptors", open.count() as f64);
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(most) = limits.lines().find_map(|line| number(line, "Max open files")) {
        gauge(out, "process_max_fds", "Open file descriptors at most", most);
    }
}

fn cpu_and_start() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command in brackets and may hold anything: count from behind it, where field 3 begins.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let tick = |number: usize| fields.get(number - 3)?.parse::<f64>().ok().map(|ticks| ticks / TICKS_PER_SECOND);
    let boot = fs::read_to_string("/proc/stat").ok()?.lines().find_map(|line| number(line, "btime"))?;
    Some((tick(14)? + tick(15)?, boot + tick(22)?))
}

fn number(line: &str, name: &str) -> Option<f64> {
    line.strip_prefix(name)?.split_whitespace().next()?.parse().ok()
}

fn kibibytes(line: &str, name: &str) -> Option<f64> {
    number(line.strip_suffix(" kB")?, name)
}

fn counter(out: &mut String, name: &str, help: &str, value: f64) {
    write!(out, "# HELP {name} {help}.\n# TYPE {name} counter\n{name}_total {value}\n").expect("writing to a String");
}

fn gauge(out: &mut String, name: &str, help: &str, value: f64) {
    write!(out, "# HELP {name} {help}.\n# TYPE {name} gauge\n{name} {value}\n").expect("writing to a String");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_metrics_come_before_the_end_mark() {
        let text = with_process_metrics("# TYPE a gauge\na 1\n# EOF\n".to_owned());
        assert_eq!(text.matches("# EOF").count(), 1);
        assert!(text.starts_with("# TYPE a gauge\na 1\n") && text.ends_with("# EOF\n"), "{text}");
        if cfg!(target_os = "linux") {
            for name in ["process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds "] {
                assert!(text.contains(name), "{name} in {text}");
            }
        }
    }
}
