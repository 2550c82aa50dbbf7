//! Ctrl-C in commands that keep nothing open: exit code 130 at once.
//!
//! *In*: SIGINT. *Out*: the end of the process. *Never*: installed for `serve`, `demo` and `bench`, which drain.

use super::exit::Exit;

/// Listens on a thread of its own. Where that fails the signal's own default holds.
pub fn install() {
    let body = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if runtime.is_ok_and(|runtime| runtime.block_on(tokio::signal::ctrl_c()).is_ok()) {
            leave();
        }
    };
    // Without the thread Ctrl-C still ends the process, only the exit code is the shell's.
    let _ = std::thread::Builder::new().name("interrupt".into()).spawn(body);
}

#[allow(clippy::disallowed_methods)] // The user wants the end now; nothing of ours is half written.
fn leave() -> ! {
    std::process::exit(Exit::Interrupted as i32)
}
