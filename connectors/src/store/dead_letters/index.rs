//! What is known of every kept row without reading it.
//!
//! *In*: rows that came, changed or went. *Out*: pages of keys, counts. *Never*: I/O.

use std::collections::{BTreeMap, HashMap};

use super::{DeadLetter, Filter, Stats, Status};

/// (received, id): the order of lists.
pub(super) type Key = (i64, u64);

/// Names that occur in many rows, as numbers.
#[derive(Debug, Default)]
struct Names {
    list: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.list.len() as u32;
        self.list.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

#[derive(Debug)]
struct Row {
    status: Status,
    reasons: Box<[u32]>,
    event_type: Option<u32>,
    source: u32,
    payload_len: u64,
    /// Of the payload: tells a row from another one at the same position of a replaced source.
    fingerprint: u64,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    rows: BTreeMap<Key, Row>,
    ids: HashMap<u64, i64>,
    names: Names,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
}

const HOUR: i64 = 3_600_000_000;

impl Index {
    pub(super) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    pub(super) fn key(&self, id: u64) -> Option<Key> {
        Some((*self.ids.get(&id)?, id))
    }

    pub(super) fn fingerprint(&self, key: Key) -> Option<u64> {
        Some(self.rows.get(&key)?.fingerprint)
    }

    pub(super) fn insert(&mut self, key: Key, letter: &DeadLetter, fingerprint: u64) {
        let row = Row {
            status: letter.status,
            reasons: letter.reasons.iter().map(|r| self.names.number(&r.code)).collect(),
            event_type: letter.event_type.as_deref().map(|t| self.names.number(t)),
            source: self.names.number(&letter.partition.source),
            payload_len: letter.payload_len,
            fingerprint,
        };
        self.bytes += row.payload_len;
        self.ids.insert(key.1, key.0);
        if let Some(before) = self.rows.insert(key, row) {
            self.bytes -= before.payload_len;
        }
    }

    pub(super) fn remove(&mut self, key: Key) {
        if let Some(row) = self.rows.remove(&key) {
            self.bytes -= row.payload_len;
            if self.ids.get(&key.1) == Some(&key.0) {
                self.ids.remove(&key.1);
            }
        }
    }

    pub(super) fn set_status(&mut self, key: Key, status: Status) {
        if let Some(row) = self.rows.get_mut(&key) {
            row.status = status;
        }
    }

    /// Keys and payload lengths, oldest first.
    pub(super) fn oldest(&self) -> impl Iterator<Item = (Key, u64)> + '_ {
        self.rows.iter().map(|(key, row)| (*key, row.payload_len))
    }

    pub(super) fn page(&self, filter: &Filter, page: u64, page_size: u64) -> (Vec<Key>, u64) {
        // A name that no row has matches nothing.
        let number = |name: &Option<String>| match name {
            None => Some(None),
            Some(name) => self.names.numbers.get(name).map(|n| Some(*n)),
        };
        let (Some(reason), Some(event_type), Some(source)) =
            (number(&filter.reason), number(&filter.event_type), number(&filter.source))
        else {
            return (Vec::new(), 0);
        };
        let hit = |row: &Row| {
            reason.is_none_or(|r| row.reasons.contains(&r))
                && event_type.is_none_or(|t| row.event_type == Some(t))
                && source.is_none_or(|s| row.source == s)
                && filter.status.is_none_or(|s| row.status == s)
        };
        let skip = page.saturating_sub(1).saturating_mul(page_size);
        let end = skip.saturating_add(page_size);
        let mut total = 0;
        let mut keys = Vec::new();
        for (key, _) in self.rows.iter().rev().filter(|(_, row)| hit(row)) {
            if (skip..end).contains(&total) {
                keys.push(*key);
            }
            total += 1;
        }
        (keys, total)
    }

    pub(super) fn stats(&self, now: i64) -> Stats {
        let mut stats =
            Stats { total: self.len(), bytes: self.bytes, dropped: self.dropped, ..Stats::default() };
        for status in [Status::Failed, Status::Replayed, Status::Dismissed] {
            stats.by_status.insert(status, 0);
        }
        let mut reasons: HashMap<u32, u64> = HashMap::new();
        for row in self.rows.values() {
            *stats.by_status.entry(row.status).or_default() += 1;
            let mut seen: Vec<u32> = row.reasons.to_vec();
            seen.sort_unstable();
            seen.dedup();
            for reason in seen {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        for (reason, count) in reasons {
            stats.by_reason.insert(self.names.list[reason as usize].clone(), count);
        }
        stats.last_24h = self.rows.range((now.saturating_sub(24 * HOUR), 0)..).count() as u64;
        let this_hour = now.div_euclid(HOUR) * HOUR;
        for back in (0..24).rev() {
            let from = this_hour - back * HOUR;
            let rows = self.rows.range((from, 0)..(from + HOUR, 0)).count() as u64;
            stats.trend.push((from, rows));
        }
        stats
    }
}
