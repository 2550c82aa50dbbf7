//! What is let go once a newer checkpoint is durable.
//!
//! *In*: what a vault holds. *Out*: the newest checkpoints and the files they name, nothing else. *Never*: a file that a
//! kept checkpoint names; a checkpoint less than what is to be kept; a fresh file, for somebody may just write it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::manifest::{self, Manifest};
use super::{Offsets, Vault, VaultError};

/// Files that no checkpoint names go when they are this old: a manifest comes after its blobs.
const ORPHANS: Duration = Duration::from_secs(15 * 60);

/// Removes all but the newest `keep` checkpoints that can be read.
pub(super) fn prune(vault: &dyn Vault, keep: usize) -> Result<(), VaultError> {
    let stored = vault.list()?;
    let mut ids: Vec<u64> = stored.iter().filter_map(|stored| manifest::number(&stored.name)).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let (mut kept, mut named, mut old) = (0, BTreeSet::new(), Vec::new());
    let mut let_go: BTreeSet<String> = BTreeSet::new();
    for id in ids {
        let name = manifest::name(id);
        let read = vault.get(&name).map(|bytes| Manifest::of(&bytes))?;
        match read {
            Ok(manifest) if kept < keep => {
                kept += 1;
                named.extend(manifest.blobs().map(|blob| blob.name.clone()));
            }
            // One that cannot be read counts as none; it goes when it would go anyway.
            Err(_) if kept < keep => {}
            read => {
                old.push(name);
                let_go.extend(read.iter().flat_map(Manifest::blobs).map(|blob| blob.name.clone()));
            }
        }
    }
    // Checkpoints first: one that names files that are gone would be no checkpoint.
    for name in old {
        vault.delete(&name)?;
        faults::point("checkpoint.pruning");
    }
    for stored in stored.iter().filter(|stored| manifest::blob_number(&stored.name).is_some()) {
        let orphan = stored.age.is_some_and(|age| age >= ORPHANS);
        let named = named.contains(&stored.name) && !faults::bug("prune_named");
        if !named && (orphan || let_go.contains(&stored.name)) {
            vault.delete(&stored.name)?;
        }
    }
    Ok(())
}

/// What the checkpoints of a vault still need: the least offset of each partition. `None`: everything, because there
/// are not two that can be read; when the newest turns out to be damaged, another must be there to go on from.
///
/// # Errors
/// The vault does not answer.
pub fn needed(vault: &dyn Vault) -> Result<Option<Offsets>, VaultError> {
    let mut needed: Option<Offsets> = None;
    let mut readable = 0;
    for stored in vault.list()?.iter().filter(|stored| manifest::number(&stored.name).is_some()) {
        let bytes = match vault.get(&stored.name) {
            Ok(bytes) => bytes,
            // Let go since the list was made.
            Err(VaultError::Missing(_)) => continue,
            Err(error) => return Err(error),
        };
        let Ok(manifest) = Manifest::of(&bytes) else { continue };
        readable += 1;
        let stands: Offsets = manifest.partitions.iter().map(|s| (s.partition.clone(), s.next)).collect();
        needed = Some(match needed {
            None => stands,
            // A partition that one of them does not know is read from its beginning.
            Some(least) => least
                .into_iter()
                .filter_map(|(partition, next)| {
                    Some((stands.get(&partition)?.min(&next).to_owned(), partition))
                })
                .map(|(next, partition)| (partition, next))
                .collect(),
        });
    }
    Ok(needed.filter(|_| readable >= 2))
}
