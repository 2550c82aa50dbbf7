//! The binary `streamgauge`.
//!
//! *In*: the command line. *Out*: an exit code. *Never*: anything but that (see [`server::cli`]).

use std::process::ExitCode;

// Decode and fold allocate in short bursts on several threads; glibc's malloc keeps what they free.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    server::cli::main()
}
