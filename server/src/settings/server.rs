//! `server:` - where the HTTP side listens.
//!
//! *In*: the section. *Out*: [`Server`]. *Never*: a name that does not resolve.

use std::net::{SocketAddr, ToSocketAddrs};

use super::read::{Report, Section};
use super::tree::Origin;

/// `server:` settings.
#[derive(Debug, Clone)]
pub struct Server {
    /// Address and port of the HTTP server; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where `listen` was written, for messages about it.
    pub listen_origin: Origin,
}

/// The address without any settings.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

impl Server {
    /// Reads the section.
    pub fn read(root: &mut Section<'_>, report: &mut Report) -> Self {
        let mut section = root.section("server", report);
        let listen_origin = section.node("listen").map_or(Origin::Default, |node| node.origin.clone());
        let default = DEFAULT_LISTEN.parse().expect("a valid address");
        let listen = section.value(
            "listen",
            (DEFAULT_LISTEN, default),
            "an address with a port",
            |text| text.to_socket_addrs().ok()?.next(),
            report,
        );
        section.done(report);
        Self { listen, listen_origin }
    }
}
