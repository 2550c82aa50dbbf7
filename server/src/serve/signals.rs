//! Signals of a server process.
//!
//! *In*: SIGTERM, SIGINT, SIGHUP. *Out*: how the process shall end. *Never*: the end itself (the caller drains), a moment
//! at which the server answers and a SIGHUP ends it.

use std::io::Error;

use crossbeam_channel::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::exit::Exit;

/// Listens from now on, on a thread of its own: tells of SIGTERM (0) and SIGINT (130), calls `reload` at each SIGHUP. A
/// SIGINT after either ends the process at once, so that an impatient user is not held up by the drain.
///
/// # Errors
/// The operating system refuses.
pub(super) fn listen(reload: impl Fn() + Send + 'static) -> Result<Receiver<Exit>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut term, mut int, mut hup) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?)
    };
    let (ends, ended) = crossbeam_channel::bounded(1);
    let body = async move {
        let mut asked = false;
        loop {
            let exit = tokio::select! {
                _ = term.recv() => Exit::Ok,
                _ = int.recv() => if asked { leave() } else { Exit::Interrupted },
                _ = hup.recv() => {
                    reload();
                    continue;
                }
            };
            asked = true;
            // The first one counts.
            let _ = ends.try_send(exit);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(body))?;
    Ok(ended)
}

#[allow(clippy::disallowed_methods)] // Asked for twice: whatever is pushed is durable already.
fn leave() -> ! {
    std::process::exit(Exit::Interrupted as i32)
}
