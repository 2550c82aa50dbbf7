//! Counted rows become groups.
//!
//! *In*: the table of counted rows, the columns to group by. *Out*: what each fold came to in each group. *Never*: a
//! group without rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use contracts::catalog::WindowKind;
use contracts::value::Value;

use crate::aggs::{self, Folded};
use crate::ask::AuditError;
use crate::rows::value_of;
use crate::stages::{OTHER, Work};

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) session: Option<(i64, i64)>,
    pub(crate) folds: Vec<Folded>,
}

/// The column(s) of a dimension to group by: its value, and whether it is `other`.
pub(crate) struct Key {
    pub(crate) dimension: usize,
    pub(crate) value: String,
    pub(crate) other: Option<String>,
}

impl Work<'_> {
    /// One `SELECT ... GROUP BY`, and one statement per fold that needs its own.
    pub(crate) fn groups(
        &mut self,
        counted: &str,
        keys: &[Key],
        kind: &WindowKind,
    ) -> Result<BTreeMap<Vec<Value>, Group>, AuditError> {
        let columns = key_columns(keys);
        let mut selected = columns.clone();
        selected.push("COUNT(*) AS rows, MIN(at) AS first_at, MAX(at) AS last_at".to_owned());
        for index in 0..self.metric.folds.len() {
            selected.extend(aggs::columns(self.metric, index));
        }
        let group =
            if columns.is_empty() { String::new() } else { format!("\nGROUP BY {}", columns.join(", ")) };
        let sql = format!("SELECT {}\nFROM {counted}{group}", selected.join(",\n  "));
        let batch = self.sql.run(&sql)?;
        self.last.push(sql);
        let mut groups = BTreeMap::new();
        for row in 0..batch.num_rows() {
            if aggs::count(&batch, "rows", row) == 0 {
                continue;
            }
            let folds = self.metric.folds.iter().enumerate();
            let folds = folds.map(|(index, fold)| aggs::read(&batch, row, fold, index)).collect();
            let session = match kind {
                WindowKind::Session { gap } => Some((
                    aggs::count(&batch, "first_at", row),
                    aggs::count(&batch, "last_at", row).saturating_add(*gap),
                )),
                _ => None,
            };
            groups.insert(self.key(&batch, row, keys)?, Group { session, folds });
        }
        for index in 0..self.metric.folds.len() {
            self.quantile(counted, keys, index, &mut groups)?;
            self.ranking(counted, keys, index, &mut groups)?;
        }
        Ok(groups)
    }

    fn quantile(
        &mut self,
        counted: &str,
        keys: &[Key],
        index: usize,
        groups: &mut BTreeMap<Vec<Value>, Group>,
    ) -> Result<(), AuditError> {
        let Some(sql) = aggs::quantile_sql(self.metric, index, &key_columns(keys)) else { return Ok(()) };
        let sql = sql.replace("{from}", counted);
        let batch = self.sql.run(&sql)?;
        self.last.push(sql);
        let fold = &self.metric.folds[index];
        let nano = aggs::quantile(&fold.agg).unwrap_or(0);
        for row in 0..batch.num_rows() {
            let (at, n) = (aggs::count(&batch, "i", row), aggs::count(&batch, "n", row));
            let low = (i128::from(nano) * i128::from(n - 1) / i128::from(crate::numbers::NANO)) as i64;
            let key = self.key(&batch, row, keys)?;
            let column = batch.column_by_name("v").ok_or_else(|| AuditError::Inner("no `v`".to_owned()))?;
            let value = value_of(column, row, &fold.input);
            let Some(group) = groups.get_mut(&key) else { continue };
            match at == low {
                true => group.folds[index].value = value,
                false => group.folds[index].high = value,
            }
        }
        Ok(())
    }

    /// The most frequent values, one row each.
    fn ranking(
        &mut self,
        counted: &str,
        keys: &[Key],
        index: usize,
        groups: &mut BTreeMap<Vec<Value>, Group>,
    ) -> Result<(), AuditError> {
        let Some(sql) = aggs::top_sql(self.metric, index, &key_columns(keys)) else { return Ok(()) };
        let sql = sql.replace("{from}", counted);
        let batch = self.sql.run(&sql)?;
        self.last.push(sql);
        for row in 0..batch.num_rows() {
            let key = self.key(&batch, row, keys)?;
            let column = batch.column_by_name("v").ok_or_else(|| AuditError::Inner("no `v`".to_owned()))?;
            let value = value_of(column, row, &self.metric.folds[index].input);
            let Some(group) = groups.get_mut(&key) else { continue };
            let often = aggs::count(&batch, "n", row).unsigned_abs();
            group.folds[index].ranking.push((value, often));
        }
        Ok(())
    }

    /// The values that a row is grouped by.
    pub(crate) fn key(
        &self,
        batch: &RecordBatch,
        row: usize,
        keys: &[Key],
    ) -> Result<Vec<Value>, AuditError> {
        let value = |key: &Key| {
            let is_other = key.other.as_ref().and_then(|other| batch.column_by_name(&unquoted(other)));
            if is_other.is_some_and(|other| Value::from_arrow(other.as_ref(), row) == Value::Bool(true)) {
                return Ok(Value::Text(Arc::from(OTHER)));
            }
            let column = batch.column_by_name(&unquoted(&key.value));
            let column = column.ok_or_else(|| AuditError::Inner(format!("no {}", key.value)))?;
            Ok(value_of(column, row, &self.metric.dimensions[key.dimension].ty))
        };
        keys.iter().map(value).collect()
    }
}

pub(crate) fn key_columns(keys: &[Key]) -> Vec<String> {
    keys.iter().flat_map(|key| std::iter::once(key.value.clone()).chain(key.other.clone())).collect()
}

fn unquoted(name: &str) -> String {
    name.trim_matches('"').replace("\"\"", "\"")
}
