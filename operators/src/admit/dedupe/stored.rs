//! Ids as bytes, and back: what a checkpoint holds is looked up where it lies, and becomes a table bit by bit.
//!
//! *In*: the ids of a cut; the sections of checkpoints. *Out*: records by shard, ascending by hash; the ids they hold.
//! *Never*: a restart that waits until there is a table of all ids; an older file's word on an id of which a newer one
//! has some.

use std::collections::hash_map::Entry;

use super::{Ages, Dedupe, Sightings, TABLES, place};
use crate::state::{Cut, Found, Noted, Section, Sections, State, StateError, Table};

/// Bytes of one record of a checkpoint: the hash, an instant, and whether it is the first one of the id.
const RECORD: usize = 25;
/// Name of the table in checkpoints.
const IDS: &str = "ids";
/// A section of at most so many records is read at once, unless it is the oldest of its shard: each that is not is
/// searched for every new id, and there are many small ones.
const SMALL: usize = if cfg!(test) { 3 } else { 2048 };

type Record = [u8; RECORD];

impl Noted for Dedupe {
    fn note(&mut self) {
        self.noted = true;
    }

    fn loaded(&mut self) {
        self.noted = true;
        self.fresh = Some(Vec::new());
    }

    fn forget(&mut self) {
        self.fresh = None;
        // The next cut holds everything, and is made within a tick.
        self.read_all();
    }
}

impl State for Dedupe {
    fn changed(&mut self) -> &mut dyn Noted {
        self
    }

    /// What came since the last cut; the first time all that is remembered.
    fn cut(&mut self) -> Cut {
        let whole = self.fresh.is_none();
        let crowded = std::mem::take(&mut self.crowded);
        let ids = match self.fresh.take() {
            Some(fresh) => {
                let of = |hash: u128| Some((hash, self.tables[place(hash)].get(&hash)?.clone()));
                let once = fresh.into_iter().map(|(hash, received)| (hash, Sightings::One(received)));
                once.chain(crowded.into_iter().filter_map(of)).collect()
            }
            None => {
                self.read_all();
                self.tables.iter().flatten().map(|(hash, known)| (*hash, known.clone())).collect()
            }
        };
        self.fresh = self.noted.then(Vec::new);
        Cut { tables: vec![(IDS, Box::new(Ids { ids, whole }))], loose: Box::new(()) }
    }

    fn restore(&mut self, found: &Found<'_>) -> Result<(), StateError> {
        self.unread.resize_with(TABLES, Unread::default);
        for section in found.sections(IDS).filter(|section| !section.bytes.is_empty()) {
            self.unread[usize::from(section.shard)].files.push(ascending(section)?);
        }
        for (unread, table) in self.unread.iter_mut().zip(&mut self.tables) {
            unread.take_small(table);
        }
        Ok(())
    }
}

impl Dedupe {
    fn read_all(&mut self) {
        for (mut unread, table) in std::mem::take(&mut self.unread).into_iter().zip(&mut self.tables) {
            table.reserve(unread.files.iter().map(|file| file.len() / RECORD).sum());
            unread.take(usize::MAX, table);
        }
    }
}

/// The records of a section, ascending. They are copied: the file of all shards need not stay for the last of them.
fn ascending(section: Section<'_>) -> Result<Vec<u8>, StateError> {
    let (records, rest) = section.bytes.as_chunks::<RECORD>();
    if !rest.is_empty() {
        return Err(StateError::Read("ids end within a record".to_owned()));
    }
    let mut bytes = section.bytes.to_vec();
    if !records.is_sorted_by_key(hash_of) {
        // As versions before this one wrote them.
        sort_ids(&mut bytes);
    }
    let ends = [bytes.first_chunk::<RECORD>(), bytes.last_chunk()];
    if ends.into_iter().flatten().any(|record| place(hash_of(record)) != usize::from(section.shard)) {
        return Err(StateError::Read("ids lie in the section of another shard".to_owned()));
    }
    Ok(bytes)
}

/// Ids of one shard that were not read yet.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// What is left of each file, ascending; the newest last.
    files: Vec<Vec<u8>>,
}

impl Unread {
    /// Takes small files into the table while they are the newest, and not the last one.
    fn take_small(&mut self, table: &mut Ages) {
        while let [_, .., newest] = self.files.as_slice() {
            let records = newest.len() / RECORD;
            if records > SMALL {
                return;
            }
            self.take(records, table);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What is known of an id that is not in the table.
    pub(super) fn find(&self, hash: u128) -> Option<Sightings> {
        self.files.iter().rev().find_map(|file| {
            let records = file.as_chunks::<RECORD>().0;
            let from = &records[records.partition_point(|record| hash_of(record) < hash)..];
            let count = from.iter().take_while(|record| hash_of(record) == hash).count();
            sightings(&from[..count])
        })
    }

    /// Takes at least `count` records into the table, or what there is.
    pub(super) fn take(&mut self, count: usize, table: &mut Ages) {
        let mut left = count;
        while let Some(file) = self.files.last_mut() {
            if left == 0 {
                return;
            }
            let records = file.as_chunks::<RECORD>().0;
            let (kept, taken) = split(records, left);
            for id in taken.chunk_by(|a, b| hash_of(a) == hash_of(b)) {
                // What is in the table is newer.
                if let (Entry::Vacant(place), Some(known)) = (table.entry(hash_of(&id[0])), sightings(id)) {
                    place.insert(known);
                }
            }
            left = left.saturating_sub(taken.len());
            let kept = kept.len() * RECORD;
            file.truncate(kept);
            if kept == 0 {
                self.files.pop();
            }
        }
    }
}

/// Cuts `count` records off the end, and with them what else is there of the first one's id.
fn split(records: &[Record], count: usize) -> (&[Record], &[Record]) {
    let at = records.len().saturating_sub(count);
    let first = records.get(at).map(hash_of);
    let same = records[..at].iter().rev().take_while(|record| Some(hash_of(record)) == first).count();
    records.split_at(at - same)
}

/// What the records of one id say, of which the last that begins anew counts.
fn sightings(records: &[Record]) -> Option<Sightings> {
    let from = records.iter().rposition(|record| record[24] != 0).unwrap_or(0);
    match &records[from..] {
        [] => None,
        [only] => Some(Sightings::One(received(only))),
        many => Some(Sightings::Many(Box::new(many.iter().map(received).collect()))),
    }
}

/// Ids of a cut with all their instants. Later ones take the place of earlier ones.
struct Ids {
    ids: Vec<(u128, Sightings)>,
    whole: bool,
}

impl Table for Ids {
    fn is_whole(&self) -> bool {
        self.whole
    }

    fn is_log(&self) -> bool {
        true
    }

    fn write(&self, _whole: bool, to: &mut Sections) -> Result<(), StateError> {
        for (hash, known) in &self.ids {
            for (index, received) in known.times().iter().enumerate() {
                to.add(place(*hash) as u8, |out| {
                    out.extend(hash.to_le_bytes());
                    out.extend(received.to_le_bytes());
                    out.push(u8::from(index == 0));
                    Ok(())
                })?;
            }
        }
        to.bytes.iter_mut().for_each(|section| sort_ids(section));
        Ok(())
    }
}

fn hash_of(record: &Record) -> u128 {
    record.first_chunk().map_or(0, |hash| u128::from_le_bytes(*hash))
}

fn received(record: &Record) -> i64 {
    record[16..].first_chunk().map_or(0, |received| i64::from_le_bytes(*received))
}

/// Puts the records of a section in order; those of one id stay as they are.
pub fn sort_ids(section: &mut [u8]) {
    section.as_chunks_mut::<RECORD>().0.sort_by_key(hash_of);
}

/// The ids of a section of which an instant is at or after `least`, each with all its records.
pub fn still_remembered(section: &[u8], least: i64) -> impl Iterator<Item = &[Record]> {
    let ids = section.as_chunks::<RECORD>().0.chunk_by(|_, next| next[24] == 0);
    ids.filter(move |id| id.iter().any(|record| received(record) >= least))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{IdHash, Secret};
    use super::*;

    /// The sections of a file.
    type File = Vec<(u8, Vec<u8>)>;

    fn file(sections: Sections) -> File {
        (0..=u8::MAX).zip(sections.bytes).filter(|(_, bytes)| !bytes.is_empty()).collect()
    }

    /// What a thread that writes makes of the cuts of a dedupe.
    struct Files {
        rng: fastrand::Rng,
        owed: Vec<Box<dyn Table>>,
        chain: Vec<File>,
    }

    impl Files {
        fn write(&mut self, dedupe: &mut Dedupe, now: i64, horizon: i64) {
            let (_, table) = dedupe.cut().tables.remove(0);
            if table.is_whole() {
                self.owed.clear();
                self.chain.clear();
            }
            self.owed.push(table);
            if self.rng.u8(0..4) == 0 {
                return;
            }
            let mut sections = Sections::default();
            self.owed.drain(..).for_each(|table| table.write(true, &mut sections).unwrap());
            let mut written = file(sections);
            if self.rng.bool() {
                // Versions before this one wrote ids in no order.
                for (_, bytes) in &mut written {
                    let ids = bytes.as_chunks::<RECORD>().0.chunk_by(|a, b| hash_of(a) == hash_of(b));
                    *bytes = ids.rev().flat_map(|id| id.as_flattened().to_vec()).collect();
                }
            }
            self.chain.push(written);
            if self.rng.u8(0..4) == 0 {
                let mut sections = Sections::default();
                for (shard, bytes) in self.chain.drain(self.chain.len().saturating_sub(3)..).flatten() {
                    let kept = still_remembered(&bytes, now - 10 - horizon);
                    kept.for_each(|id| sections.bytes[usize::from(shard)].extend(id.as_flattened()));
                }
                sections.bytes.iter_mut().for_each(|section| sort_ids(section));
                self.chain.push(file(sections));
            }
        }

        fn found(&self) -> Found<'_> {
            let sections = self.chain.iter().flatten();
            let tables = sections.map(|(shard, bytes)| (IDS, Section { shard: *shard, bytes })).collect();
            Found { tables, ..Found::default() }
        }
    }

    #[test]
    fn ids_that_were_not_read_yet_are_known_all_the_same() {
        for seed in 0..1_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let secret = Secret(std::array::from_fn(|_| std::array::from_fn(|_| rng.u64(..))));
            let hashes = Arc::new(IdHash::new(&secret));
            let horizon = rng.i64(1..60);
            let new = || {
                let mut dedupe = Dedupe::new(horizon, Arc::clone(&hashes));
                dedupe.note();
                dedupe
            };
            // Many ids of few shards.
            let all = (0..).map(|n: u32| n.to_string()).filter(|id| hashes.shard(id) < 3);
            let ids: Vec<String> = all.take(rng.usize(5..60)).collect();
            let (mut plain, mut restarted) = (new(), new());
            let mut files = Files { rng: rng.fork(), owed: Vec::new(), chain: Vec::new() };
            for now in 0..300 {
                match rng.u8(0..40) {
                    0..4 => files.write(&mut restarted, now, horizon),
                    4 => {
                        files.write(&mut restarted, now, horizon);
                        while !files.owed.is_empty() {
                            files.write(&mut restarted, now, horizon);
                        }
                        restarted = new();
                        restarted.restore(&files.found()).unwrap();
                        restarted.loaded();
                    }
                    5 => restarted.forget(),
                    6..10 => [&mut plain, &mut restarted].into_iter().for_each(|dedupe| dedupe.age(now - 5)),
                    _ => {
                        let (id, received) = (&ids[rng.usize(..ids.len())], now - rng.i64(0..5));
                        let seen = plain.seen(id, received);
                        assert_eq!(restarted.seen(id, received), seen, "seed {seed}, id {id} at {received}");
                    }
                }
            }
        }
    }

    #[test]
    fn sections_that_are_no_ids_of_their_shard_are_refused() {
        let mut dedupe = Dedupe::new(10, Arc::new(IdHash::new(&Secret::new())));
        let mut restore = |shard: u8, bytes: Vec<u8>| {
            let section = Section { shard, bytes: &bytes };
            dedupe.restore(&Found { tables: vec![(IDS, section)], ..Found::default() })
        };
        assert!(restore(0, vec![0; RECORD + 1]).unwrap_err().to_string().contains("within a record"));
        assert!(restore(1, vec![0; RECORD]).unwrap_err().to_string().contains("another shard"));
        assert_eq!(restore(0, vec![0; RECORD]), Ok(()));
    }
}
