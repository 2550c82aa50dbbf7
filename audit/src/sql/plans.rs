//! Plans that were made before: most of a statement's time goes into planning it.
//!
//! *In*: a statement, the tables it may name. *Out*: a plan over these tables. *Never*: rows in a plan that nobody
//! runs, or a plan that two run at a time.
//!
//! Statements about other instants and windows differ in the names of their tables alone. So a plan is over numbered
//! slots, and rows are put into the slots before each run.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::TableSource;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, collect};
use parking_lot::Mutex;

use super::{exact, session};

/// Plans kept; with one more all of them are let go.
const MOST: usize = 512;

/// Free plans by their statement.
static KNOWN: LazyLock<Mutex<HashMap<String, Vec<Plan>>>> = LazyLock::new(Mutex::default);

/// A plan over slots.
pub(super) struct Plan {
    statement: String,
    plan: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    slots: Vec<Arc<Slot>>,
}

/// A table of a plan.
#[derive(Debug)]
struct Slot {
    schema: SchemaRef,
    rows: Mutex<Option<RecordBatch>>,
}

impl PartitionStream for Slot {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().iter().cloned().collect();
        let stream = MemoryStream::try_new(rows, Arc::clone(&self.schema), None);
        Box::pin(stream.expect("a stream of all columns refuses nothing"))
    }
}

impl Plan {
    /// A plan of the statement, with the rows of its tables.
    pub(super) async fn of(sql: &str, tables: &BTreeMap<String, RecordBatch>) -> Result<Plan> {
        let (statement, named) = numbered(sql, tables);
        let fits =
            |plan: &Plan| plan.slots.iter().zip(&named).all(|(slot, rows)| slot.schema == rows.schema());
        let known = {
            let mut known = KNOWN.lock();
            let free = known.get_mut(&statement);
            free.and_then(|free| Some(free.swap_remove(free.iter().position(fits)?)))
        };
        let plan = match known {
            Some(plan) => plan,
            None => Plan::new(statement, &named).await?,
        };
        for (slot, rows) in plan.slots.iter().zip(named) {
            *slot.rows.lock() = Some(rows);
        }
        Ok(plan)
    }

    async fn new(statement: String, named: &[RecordBatch]) -> Result<Plan> {
        let slot = |rows: &RecordBatch| Arc::new(Slot { schema: rows.schema(), rows: Mutex::new(None) });
        let slots: Vec<Arc<Slot>> = named.iter().map(slot).collect();
        let mut sources: BTreeMap<String, Arc<dyn TableSource>> = BTreeMap::new();
        for (number, slot) in slots.iter().enumerate() {
            let stream = Arc::clone(slot) as Arc<dyn PartitionStream>;
            let table = StreamingTable::try_new(Arc::clone(&slot.schema), vec![stream])?;
            sources.insert(format!("t{number}"), provider_as_source(Arc::new(table)));
        }
        let logical = session::plan(&statement, &sources)?;
        let schema = Arc::new(logical.schema().as_arrow().clone());
        let plan = session::physical(&logical).await?;
        Ok(Plan { statement, plan, schema, slots })
    }

    /// The columns that the statement promises.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Runs it, and keeps the plan for the next one.
    pub(super) async fn run(mut self, task: Arc<TaskContext>) -> Result<Vec<RecordBatch>> {
        let batches = collect(Arc::clone(&self.plan), task).await?;
        // A join keeps the rows of one side.
        if joins(&self.plan) {
            return Ok(batches);
        }
        self.plan = reset_plan_states(self.plan)?;
        self.slots.iter().for_each(|slot| *slot.rows.lock() = None);
        let mut known = KNOWN.lock();
        if known.len() >= MOST && !known.contains_key(&self.statement) {
            known.clear();
        }
        known.entry(self.statement.clone()).or_default().push(self);
        Ok(batches)
    }
}

fn joins(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.name().contains("Join") || plan.children().into_iter().any(joins)
}

/// The statement with numbers for the names of its tables, and their rows by these numbers.
fn numbered(sql: &str, tables: &BTreeMap<String, RecordBatch>) -> (String, Vec<RecordBatch>) {
    let (mut text, mut rest) = (String::with_capacity(sql.len()), sql);
    let mut named: Vec<(&str, RecordBatch)> = Vec::new();
    while let Some(at) = ["FROM ", "JOIN "].iter().filter_map(|word| rest.find(word)).min() {
        let (before, name) = rest.split_at(at + "FROM ".len());
        text += before;
        let end = match name.strip_prefix('"') {
            Some(inner) => inner.find('"').map_or(name.len(), |end| end + 2),
            None => name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len()),
        };
        let (name, after) = name.split_at(end);
        let known = named.iter().position(|(of, _)| *of == name);
        let number = known.or_else(|| {
            if name.is_empty() {
                return None;
            }
            named.push((name, tables.get(&exact(name))?.clone()));
            Some(named.len() - 1)
        });
        match number {
            Some(number) => text += &format!("t{number}"),
            None => text += name,
        }
        rest = after;
    }
    (text + rest, named.into_iter().map(|(_, rows)| rows).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn tables(values: &[i64]) -> BTreeMap<String, RecordBatch> {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        let batch = RecordBatch::try_from_iter([("at", column)]).unwrap();
        BTreeMap::from([("counted_7".to_owned(), batch.clone()), ("A b".to_owned(), batch)])
    }

    #[test]
    fn names_become_numbers() {
        let tables = tables(&[1]);
        let (text, rows) = numbered(
            "SELECT l.at FROM counted_7 AS l LEFT JOIN \"A b\" AS r ON l.at = r.at\nWHERE l.at IN (SELECT at FROM counted_7)",
            &tables,
        );
        assert_eq!(
            text,
            "SELECT l.at FROM t0 AS l LEFT JOIN t1 AS r ON l.at = r.at\nWHERE l.at IN (SELECT at FROM t0)"
        );
        assert_eq!(rows.len(), 2);
        let (text, rows) = numbered("SELECT * FROM (SELECT * FROM unknown)", &tables);
        assert_eq!((text.as_str(), rows.len()), ("SELECT * FROM (SELECT * FROM unknown)", 0));
    }

    #[test]
    fn a_plan_that_is_used_again_has_other_rows() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sum = |values: &[i64], sql: &str| {
            let run = async {
                let plan = Plan::of(sql, &tables(values)).await?;
                plan.run(Arc::new(TaskContext::default())).await
            };
            let batches = runtime.block_on(run).unwrap();
            let rows: Vec<String> = batches.iter().map(|b| format!("{:?}", b.columns())).collect();
            rows.concat()
        };
        for sql in [
            "SELECT SUM(at) AS n, FIRST_VALUE(at ORDER BY at) AS x FROM counted_7",
            "SELECT at, ROW_NUMBER() OVER (ORDER BY at DESC) AS n FROM counted_7 ORDER BY at LIMIT 2",
            "SELECT DISTINCT at FROM counted_7 ORDER BY at DESC LIMIT 1",
        ] {
            let first = sum(&[1, 2, 4], sql);
            assert_ne!(sum(&[8, 9], sql), first, "{sql}");
            assert_eq!(sum(&[4, 1, 2], sql), first, "{sql}");
        }
    }
}
