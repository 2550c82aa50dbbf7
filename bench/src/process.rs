//! What processes cost: CPU time, memory, and who else used the machine meanwhile.
//!
//! *In*: process ids, `/proc`. *Out*: plain numbers. *Never*: unsafe code; a guess where the system does
//! not tell (then `None`).

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Clock ticks a second in `/proc`: 100 on every Linux that Rust runs on.
const TICKS: u64 = 100;

/// CPU time of this process: all its threads, ended ones too, user and system.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What `work` costs in CPU time of this process, and what it gives.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let before = cpu();
    let result = work();
    (cpu().saturating_sub(before), result)
}

/// What `make` makes, and by how much the resident memory of this process grew meanwhile, bytes.
pub(crate) fn held<T>(make: impl FnOnce() -> T) -> (u64, T) {
    let before = resident();
    let made = make();
    (resident().saturating_sub(before), made)
}

fn status_kb(pid: Option<u32>, field: &str) -> Option<u64> {
    let who = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let text = std::fs::read_to_string(format!("/proc/{who}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Largest resident memory of a process so far, bytes.
pub(crate) fn peak_rss(pid: Option<u32>) -> Option<u64> {
    status_kb(pid, "VmHWM:")?.checked_mul(1024)
}

/// A process as `/proc/<pid>/stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// It has ended and nobody has asked for its exit code yet.
    pub(crate) zombie: bool,
    /// CPU time with that of its ended children, to 10 ms.
    pub(crate) cpu: Duration,
}

/// Resident memory of this process now, bytes; 0 where the system does not say.
pub(crate) fn resident() -> u64 {
    status_kb(None, "VmRSS:").unwrap_or(0) * 1024
}

/// Looks at a process.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name is in parentheses and may hold anything, parentheses and blanks too.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Stat { zombie: *fields.first()? == "Z", cpu: Duration::from_millis(ticks * 1000 / TICKS) })
}

/// All CPUs of the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Busy {
    /// Time used by processes and the kernel.
    pub(crate) used: Duration,
    /// Time another virtual machine had our CPU.
    pub(crate) stolen: Duration,
}

/// Looks at the machine.
pub(crate) fn busy() -> Option<Busy> {
    parse_busy(&std::fs::read_to_string("/proc/stat").ok()?)
}

fn parse_busy(text: &str) -> Option<Busy> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else { return None };
    let time = |ticks: u64| Duration::from_millis(ticks * 1000 / TICKS);
    Some(Busy { used: time(user + nice + system + irq + softirq), stolen: time(steal) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_texts() {
        let text = "12 (a) b) Z 1 1 1 0 -1 4194304 1 0 0 0 123 45 6 7 20 0 5 0 1 2 3";
        assert_eq!(parse_stat(text), Some(Stat { zombie: true, cpu: Duration::from_millis(1810) }));
        assert_eq!(parse_stat("12 (a) R 1"), None);
        let busy = parse_busy("cpu  100 1 50 900 7 2 3 4 0 0\ncpu0 1\n");
        assert_eq!(busy, Some(Busy { used: Duration::from_millis(1560), stolen: Duration::from_millis(40) }));
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let before = cpu();
        let mut sum = 0_u64;
        while cpu() - before < Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu() > before);
        assert!(peak_rss(None).is_some_and(|bytes| bytes > 1 << 20));
        let stat = stat(std::process::id()).unwrap();
        assert!(!stat.zombie && busy().is_some());
    }
}
