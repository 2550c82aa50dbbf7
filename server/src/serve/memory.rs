//! `limits.memory`: above it the sources wait.
//!
//! *In*: the resident memory of the process. *Out*: whether the gate is closed. *Never*: a guess where
//! the operating system does not tell (then there is no limit, and that is said once).

/// Opens again this far below the limit, so that the gate does not flutter.
const BELOW: u64 = 16;

/// Looks at the process's memory.
#[derive(Debug)]
pub struct Watch {
    limit: u64,
    closed: bool,
    known: bool,
    resident: u64,
}

impl Watch {
    /// A limit in bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, closed: false, known: true, resident: 0 }
    }

    /// Is the limit reached?
    pub fn look(&mut self) -> bool {
        let Some(resident) = resident() else {
            if std::mem::take(&mut self.known) {
                tracing::warn!(
                    "the operating system does not tell the process's memory: limits.memory is not kept"
                );
            }
            return false;
        };
        self.resident = resident;
        self.closed = decide(self.closed, resident, self.limit);
        self.closed
    }

    /// Says that the gate has moved.
    pub fn tell(&self, closed: bool) {
        let mib = self.resident >> 20;
        if closed {
            tracing::warn!(
                resident_mib = mib,
                limit_mib = self.limit >> 20,
                "limits.memory is reached: sources wait"
            );
        } else {
            tracing::info!(resident_mib = mib, "memory is below the limit again: sources go on");
        }
    }
}

fn decide(closed: bool, resident: u64, limit: u64) -> bool {
    if closed { resident > limit - limit / BELOW } else { resident > limit }
}

/// Resident bytes of this process (Linux).
pub fn resident() -> Option<u64> {
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(PAGE)
}

/// Bytes of memory that this process may have: the machine's, or less where its control group (a container's limit) says so
/// (Linux).
pub fn machine() -> Option<u64> {
    of_machine().into_iter().chain(super::cgroup::limit()).min()
}

fn of_machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_at_the_limit_and_opens_below_it() {
        assert!(!decide(false, 1600, 1600));
        assert!(decide(false, 1601, 1600));
        assert!(decide(true, 1550, 1600));
        assert!(!decide(true, 1500, 1600));
    }

    #[test]
    fn linux_tells() {
        assert!(resident().is_some_and(|n| n > 1 << 20));
        let all = of_machine().unwrap();
        assert!(all > 1 << 28);
        assert!(machine().is_some_and(|n| n > 1 << 24 && n <= all));
    }
}
