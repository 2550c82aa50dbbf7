//! Rows that last: how many at an instant, and for how long in a window.
//!
//! *In*: rows with the instants from and until which they last. *Out*: `concurrent` and `duration_in_state` per group.
//! *Never*: the time of the row itself: a row counts from its start on, wherever the window begins.

use std::collections::BTreeMap;

use contracts::catalog::{Agg, Metric};
use contracts::value::Value;

use crate::aggs::{self, Folded};
use crate::ask::AuditError;
use crate::groups::{Group, key_columns};
use crate::rows::fold_name;
use crate::sql::quoted;
use crate::stages::{Work, instant};

/// The folds of a metric that are about rows that last.
pub(crate) fn folds(metric: &Metric) -> Vec<usize> {
    (0..metric.folds.len()).filter(|fold| metric.folds[*fold].agg.is_span()).collect()
}

/// From when and until when a row lasts for a fold.
fn columns(metric: &Metric, fold: usize) -> (String, String) {
    let name = fold_name(metric, fold);
    (quoted(&format!("from_{name}")), quoted(&format!("until_{name}")))
}

/// Whether a row lasts at all.
fn lasts(metric: &Metric, fold: usize) -> String {
    let (from, until) = columns(metric, fold);
    let sees = quoted(&format!("if_{}", fold_name(metric, fold)));
    format!("{sees} AND {from} IS NOT NULL AND ({until} IS NULL OR {until} > {from})")
}

/// Rows that one of these aggregations counts in a window that ends (or is cut) at `end`. What ends exactly then
/// still lasts.
pub(crate) fn counts(metric: &Metric, fold: usize, (start, end): (Option<i64>, i64)) -> String {
    let (from, until) = columns(metric, fold);
    let (lasts, end) = (lasts(metric, fold), instant(end));
    let still = match (&metric.folds[fold].agg, start) {
        (Agg::Concurrent, _) => format!(" AND ({until} IS NULL OR {until} >= {end})"),
        (_, Some(start)) => format!(" AND ({until} IS NULL OR {until} > {})", instant(start)),
        (_, None) => String::new(),
    };
    format!("{lasts} AND {from} < {end}{still}")
}

impl Work<'_> {
    /// Rows that last are the same whichever instant is asked for, but for those of entities.
    pub(crate) fn lasting_at(&self, as_of: i64) -> i64 {
        if self.over_entity() { as_of } else { self.question.as_of }
    }

    /// All rows known now, whenever they count, with the instant by which the values of dimensions rank and the one they
    /// were first seen at; `None`: nothing lasts.
    pub(crate) fn lasting(&mut self, rows: &str, as_of: i64) -> Result<Option<String>, AuditError> {
        let folds = folds(self.metric);
        if folds.is_empty() {
            return Ok(None);
        }
        let name = self.name("lasting", self.lasting_at(as_of));
        if self.sql.has(&name) {
            return Ok(Some(name));
        }
        let (oldest, step) = (self.oldest(), self.step);
        let now = instant(if self.over_entity() { as_of } else { self.question.now });
        let all = self.keeps_everything();
        // A row occurs when its time has come; it is retained by its own time, or until it has ended.
        let recent = if all { String::new() } else { format!(" AND at >= {}", instant(oldest)) };
        let occurs = format!("at < {now}{recent}");
        let lasts = |fold: &usize| {
            let (_, until) = columns(self.metric, *fold);
            let lasts = lasts(self.metric, *fold);
            if all { lasts } else { format!("{lasts} AND ({until} IS NULL OR {until} >= {oldest})") }
        };
        let outlasts: String = folds.iter().map(|fold| format!("\n    OR {}", lasts(fold))).collect();
        let own = format!("CASE WHEN {occurs} THEN at END");
        // What begins in a pane is first seen where the pane begins; what began before retention, ever since.
        let begins = folds.iter().map(|fold| {
            let (from, _) = columns(self.metric, *fold);
            format!(
                "CASE WHEN {} AND {from} < {now} THEN\n    CASE WHEN {from} < {oldest} THEN {} \
                 ELSE {from} - (({from} % {step}) + {step}) % {step} END END",
                lasts(fold),
                i64::MIN + 1
            )
        });
        let seen: Vec<String> = std::iter::once(own).chain(begins).collect();
        let sql = format!(
            "SELECT *, CASE WHEN {occurs}{outlasts} THEN at END AS ranked, LEAST({}) AS first\n\
             FROM {rows}\nWHERE passed AND lost IS NULL AND at IS NOT NULL",
            seen.join(",\n  ")
        );
        self.sql.stage(&name, sql)?;
        Ok(Some(name))
    }

    /// Adds what lasts in a window that begins at `start` and ends (or is cut) at `end`; a group in which nothing but
    /// that is has no rows.
    pub(crate) fn outlasting(
        &mut self,
        (start, end): (Option<i64>, i64),
        as_of: i64,
        split: bool,
        groups: &mut BTreeMap<Vec<Value>, Group>,
    ) -> Result<(), AuditError> {
        let table = self.name("asked_lasting", self.lasting_at(as_of));
        let keys = self.keys(split, &table)?;
        let key_columns = key_columns(&keys);
        for fold in folds(self.metric) {
            let (from, until) = columns(self.metric, fold);
            let (ends, begins) = (instant(end), start.map(instant));
            let lasts = lasts(self.metric, fold);
            let begins = begins.map_or_else(|| from.clone(), |start| format!("GREATEST({from}, {start})"));
            // A row that ends before the window begins was nothing of it.
            let time = format!("GREATEST(LEAST(COALESCE({until}, {ends}), {ends}) - {begins}, 0)");
            let sql = format!(
                "SELECT {}COUNT(*) FILTER (WHERE {until} IS NULL OR {until} >= {ends}) AS n,\n  \
                 SUM({time}) AS spent\n\
                 FROM {table}\nWHERE {lasts} AND {from} < {ends}{}",
                key_columns.iter().map(|key| format!("{key}, ")).collect::<String>(),
                match key_columns.is_empty() {
                    true => String::new(),
                    false => format!("\nGROUP BY {}", key_columns.join(", ")),
                }
            );
            let batch = self.sql.run(&sql)?;
            self.last.push(sql);
            for row in 0..batch.num_rows() {
                let (n, spent) = (aggs::count(&batch, "n", row), aggs::count(&batch, "spent", row));
                if n == 0 && spent == 0 {
                    continue;
                }
                let nothing =
                    || Group { session: None, folds: vec![Folded::default(); self.metric.folds.len()] };
                let group = groups.entry(self.key(&batch, row, &keys)?).or_insert_with(nothing);
                group.folds[fold] = Folded { n, sum: Some(i128::from(spent)), ..Folded::default() };
            }
        }
        Ok(())
    }
}
