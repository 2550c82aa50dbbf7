//! `auth:` - who may read and write. Only `open` runs yet, and only where nobody else can reach it.
//!
//! *In*: the section, the address. *Out*: the mode. *Never*: an open server that others can reach.

use std::net::SocketAddr;

use super::read::{Report, Section};
use super::tree::Origin;

/// `auth.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everybody who can connect may do everything.
    Open,
    /// API keys; not running yet.
    Keys,
    /// JSON web tokens; not running yet.
    Jwt,
}

/// Reads the section and refuses what would be unsafe.
pub fn read(root: &mut Section<'_>, listen: (SocketAddr, &Origin), report: &mut Report) -> Mode {
    let mut section = root.section("auth", report);
    let at = section.node("mode").map_or(Origin::Default, |node| node.origin.clone());
    let mode = section.choice(
        "mode",
        "open",
        &[("open", Mode::Open), ("keys", Mode::Keys), ("jwt", Mode::Jwt)],
        report,
    );
    section.done(report);
    if mode != Mode::Open {
        report.mistake(
            "not_yet",
            &at,
            "this version runs `auth: { mode: open }` only; API keys and tokens come with a later version",
            "listen on a loopback address with `mode: open`, and put a proxy that authenticates in front",
        );
    } else if !listen.0.ip().is_loopback() {
        report.mistake(
            "open_on_network",
            listen.1,
            format!("`server.listen` is {}, which others can reach, and `auth.mode` is `open`", listen.0),
            "listen on 127.0.0.1 (a proxy in front may authenticate)",
        );
    }
    mode
}
