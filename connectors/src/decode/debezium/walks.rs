//! The parts of a change event, found in one walk, and the values of a row, in another.
//!
//! *In*: a record's bytes. *Out*: [`Parts`]: where the row, its old version and the facts about the change
//! stand; the raw value of each declared field. *Never*: a value taken apart.

use contracts::Catalog;

use super::spec::Unit;
use crate::decode::raw::Raw;
use crate::decode::scan::{Bad, Scan, Syntax};
use crate::decode::walk::{Walk, Walker};

/// The form of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `before`, `after`, `source`, `op`.
    Envelope,
    /// The row itself, with facts under `__...`.
    Flat,
    /// A wrapper around nothing: how a tombstone looks that went through a transformation.
    Tombstone,
}

/// A record taken apart. Absent parts are [`Raw::Absent`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) form: Form,
    /// The Connect schema of the whole.
    pub(super) schema: Raw<'a>,
    /// `after`, or the flattened row.
    pub(super) row: Raw<'a>,
    pub(super) before: Raw<'a>,
    pub(super) op: Raw<'a>,
    /// `__deleted`.
    pub(super) deleted: Raw<'a>,
    pub(super) connector: Raw<'a>,
    pub(super) server: Raw<'a>,
    pub(super) database: Raw<'a>,
    pub(super) schema_name: Raw<'a>,
    pub(super) table: Raw<'a>,
    /// Instants of the commit, finest first.
    times: [(Raw<'a>, Unit); 3],
    /// A wanted key that came twice.
    pub(super) twice: Option<&'static str>,
}

impl Parts<'_> {
    /// When the source committed the change, microseconds.
    pub(super) fn committed(&self) -> Option<i64> {
        self.times.iter().find_map(|(raw, unit)| unit.micros(raw.integer()?).filter(|micros| *micros > 0))
    }
}

const ENVELOPE: [&str; 13] = [
    "op",
    "before",
    "after",
    "source",
    "source.connector",
    "source.name",
    "source.db",
    "source.schema",
    "source.table",
    "source.ts_us",
    "source.ts_ns",
    "source.ts_ms",
    "schema",
];
const FLAT: [&str; 14] = [
    "__op",
    "__deleted",
    "__connector",
    "__name",
    "__db",
    "__schema",
    "__table",
    "__source_ts_us",
    "__source_ts_ns",
    "__source_ts_ms",
    "__source_connector",
    "__source_schema",
    "__source_table",
    "__ts_ms",
];

/// Ways of the names above below one root.
#[derive(Debug)]
struct Level {
    envelope: Vec<Vec<u32>>,
    flat: Vec<Vec<u32>>,
}

impl Level {
    fn new(walker: &mut Walker, root: u32, below: Option<&str>) -> Self {
        let mut want = |name: &&str| {
            let path: Vec<String> = below.into_iter().chain(name.split('.')).map(str::to_owned).collect();
            walker.want(root, &path)
        };
        Self {
            envelope: ENVELOPE.iter().map(&mut want).collect(),
            flat: FLAT.iter().map(&mut want).collect(),
        }
    }
}

/// The walker with its trees.
#[derive(Debug)]
pub(super) struct Walks {
    walker: Walker,
    root: u32,
    payload: Vec<u32>,
    /// Without and with the wrapper.
    bare: Level,
    wrapped: Level,
    /// By event: the tree of its row, and the way of each field.
    rows: Vec<(u32, Vec<Vec<u32>>)>,
}

impl Walks {
    pub(super) fn new(catalog: &Catalog) -> Self {
        let mut walker = Walker::new();
        let root = walker.root();
        let payload = walker.want(root, &["payload".to_owned()]);
        let bare = Level::new(&mut walker, root, None);
        let wrapped = Level::new(&mut walker, root, Some("payload"));
        let rows = catalog.events.iter().map(|event| {
            let root = walker.root();
            let ways = event.fields.iter().map(|field| walker.want(root, &field.path)).collect();
            (root, ways)
        });
        let rows = rows.collect();
        Self { walker, root, payload, bare, wrapped, rows }
    }

    pub(super) fn settle(&mut self) {
        self.walker.settle();
    }

    /// Walks a whole record.
    pub(super) fn parts<'a>(&mut self, bytes: &'a [u8]) -> Result<Parts<'a>, Syntax> {
        let mut scan = Scan::new(bytes);
        let (walk, end) = self.walker.walk(self.root, &mut scan, 0)?;
        scan.finish(end).map_err(|Bad| scan.fault)?;
        let at = |way: &Vec<u32>| match way.last() {
            Some(node) => self.walker.raw(walk, *node, bytes),
            None => Raw::Absent,
        };
        let twice = |way: &Vec<u32>| self.walker.twice(walk, way);
        let envelope =
            |level: &Level, name: &str| way(&ENVELOPE, &level.envelope, name).map_or(Raw::Absent, at);
        let flat = |level: &Level, name: &str| way(&FLAT, &level.flat, name).map_or(Raw::Absent, at);
        let schema = envelope(&self.bare, "schema");
        let payload = at(&self.payload);
        let has_envelope = |level: &Level| {
            matches!(envelope(level, "op"), Raw::Text(_) | Raw::Escaped(_))
                && !(matches!(envelope(level, "before"), Raw::Absent)
                    && matches!(envelope(level, "after"), Raw::Absent))
        };
        let is_source = |level: &Level| {
            matches!(envelope(level, "source"), Raw::Object(_))
                && !matches!(envelope(level, "after"), Raw::Absent)
        };
        // A row may have a column of either name; only the wrapper has both and a schema there.
        let wrapper = matches!(schema, Raw::Object(_) | Raw::Null)
            && matches!(payload, Raw::Object(_) | Raw::Null)
            && !has_envelope(&self.bare);
        let level = if wrapper { &self.wrapped } else { &self.bare };
        let schema = if wrapper { schema } else { Raw::Absent };
        let double = if self.walker.any_twice() {
            let all = ENVELOPE.iter().zip(&level.envelope).chain(FLAT.iter().zip(&level.flat));
            let mut all = all.filter(|(name, _)| **name != "schema");
            all.find(|(_, way)| twice(way)).map(|(name, _)| *name)
        } else {
            None
        };
        if has_envelope(level) || is_source(level) {
            let get = |name: &str| envelope(level, name);
            return Ok(Parts {
                form: Form::Envelope,
                schema,
                row: get("after"),
                before: get("before"),
                op: get("op"),
                deleted: Raw::Absent,
                connector: get("source.connector"),
                server: get("source.name"),
                database: get("source.db"),
                schema_name: get("source.schema"),
                table: get("source.table"),
                times: [
                    (get("source.ts_us"), Unit::Micros),
                    (get("source.ts_ns"), Unit::Nanos),
                    (get("source.ts_ms"), Unit::Millis),
                ],
                twice: double,
            });
        }
        let get = |name: &str| flat(level, name);
        let or = |first: &str, then: &str| match get(first) {
            raw if raw.is_nothing() => get(then),
            raw => raw,
        };
        let nothing = wrapper && matches!(payload, Raw::Null);
        Ok(Parts {
            form: if nothing { Form::Tombstone } else { Form::Flat },
            schema,
            row: if wrapper { payload } else { Raw::Object(bytes) },
            before: Raw::Absent,
            op: get("__op"),
            deleted: get("__deleted"),
            connector: or("__connector", "__source_connector"),
            server: get("__name"),
            database: get("__db"),
            schema_name: or("__schema", "__source_schema"),
            table: or("__table", "__source_table"),
            times: [
                (get("__source_ts_us"), Unit::Micros),
                (get("__source_ts_ns"), Unit::Nanos),
                (or("__source_ts_ms", "__ts_ms"), Unit::Millis),
            ],
            twice: double,
        })
    }

    /// Walks a row of event `event`; `row` is an object of a record that was walked.
    pub(super) fn row(&mut self, event: usize, row: &[u8]) -> Result<Walk, Syntax> {
        let (walk, _) = self.walker.walk(self.rows[event].0, &mut Scan::new(row), 0)?;
        Ok(walk)
    }

    /// The raw value of field `field` in the row that was walked last.
    pub(super) fn field<'a>(&self, event: usize, walk: Walk, field: usize, row: &'a [u8]) -> Raw<'a> {
        match self.rows[event].1[field].last() {
            Some(node) => self.walker.raw(walk, *node, row),
            None => Raw::Absent,
        }
    }

    /// The first field that came twice in that row.
    pub(super) fn field_twice(&self, event: usize, walk: Walk) -> Option<usize> {
        if !self.walker.any_twice() {
            return None;
        }
        self.rows[event].1.iter().position(|way| self.walker.twice(walk, way))
    }
}

fn way<'w>(names: &[&str], ways: &'w [Vec<u32>], name: &str) -> Option<&'w Vec<u32>> {
    names.iter().position(|known| *known == name).and_then(|at| ways.get(at))
}
