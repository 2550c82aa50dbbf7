//! Places in the code where a test can end or hold the process, and mistakes that a test can switch on.
//!
//! *In*: environment variables, in development builds only. *Out*: an abort, a wait, an error, at a named point.
//! *Never*: anything at all in a release build.
//!
//! `STREAMGAUGE_FAULT="lake.before_commit=abort@3"`: the third time the process comes by, it dies as by `kill -9`.
//! `=error@2`: the second time, [`fails`] says so. `=sleep:500@1`: half a second. Several are separated by commas.
//! `STREAMGAUGE_BUG="commit_twice"`: [`bug`] answers yes to that name.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Abort,
    Error,
    Sleep(Duration),
}

#[derive(Debug)]
struct Armed {
    act: Act,
    /// The passage at which it happens, from 1.
    at: u64,
    passed: AtomicU64,
}

/// A point that is only passed.
pub fn point(name: &str) {
    if cfg!(debug_assertions) {
        let _ = pass(name);
    }
}

/// A point that a test can make fail.
pub fn fails(name: &str) -> bool {
    cfg!(debug_assertions) && pass(name)
}

/// Whether the mistake `name` is switched on.
pub fn bug(name: &str) -> bool {
    static ON: OnceLock<String> = OnceLock::new();
    cfg!(debug_assertions)
        && ON
            .get_or_init(|| std::env::var("STREAMGAUGE_BUG").unwrap_or_default())
            .split(',')
            .any(|on| on == name)
}

fn pass(name: &str) -> bool {
    static ARMED: OnceLock<BTreeMap<String, Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| parse(&std::env::var("STREAMGAUGE_FAULT").unwrap_or_default()));
    let Some(armed) = armed.get(name) else { return false };
    if armed.passed.fetch_add(1, Ordering::Relaxed) + 1 != armed.at {
        return false;
    }
    match armed.act {
        Act::Abort => std::process::abort(),
        Act::Sleep(long) => {
            std::thread::sleep(long);
            false
        }
        Act::Error => true,
    }
}

fn parse(text: &str) -> BTreeMap<String, Armed> {
    let one = |item: &str| {
        let (name, act) = item.trim().split_once('=')?;
        let (act, at) = act.split_once('@').unwrap_or((act, "1"));
        let act = match act.split_once(':') {
            None if act == "abort" => Act::Abort,
            None if act == "error" => Act::Error,
            Some(("sleep", ms)) => Act::Sleep(Duration::from_millis(ms.parse().ok()?)),
            _ => return None,
        };
        Some((name.to_owned(), Armed { act, at: at.parse().ok()?, passed: AtomicU64::new(0) }))
    };
    text.split(',').filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_armed() {
        let armed = parse("a.b=abort@3, c=error,d=sleep:20@2,nonsense,e=explode");
        let acts: Vec<_> = armed.iter().map(|(name, one)| (name.as_str(), one.act, one.at)).collect();
        let sleep = Act::Sleep(Duration::from_millis(20));
        assert_eq!(acts, [("a.b", Act::Abort, 3), ("c", Act::Error, 1), ("d", sleep, 2)]);
        assert!(!fails("nothing"));
    }
}
