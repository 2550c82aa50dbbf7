//! The adapters that come with the program.
//!
//! *In*: the YAML files of `connectors/adapters/`. *Out*: adapters by name, read once. *Never*: an adapter
//! with a mistake (a test reads them all).

use std::sync::{Arc, OnceLock};

use contracts::text::SourceFile;

use super::read::read;
use super::spec::Adapter;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../adapters/", $name, ".yaml")))),*]
    };
}

/// Name and text, in the order of the reference page.
pub(super) const FILES: &[(&str, &str)] = files![
    "github",
    "gitlab",
    "jenkins",
    "argocd",
    "pagerduty",
    "incidentio",
    "opsgenie",
    "sentry",
    "jira",
    "linear",
    "cdevents",
];

fn all() -> &'static [Arc<Adapter>] {
    static ALL: OnceLock<Vec<Arc<Adapter>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let files = FILES.iter().map(|(name, text)| SourceFile::new(format!("adapters/{name}.yaml"), *text));
        files
            .map(|file| Arc::new(read(&file).expect("a test reads every adapter that comes along")))
            .collect()
    })
}

/// The adapter of a tool: `github`.
pub fn adapter(name: &str) -> Option<Arc<Adapter>> {
    all().iter().find(|adapter| adapter.name == name).cloned()
}

/// The names of all adapters.
pub fn adapter_names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_adapter_reads_clean() {
        for (name, text) in FILES {
            let file = SourceFile::new(format!("adapters/{name}.yaml"), *text);
            let adapter = read(&file).unwrap_or_else(|mistakes| {
                panic!("{}", contracts::diagnostic::render(&mistakes));
            });
            assert_eq!(adapter.name, *name);
        }
        assert_eq!(all().len(), FILES.len());
    }
}
