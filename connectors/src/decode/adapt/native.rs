//! What YAML cannot say: small functions over a body, one file per source.
//!
//! *In*: a body. *Out*: a value. *Never*: state, a clock, a look at anything but the body.

mod argocd;

use serde_json::Value;

/// A function that adapters call by name: `{ native: argocd_attempt }`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Native {
    /// Its name.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) run: fn(&Value) -> Value,
}

/// All of them.
pub(super) const NATIVES: &[Native] = &[
    Native { name: "argocd_attempt", run: argocd::attempt },
    Native { name: "argocd_started", run: argocd::started },
    Native { name: "argocd_deployed", run: argocd::deployed },
    Native { name: "argocd_kind", run: argocd::kind },
];
