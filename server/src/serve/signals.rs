//! Signals of a server process.
//!
//! *In*: SIGTERM, SIGINT, SIGHUP. *Out*: how the process shall end. *Never*: the end itself (the caller drains).

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::exit::Exit;

/// Waits for SIGTERM (0) or SIGINT (130); calls `reload` at each SIGHUP. Afterwards a second SIGINT ends
/// the process at once, so that an impatient user is not held up by the drain.
pub(super) async fn wait(reload: impl Fn()) -> Exit {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        tracing::warn!("signals are not available: only a kill ends this process");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = term.recv() => return Exit::Ok,
            _ = int.recv() => {
                tokio::spawn(async move {
                    int.recv().await;
                    leave();
                });
                return Exit::Interrupted;
            }
            _ = hup.recv() => reload(),
        }
    }
}

#[allow(clippy::disallowed_methods)] // Asked for twice: whatever is pushed is durable already.
fn leave() -> ! {
    std::process::exit(Exit::Interrupted as i32)
}
