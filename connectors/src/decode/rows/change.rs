//! Rows of change streams: versions of a row, and the end of it.
//!
//! *In*: the raw values of one version, what it does, when. *Out*: a row with its [`Change`]; its id is the
//! text of its key. *Never*: a row without a key (but a truncate), a check that stands between a delete and
//! the row it takes away.

use std::borrow::Cow;
use std::sync::Arc;

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

/// The text of a key: that of its field; of several fields theirs with `|` between them, where `|` and `\` in a part
/// have `\` before them. `None`: a part is missing.
pub(in crate::decode) fn key_text<'a>(
    fields: &[usize],
    cells: impl Fn(usize) -> Option<Raw<'a>>,
) -> Option<Cow<'a, [u8]>> {
    let part = |i: usize| {
        let raw = cells(i).filter(|raw| !raw.is_nothing())?;
        Some(raw.id().unwrap_or_else(|| Cow::Owned(raw.found().into_bytes())))
    };
    if let [only] = fields {
        return part(*only);
    }
    let mut text = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            text.push(b'|');
        }
        for byte in part(*field)?.iter() {
            if matches!(byte, b'|' | b'\\') {
                text.push(b'\\');
            }
            text.push(*byte);
        }
    }
    (!fields.is_empty()).then_some(Cow::Owned(text))
}

impl Rows {
    /// The event is a change stream.
    pub(in crate::decode) fn changelog(&self) -> bool {
        self.contract.changelog
    }

    /// Indexes of the fields that are the key.
    pub(in crate::decode) fn key_fields(&self) -> Arc<[usize]> {
        Arc::clone(&self.key_fields)
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
            match cells(i).filter(|_| self.key_fields.contains(&i)) {
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
        if self.key_fields.is_empty() {
            let message = "a change stream needs a key, and the contract names none".to_owned();
            row.reasons.push(reason("missing", String::new(), message));
        }
        for i in self.key_fields.iter() {
            // A default is a value like any other, but no row's name.
            if let Some(raw) = cells(*i).filter(Raw::is_nothing)
                && !row.reasons.iter().any(|reason| reason.path == self.fields[*i].path)
            {
                row.missing(&Path::Top(&self.fields[*i].path), raw);
            }
        }
        match key_text(&self.key_fields, cells) {
            Some(id) => self.ids.push(&id),
            None => self.ids.push_null(),
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
