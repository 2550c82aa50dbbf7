//! Rows of change streams: versions of a row, and the end of it.
//!
//! *In*: the raw values of one version, what it does, when. *Out*: a row with its [`Change`]; its id is the
//! text of its key. *Never*: a row without a key (but a truncate), a check that stands between a delete and
//! the row it takes away.

use contracts::batch::{Change, ChangeOp, Reason};

use super::{MAX_AHEAD, Names, Origin, Rows};
use crate::decode::raw::Raw;
use crate::decode::reason::{Path, Row, reason};
use crate::decode::time;
use crate::decode::walk::Walker;

/// Name of the event time column.
const TIME: &str = "time";

/// What one row of a change stream does.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) struct Version {
    pub(in crate::decode) op: ChangeOp,
    /// When the source committed it, microseconds.
    pub(in crate::decode) at: i64,
    /// The event time where the contract's field says none.
    pub(in crate::decode) time: i64,
}

impl Rows {
    /// The event is a change stream.
    pub(in crate::decode) fn changelog(&self) -> bool {
        self.contract.changelog
    }

    /// Index of the field that is the key.
    pub(in crate::decode) fn key_field(&self) -> Option<usize> {
        self.key_field
    }

    /// Adds one version; `cells(i)` is the raw value of field i, `None` where `reasons` has one for it
    /// already. On reasons nothing was added.
    pub(in crate::decode) fn push_version<'a>(
        &mut self,
        cells: impl Fn(usize) -> Option<Raw<'a>>,
        version: &Version,
        reasons: Vec<Reason>,
        names: &Names,
        origin: &Origin,
        walker: &mut Walker,
    ) -> Result<(), Vec<Reason>> {
        let mut row = Row { reasons, hide: false, nested: walker };
        match version.op {
            ChangeOp::Upsert => self.push_columns(&cells, &mut row),
            ChangeOp::Delete => self.push_key_only(&cells, &mut row),
            ChangeOp::Truncate => self.fields.iter_mut().for_each(|field| field.column.push_null()),
        }
        self.push_key(&cells, version.op, &mut row);
        let time = self.push_version_time(version, names, origin, &mut row);
        if !row.reasons.is_empty() {
            let reasons = row.reasons;
            self.take_back();
            return Err(reasons);
        }
        self.time.push(time);
        self.changes.push(Change { op: version.op, at: version.at });
        self.offsets.push(origin.offset);
        self.parts.push(origin.part);
        self.received.push(origin.received);
        Ok(())
    }

    fn push_columns<'a>(&mut self, cells: impl Fn(usize) -> Option<Raw<'a>>, row: &mut Row<'_>) {
        for (i, (rows, field)) in self.fields.iter_mut().zip(&self.contract.fields).enumerate() {
            match cells(i) {
                Some(raw) => rows.push(raw, field, row),
                None => rows.column.push_null(),
            }
        }
    }

    /// A delete says which row is gone and nothing else; the key must be one, but need not be an allowed one.
    fn push_key_only<'a>(&mut self, cells: impl Fn(usize) -> Option<Raw<'a>>, row: &mut Row<'_>) {
        for (i, rows) in self.fields.iter_mut().enumerate() {
            match cells(i).filter(|_| self.key_field == Some(i)) {
                Some(raw) => {
                    row.hide = self.contract.fields[i].pii;
                    let before = row.reasons.len();
                    rows.column.push(raw, &Path::Top(&rows.path), row);
                    let checked = row.reasons.split_off(before);
                    row.reasons.extend(checked.into_iter().filter(|reason| reason.code == "wrong_type"));
                }
                None => rows.column.push_null(),
            }
        }
    }

    /// The id of the row: its key as text.
    fn push_key<'a>(&mut self, cells: impl Fn(usize) -> Option<Raw<'a>>, op: ChangeOp, row: &mut Row<'_>) {
        if op == ChangeOp::Truncate {
            return self.ids.push_null();
        }
        let Some(i) = self.key_field else {
            let message = "a change stream needs a key, and the contract names none".to_owned();
            row.reasons.push(reason("missing", String::new(), message));
            return self.ids.push_null();
        };
        let Some(raw) = cells(i) else { return self.ids.push_null() };
        if raw.is_nothing() {
            // A default is a value like any other, but no row's name.
            if !row.reasons.iter().any(|reason| reason.path == self.fields[i].path) {
                row.missing(&Path::Top(&self.fields[i].path), raw);
            }
            return self.ids.push_null();
        }
        match raw.id() {
            Some(id) => self.ids.push(&id),
            None => self.ids.push(raw.found().as_bytes()),
        }
    }

    /// The event time: the contract's field, else what the version says.
    fn push_version_time(
        &mut self,
        version: &Version,
        names: &Names,
        origin: &Origin,
        row: &mut Row<'_>,
    ) -> i64 {
        let latest = origin.received.saturating_add(MAX_AHEAD);
        let of_field = self.time_field.and_then(|i| self.fields[i].column.last_instant());
        let mut micros = of_field.unwrap_or(version.time);
        if micros > latest {
            if version.op == ChangeOp::Upsert {
                let path = match (of_field, self.time_field) {
                    (Some(_), Some(i)) => &self.fields[i].path,
                    _ => &names.time,
                };
                let message = format!(
                    "found {}, more than 5 minutes after it was received ({})",
                    time::show(micros),
                    time::show(origin.received)
                );
                row.refuse("time_in_future", &Path::Top(path), message);
            }
            // The end of a row is not put off because a clock is wrong.
            micros = origin.received;
        }
        // Other columns keep their null: `shipped_at` of an order that was not shipped.
        if let Some(i) = self.time_field.filter(|i| self.contract.fields[*i].name == TIME) {
            self.fields[i].column.fill_instant(micros);
        }
        micros
    }
}
