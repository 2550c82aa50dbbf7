//! What large columns said last, for updates that leave them out.
//!
//! *In*: the raw values of each version of a row, in the order of its partition. *Out*: the value that a placeholder
//! stands for. *Never*: a value older than the version before, whether or not that one was refused for another
//! column; more than [`MOST`] bytes.
//!
//! PostgreSQL stores long values apart (TOAST) and does not log them when an update leaves them as they are. Decoders
//! see the records of a key in order, and again from the start when they start, so what they kept is what the
//! row had.

use std::collections::HashMap;

use contracts::value::FieldType;

use crate::decode::raw::Raw;
use crate::decode::scan::Kind;

/// A value is moved out of its row only where that makes the row shorter: not below this (PostgreSQL,
/// `toast_tuple_find_biggest_attribute`).
const LEAST: usize = 24;
/// Bytes kept per decoder; beyond it further values are not known, and an update without them is refused.
const MOST: usize = 256 << 20;
/// What an entry costs beside its bytes, roughly.
const OVERHEAD: usize = 96;

/// The large values of rows, by event and key.
#[derive(Debug)]
pub(super) struct Kept {
    rows: HashMap<(usize, Box<[u8]>), Row>,
    /// Truncates seen, by event.
    truncates: HashMap<usize, u32>,
    bytes: usize,
    most: usize,
}

#[derive(Debug, Default)]
struct Row {
    values: Vec<Value>,
    /// Truncates that had been seen when it was written last.
    truncates: u32,
}

#[derive(Debug)]
struct Value {
    field: usize,
    kind: Kind,
    bytes: Box<[u8]>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { rows: HashMap::new(), truncates: HashMap::new(), bytes: 0, most: MOST }
    }
}

/// Whether a connector ever leaves a value out.
pub(super) fn leaves_out(connector: Raw<'_>) -> bool {
    !matches!(connector.text().as_deref(), Some(b"mysql" | b"mariadb" | b"sqlserver" | b"mongodb"))
}

/// Whether values of this type may be stored apart.
pub(super) fn can_be_large(ty: &FieldType) -> bool {
    !matches!(
        ty,
        FieldType::Int | FieldType::Float | FieldType::Bool | FieldType::Timestamp | FieldType::Date
    )
}

impl Kept {
    /// What the field said last.
    pub(super) fn value(&self, event: usize, key: &[u8], field: usize) -> Option<Raw<'_>> {
        // One allocation, for a record that says a placeholder.
        let row = self.rows.get(&(event, Box::from(key)))?;
        let value = row.values.iter().find(|value| value.field == field)?;
        Some(Raw::of(value.kind, &value.bytes))
    }

    /// Takes note of what a version says of these fields; fields that are not named keep what they said.
    pub(super) fn learn<'a>(
        &mut self,
        event: usize,
        key: &[u8],
        said: impl Iterator<Item = (usize, Raw<'a>)>,
    ) {
        let mut row = self.rows.remove(&(event, Box::from(key)));
        if let Some(row) = &row {
            self.bytes -= row.cost();
        }
        for (field, raw) in said {
            if let Some(row) = &mut row {
                row.values.retain(|value| value.field != field);
            }
            if let Some((kind, bytes)) = large(raw) {
                let value = Value { field, kind, bytes: bytes.into() };
                row.get_or_insert_default().values.push(value);
            }
        }
        let Some(mut row) = row.filter(|row| !row.values.is_empty()) else { return };
        if self.bytes + row.cost() <= self.most {
            row.truncates = self.truncates.get(&event).copied().unwrap_or(0);
            self.bytes += row.cost();
            self.rows.insert((event, key.into()), row);
        }
    }

    /// The row is gone.
    pub(super) fn forget(&mut self, event: usize, key: &[u8]) {
        if let Some(row) = self.rows.remove(&(event, Box::from(key))) {
            self.bytes -= row.cost();
        }
    }

    /// All rows of the event are gone. A slower partition may still bring versions from before: what was written
    /// since the truncate before this one stays until the next.
    pub(super) fn forget_all(&mut self, event: usize) {
        let truncates = self.truncates.entry(event).or_default();
        let (bytes, last) = (&mut self.bytes, *truncates);
        *truncates += 1;
        self.rows.retain(|(of, _), row| {
            let stays = *of != event || row.truncates == last;
            if !stays {
                *bytes -= row.cost();
            }
            stays
        });
    }
}

impl Row {
    fn cost(&self) -> usize {
        OVERHEAD + self.values.iter().map(|value| value.bytes.len() + size_of::<Value>()).sum::<usize>()
    }
}

/// The bytes of a value that may be left out of the next version.
fn large(raw: Raw<'_>) -> Option<(Kind, &[u8])> {
    let (kind, bytes) = match raw {
        Raw::Text(bytes) => (Kind::Text, bytes),
        Raw::Escaped(bytes) => (Kind::Escaped, bytes),
        Raw::Object(bytes) => (Kind::Object, bytes),
        Raw::Array(bytes) => (Kind::Array, bytes),
        Raw::Number(bytes) => (Kind::Number, bytes),
        Raw::Integer(bytes) => (Kind::Integer, bytes),
        Raw::Absent | Raw::Null | Raw::Bool(_) | Raw::Cell(_) => return None,
    };
    (bytes.len() >= LEAST).then_some((kind, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &[u8] = b"a text that is long enough to be stored apart";

    fn text(kept: &Kept, key: &[u8]) -> Option<Vec<u8>> {
        kept.value(1, key, 2).and_then(Raw::text).map(|text| text.into_owned())
    }

    #[test]
    fn the_last_word_counts() {
        let mut kept = Kept::default();
        kept.learn(1, b"7", [(2, Raw::Text(LONG)), (3, Raw::Text(b"short"))].into_iter());
        assert_eq!(text(&kept, b"7").as_deref(), Some(LONG));
        assert!(kept.value(1, b"7", 3).is_none() && kept.value(0, b"7", 2).is_none());
        kept.learn(1, b"7", [(3, Raw::Null)].into_iter());
        assert_eq!(text(&kept, b"7").as_deref(), Some(LONG), "what is left out stays");
        kept.learn(1, b"7", [(2, Raw::Text(b"short"))].into_iter());
        assert_eq!(text(&kept, b"7"), None);
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn rows_go_and_bytes_are_bounded() {
        let mut kept = Kept { most: 400, ..Kept::default() };
        for key in [b"1", b"2", b"3"] {
            kept.learn(1, key, [(2, Raw::Text(LONG))].into_iter());
        }
        assert!(text(&kept, b"2").is_some() && text(&kept, b"3").is_none(), "{}", kept.bytes);
        kept.forget(1, b"1");
        kept.learn(1, b"3", [(2, Raw::Text(LONG))].into_iter());
        assert!(text(&kept, b"3").is_some());
        kept.forget_all(1);
        assert!(text(&kept, b"3").is_some(), "a slower partition may need it");
        kept.forget_all(0);
        kept.forget_all(1);
        assert_eq!((kept.bytes, kept.rows.len()), (0, 0));
    }
}
