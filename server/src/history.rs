//! The sets of contracts that have run here, so that old versions can be read and compared.
//!
//! *In*: the texts of each generation as it begins to answer. *Out*: the newest set that held a contract in some
//! version. *Never*: more than [`MAX_SETS`] sets; a server that does not run because its history cannot be written.

use std::io::Write;
use std::path::{Path, PathBuf};

use contracts::catalog::Head;
use contracts::text::SourceFile;
use contracts::{Catalog, Kind};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::answer::wall_now;

/// Sets kept; a set is a few hundred kilobytes of text at most, and changes when a person changes a contract.
const MAX_SETS: usize = 100;

/// A set of contracts that has run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Set {
    /// When it first answered, microseconds since the Unix epoch.
    pub since: i64,
    /// Hash of its catalog.
    pub hash: String,
    /// Its files: path and text.
    files: Vec<(String, String)>,
    /// Its contracts: kind, name, version.
    held: Vec<(String, String, (u64, u64, u64))>,
}

impl Set {
    fn new(texts: &[SourceFile], catalog: &Catalog) -> Set {
        let row = |kind: Kind, head: &Head| (kind.name().to_owned(), head.name.clone(), head.version);
        let events = catalog.events.iter().map(|c| row(Kind::Event, &c.head));
        let entities = catalog.entities.iter().map(|c| row(Kind::Entity, &c.head));
        let tables = catalog.tables.iter().map(|c| row(Kind::Table, &c.head));
        let metrics = catalog.metrics.iter().map(|c| row(Kind::Metric, &c.head));
        Set {
            since: wall_now(),
            hash: catalog.hash.clone(),
            files: texts.iter().map(|file| (file.path.clone(), file.text.to_string())).collect(),
            held: events.chain(entities).chain(tables).chain(metrics).collect(),
        }
    }

    /// Its files.
    pub fn texts(&self) -> Vec<SourceFile> {
        self.files.iter().map(|(path, text)| SourceFile::new(path.clone(), text.as_str())).collect()
    }

    fn version(&self, kind: Kind, name: &str) -> Option<(u64, u64, u64)> {
        self.held.iter().find(|(k, n, _)| k == kind.name() && n == name).map(|(_, _, version)| *version)
    }
}

/// All sets, oldest first.
#[derive(Debug)]
pub struct History {
    folder: PathBuf,
    sets: Mutex<Vec<Set>>,
}

impl History {
    /// Reads what earlier processes left in `folder`. What cannot be read is passed over with a warning: answers of
    /// now do not depend on it.
    pub fn open(folder: &Path) -> History {
        let mut sets: Vec<Set> = Vec::new();
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|p| p.extension().is_some_and(|e| e == "json")) {
            let set = std::fs::read(&path).map_err(|e| e.to_string());
            match set.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string())) {
                Ok(set) => sets.push(set),
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "an old set of contracts is passed over");
                }
            }
        }
        sets.sort_by_key(|set| set.since);
        History { folder: folder.to_path_buf(), sets: Mutex::new(sets) }
    }

    /// Remembers a set that answers from now on; one that is known moves to the end.
    pub(crate) fn record(&self, texts: &[SourceFile], catalog: &Catalog) {
        let mut sets = self.sets.lock();
        if sets.last().is_some_and(|set| set.hash == catalog.hash) {
            return;
        }
        let set = Set::new(texts, catalog);
        let mut dropped: Vec<Set> = sets.extract_if(.., |old| old.hash == set.hash).collect();
        if let Err(error) = self.write(&set) {
            tracing::warn!(folder = %self.folder.display(), %error, "this set of contracts will be forgotten at the end");
        }
        sets.push(set);
        let over = sets.len().saturating_sub(MAX_SETS);
        dropped.extend(sets.drain(..over));
        for set in dropped {
            // One more than wanted does no harm.
            let _ = std::fs::remove_file(self.path(&set));
        }
    }

    /// The files of the set with this hash.
    pub(crate) fn texts(&self, hash: &str) -> Option<Vec<SourceFile>> {
        self.sets.lock().iter().rev().find(|set| set.hash == hash).map(Set::texts)
    }

    /// The versions of a contract that have run, newest first, with the newest set that held each.
    pub(crate) fn versions(&self, kind: Kind, name: &str) -> Vec<((u64, u64, u64), Set)> {
        let mut versions: Vec<((u64, u64, u64), Set)> = Vec::new();
        for set in self.sets.lock().iter().rev() {
            if let Some(version) = set.version(kind, name)
                && versions.iter().all(|(known, _)| *known != version)
            {
                versions.push((version, set.clone()));
            }
        }
        versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        versions
    }

    fn path(&self, set: &Set) -> PathBuf {
        let hash: String = set.hash.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
        self.folder.join(format!("{}-{hash}.json", set.since))
    }

    /// Whole or not at all.
    fn write(&self, set: &Set) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let path = self.path(set);
        let unfinished = path.with_extension("tmp");
        let mut file = std::fs::File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(set)?)?;
        file.sync_all()?;
        std::fs::rename(unfinished, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(version: &str) -> (Vec<SourceFile>, Catalog) {
        let text = format!(
            "apiVersion: streamgauge/v1\nkind: Event\nname: a\nversion: {version}\nfields: {{ x: {{ type: int }} }}\n"
        );
        let texts = vec![SourceFile::new("a.yaml", text)];
        let loaded = contracts::load(&texts);
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        (texts, loaded.catalog)
    }

    #[test]
    fn versions_are_there_after_a_restart_and_a_broken_file_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::open(folder.path());
        for version in ["1.0.0", "1.1.0", "1.1.0", "1.0.0", "2.0.0"] {
            let (texts, catalog) = set(version);
            history.record(&texts, &catalog);
        }
        std::fs::write(folder.path().join("broken.json"), "{").unwrap();
        drop(history);
        let history = History::open(folder.path());
        let versions: Vec<_> = history.versions(Kind::Event, "a").into_iter().map(|(v, _)| v).collect();
        assert_eq!(versions, [(2, 0, 0), (1, 1, 0), (1, 0, 0)]);
        assert!(history.versions(Kind::Metric, "a").is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "three sets and the broken one");
    }

    #[test]
    fn the_oldest_go_beyond_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::open(folder.path());
        for minor in 0..MAX_SETS + 5 {
            let (texts, catalog) = set(&format!("1.{minor}.0"));
            history.record(&texts, &catalog);
        }
        let versions = history.versions(Kind::Event, "a");
        assert_eq!((versions.len(), versions[MAX_SETS - 1].0), (MAX_SETS, (1, 5, 0)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), MAX_SETS);
    }
}
