//! A panic is our bug: say so, and stop rather than answer with numbers that no longer move.
//!
//! *In*: panics of any thread. *Out*: exit code 70, except in HTTP handlers, whose request alone is
//! answered 500, in receivers, whose source alone is shown as failed, and where a library's panic is
//! handled as an error (`contracts::guard`). *Never*: a process that lives on without one of its engine threads, or
//! with a store that broke in the middle of a change.

use super::exit::Exit;

/// Threads of the HTTP runtime; a panic there costs one request (`tower_http::catch_panic`).
pub const HTTP_THREAD: &str = "http";

/// Threads of receivers: they turn a panic into a failed source (`connectors::receive`).
const RECEIVER: &str = "receive-";

/// The crate of the embedded log and the dead letters. It panics where a file contradicts itself, and a change that it was
/// in the middle of would hold up all others: whatever the thread, nothing more may be acknowledged.
const STORE: &str = "/redb-";

/// Installs the hook.
pub fn install() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if contracts::guard::is_guarded() {
            return;
        }
        before(panic);
        if panic.location().is_some_and(|place| place.file().contains(STORE)) {
            eprintln!(
                "streamgauge {} stopped: a file of the embedded log or the dead letters is damaged (data/log, data/deadletter), by \
                 a disk that does not keep what it says or by another program.\nNothing was acknowledged that is not on it. If a \
                 restart ends the same way, restore the data folder from a backup, or move the file away to go on without it.",
                env!("CARGO_PKG_VERSION")
            );
            stop();
        }
        let thread = std::thread::current();
        if thread.name().is_some_and(|name| name == HTTP_THREAD || name.starts_with(RECEIVER)) {
            return;
        }
        eprintln!(
            "streamgauge {} stopped by a bug of its own. Pushed events are safe in the log; a restart reads them again.\n\
             Please report the lines above with what you did.",
            env!("CARGO_PKG_VERSION")
        );
        stop();
    }));
}

#[allow(clippy::disallowed_methods)] // A thread of the engine is gone: nothing could be cleaned up in order.
fn stop() -> ! {
    std::process::exit(Exit::Bug as i32)
}
