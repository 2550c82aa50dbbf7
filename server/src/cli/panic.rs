//! A panic is our bug: say so, and stop rather than answer with numbers that no longer move.
//!
//! *In*: panics of any thread. *Out*: exit code 70, except in HTTP handlers, whose request alone is
//! answered 500, and in receivers, whose source alone is shown as failed. *Never*: a process that lives
//! on without one of its engine threads.

use super::exit::Exit;

/// Threads of the HTTP runtime; a panic there costs one request (`tower_http::catch_panic`).
pub const HTTP_THREAD: &str = "http";

/// Threads of receivers: they turn a panic into a failed source (`connectors::receive`).
const RECEIVER: &str = "receive-";

/// Installs the hook.
pub fn install() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
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
