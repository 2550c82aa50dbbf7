//! Which machine and build a number is from.
//!
//! *In*: the running system. *Out*: a [`Machine`] for the report. *Never*: anything that names a person or host.

use serde::{Deserialize, Serialize};

/// The machine and the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// CPU model.
    pub cpu: String,
    /// CPUs this process may use.
    pub cores: usize,
    /// Operating system and architecture.
    pub system: String,
    /// `release`, or `dev`: whose numbers mean nothing.
    pub build: String,
    /// Version of Streamgauge.
    pub version: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cpu: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            build: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The line under a report; says so when the numbers mean nothing.
    pub(crate) fn line(&self) -> String {
        let warning = if self.build == "release" {
            ""
        } else {
            "\nDEVELOPMENT BUILD: these numbers mean nothing; use `make bench`"
        };
        format!(
            "{} cores of {}, {}, streamgauge {} ({} build){warning}",
            self.cores, self.cpu, self.system, self.version, self.build
        )
    }
}
