//! Lists and structs inside of an event.
//!
//! *In*: the bytes of an array or object that the event's walk has checked. *Out*: Arrow lists and
//! structs; reasons with the exact place (`items[2].quantity`). *Never*: a child column of another length
//! than its parent says.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StructArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use contracts::catalog::{Checks, NestedField};
use contracts::value::{FieldType, Value};

use super::cells::Nulls;
use super::check::Ready;
use super::column::Column;
use super::raw::Raw;
use super::reason::{Path, Row};
use super::scan::{Elements, Scan};
use super::walk::Walker;

/// A column of lists.
#[derive(Debug)]
pub(super) struct List {
    item: Column,
    required: bool,
    /// Where each row's items end; starts with 0.
    ends: Vec<i32>,
    nulls: Nulls,
}

impl List {
    pub(super) fn of(
        item: &FieldType,
        checks: &Checks,
        nested: &[NestedField],
        path: &mut Vec<String>,
        walker: &mut Walker,
    ) -> Self {
        // Items have no name of their own: below the top level the first entry at `path` is the list's
        // and the next its items'; a top-level list has its checks in the field. Without an entry for the
        // items, lengths are the list's and the other checks its items'.
        let mut entries = nested.iter().filter(|field| field.path == *path);
        let own = if path.is_empty() { entries.next() } else { entries.nth(1) };
        let checks = match own {
            Some(field) => field.checks.clone(),
            None => Checks { min_length: None, max_length: None, ..checks.clone() },
        };
        let required = own.is_some_and(|field| field.required);
        let item = if matches!(item, FieldType::List(_)) {
            // A list of lists: the entries at `path` are spent.
            let deeper: Vec<NestedField> = nested.iter().filter(|f| f.path != *path).cloned().collect();
            Column::inside(item, &checks, &deeper, path, walker)
        } else {
            Column::inside(item, &checks, nested, path, walker)
        };
        Self { item, required, ends: vec![0], nulls: Nulls::default() }
    }

    pub(super) fn push(&mut self, raw: Raw<'_>, checks: &Ready, at: &Path<'_>, row: &mut Row<'_>) {
        let Some(bytes) = (match raw {
            Raw::Array(bytes) => Some(bytes),
            Raw::Cell(cell) => match parse(cell) {
                Some(Raw::Array(bytes)) => Some(bytes),
                _ => None,
            },
            _ => None,
        }) else {
            row.wrong_type(at, "a list", raw);
            return self.push_null();
        };
        let mut scan = Scan::new(bytes);
        let mut elements = Elements::new(1);
        let mut count = 0;
        // The array is checked: an error cannot come.
        while let Ok(Some((kind, start, end))) = elements.next(&mut scan, 1) {
            let raw = Raw::of(kind, unquoted(kind, bytes, start, end));
            let at = Path::Item(at, count);
            if self.required && raw.is_nothing() {
                row.missing(&at, raw);
            }
            self.item.push(raw, &at, row);
            count += 1;
        }
        self.ends.push(self.item.len() as i32);
        checks.length(count, "items", at, row);
    }

    /// See [`Column::takes_all`]; the list's own lengths are its column's.
    pub(super) fn takes_all(&self) -> bool {
        !self.required && self.item.takes_all()
    }

    /// See [`Column::recheck`].
    pub(super) fn recheck(&self, items: &ArrayRef, checks: &Ready, at: &Path<'_>, row: &mut Row<'_>) {
        for i in 0..items.len() {
            let at = Path::Item(at, i);
            match items.is_null(i) {
                true if self.required => row.missing(&at, Raw::Null),
                true => {}
                false => self.item.recheck(items, i, &at, row),
            }
        }
        checks.length(items.len(), "items", at, row);
    }

    pub(super) fn push_values(&mut self, values: &[Value]) {
        for value in values {
            self.item.push_value(value);
        }
        self.ends.push(self.item.len() as i32);
    }

    pub(super) fn push_null(&mut self) {
        self.nulls.push(self.len());
        self.ends.push(self.item.len() as i32);
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.ends.truncate(len + 1);
            self.item.truncate(self.ends[len] as usize);
            self.nulls.truncate(len);
        }
    }

    pub(super) fn take(&mut self, ty: &DataType) -> ArrayRef {
        let DataType::List(field) = ty else { unreachable!("the schema follows the field's type") };
        let nulls = self.nulls.take(self.len());
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let items = self.item.take(field.data_type());
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        Arc::new(ListArray::new(field.clone(), offsets, items, nulls))
    }
}

/// A column of structs.
#[derive(Debug)]
pub(super) struct Struct {
    /// Its tree in the walker of nested objects.
    root: u32,
    fields: Vec<Inner>,
    len: usize,
    nulls: Nulls,
}

#[derive(Debug)]
struct Inner {
    name: String,
    node: u32,
    required: bool,
    column: Column,
}

impl Struct {
    pub(super) fn of(
        fields: &[(String, FieldType)],
        nested: &[NestedField],
        path: &mut Vec<String>,
        walker: &mut Walker,
    ) -> Self {
        let root = walker.root();
        let mut inner = Vec::with_capacity(fields.len());
        for (name, ty) in fields {
            path.push(name.clone());
            let declared = nested.iter().find(|field| field.path == *path);
            let required = declared.is_some_and(|field| field.required);
            let checks = declared.map(|field| field.checks.clone()).unwrap_or_default();
            let column = Column::inside(ty, &checks, nested, path, walker);
            let way = walker.want(root, std::slice::from_ref(name));
            inner.push(Inner { name: name.clone(), node: way[0], required, column });
            path.pop();
        }
        Self { root, fields: inner, len: 0, nulls: Nulls::default() }
    }

    pub(super) fn push(&mut self, raw: Raw<'_>, at: &Path<'_>, row: &mut Row<'_>) {
        let Some(bytes) = (match raw {
            Raw::Object(bytes) => Some(bytes),
            Raw::Cell(cell) => match parse(cell) {
                Some(Raw::Object(bytes)) => Some(bytes),
                _ => None,
            },
            _ => None,
        }) else {
            row.wrong_type(at, "an object", raw);
            return self.push_null();
        };
        // The object is checked: an error cannot come.
        let Ok((walk, _)) = row.nested.walk(self.root, &mut Scan::new(bytes), 0) else {
            return self.push_null();
        };
        // All first: a list inside walks again.
        let raws: Vec<(Raw<'_>, bool)> = self
            .fields
            .iter()
            .map(|f| (row.nested.raw(walk, f.node, bytes), row.nested.twice(walk, &[f.node])))
            .collect();
        for (field, (raw, twice)) in self.fields.iter_mut().zip(raws) {
            let at = Path::Key(at, &field.name);
            if twice {
                row.refuse("malformed_json", &at, "the key comes twice".to_owned());
            }
            if field.required && raw.is_nothing() {
                row.missing(&at, raw);
            }
            field.column.push(raw, &at, row);
        }
        self.len += 1;
    }

    /// See [`Column::takes_all`].
    pub(super) fn takes_all(&self) -> bool {
        self.fields.iter().all(|field| !field.required && field.column.takes_all())
    }

    /// See [`Column::recheck`].
    pub(super) fn recheck(&self, array: &StructArray, i: usize, at: &Path<'_>, row: &mut Row<'_>) {
        for (field, values) in self.fields.iter().zip(array.columns()) {
            let at = Path::Key(at, &field.name);
            match values.is_null(i) {
                true if field.required => row.missing(&at, Raw::Absent),
                true => {}
                false => field.column.recheck(values, i, &at, row),
            }
        }
    }

    pub(super) fn push_null(&mut self) {
        self.nulls.push(self.len);
        for field in &mut self.fields {
            field.column.push_null();
        }
        self.len += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.len {
            for field in &mut self.fields {
                field.column.truncate(len);
            }
            self.nulls.truncate(len);
            self.len = len;
        }
    }

    pub(super) fn take(&mut self, ty: &DataType) -> ArrayRef {
        let DataType::Struct(fields) = ty else { unreachable!("the schema follows the field's type") };
        let nulls = self.nulls.take(self.len);
        let len = std::mem::take(&mut self.len);
        if self.fields.is_empty() {
            return Arc::new(StructArray::new_empty_fields(len, nulls));
        }
        let columns =
            self.fields.iter_mut().zip(fields).map(|(inner, field)| inner.column.take(field.data_type()));
        Arc::new(StructArray::new(fields.clone(), columns.collect(), nulls))
    }
}

/// A whole text as one JSON value.
pub(super) fn parse(bytes: &[u8]) -> Option<Raw<'_>> {
    let mut scan = Scan::new(bytes);
    let start = scan.space(0);
    let (kind, end) = scan.value(start, 0).ok()?;
    scan.finish(end).ok()?;
    Some(Raw::of(kind, unquoted(kind, bytes, start, end)))
}

/// The bytes of a value as [`Raw::of`] wants them.
pub(super) fn unquoted(kind: super::scan::Kind, bytes: &[u8], start: usize, end: usize) -> &[u8] {
    let quote = usize::from(matches!(kind, super::scan::Kind::Text | super::scan::Kind::Escaped));
    &bytes[start + quote..end - quote]
}
