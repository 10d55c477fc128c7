//! What the system says of this process, by Prometheus' usual names: memory, descriptors, threads, processor time.

use std::fs;

use crate::telemetry::metrics::Metrics;

/// Ticks a second of `/proc/self/stat`: `sysconf(_SC_CLK_TCK)`, which is 100 on every Linux that we run on.
const TICKS_PER_S: f64 = 100.0;

/// Reads `/proc/self` into the process's gauges; what can't be read keeps its last value.
pub fn sample(metrics: &Metrics) {
    if let Some(status) = read("/proc/self/status") {
        if let Some(kib) = field(&status, "VmRSS:") {
            metrics.process_memory.set([], kib * 1024.0);
        }
        if let Some(threads) = field(&status, "Threads:") {
            metrics.process_threads.set([], threads);
        }
    }
    if let Some(limits) = read("/proc/self/limits")
        && let Some(most) = field(&limits, "Max open files")
    {
        metrics.process_max_fds.set([], most);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        metrics.process_fds.set_count([], open.count().saturating_sub(1)); // one is this listing's own
    }
    let stat = read("/proc/self/stat").and_then(|s| times(&s));
    if let Some((cpu_ticks, start_ticks)) = stat {
        metrics.process_cpu.set([], cpu_ticks / TICKS_PER_S);
        if let Some(boot_s) = read("/proc/stat").and_then(|s| field(&s, "btime")) {
            metrics.process_started.set([], boot_s + start_ticks / TICKS_PER_S);
        }
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The first number behind a line's name.
fn field(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// User and system time together, and when the process started, in ticks (proc(5): fields 14, 15 and 22; the second one, the
/// command in parentheses, may hold anything).
fn times(stat: &str) -> Option<(f64, f64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<f64>().ok();
    Some((number(11)? + number(12)?, number(19)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_a_past() {
        let metrics = Metrics::new();
        sample(&metrics);
        let text = metrics.text();
        for name in [
            "process_resident_memory_bytes",
            "process_threads",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            let line = text.lines().find(|l| l.starts_with(name)).unwrap();
            assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() > 0.0, "{line}");
        }
        assert_eq!(times("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20 0 9 0 777 x"), Some((42.0, 777.0)));
        assert_eq!(times("nonsense"), None);
    }
}
