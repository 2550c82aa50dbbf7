//! DataFusion: tables in memory, statements over them.
//!
//! *In*: batches by name, SQL. *Out*: batches. *Never*: a file, a second thread, more memory than [`MEMORY`].
//!
//! DataFusion runs on tokio; each question has a runtime of one thread, its own, for as long as it runs.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::expr::Expr;
use tokio::runtime::{Builder, Runtime};

use crate::ask::AuditError;

mod floats;
mod plans;
mod session;

use plans::Plan;
use session::STATE;

/// What one question may hold in DataFusion.
const MEMORY: usize = 512 << 20;

/// The tables and statements of one question.
pub(crate) struct Sql {
    runtime: Runtime,
    task: Arc<TaskContext>,
    /// Name and statement of each stage, in order.
    told: Vec<(String, String)>,
    /// The tables.
    batches: BTreeMap<String, RecordBatch>,
}

impl Sql {
    pub(crate) fn new() -> std::result::Result<Self, AuditError> {
        let inner = |error: &dyn std::fmt::Display| AuditError::Inner(error.to_string());
        let runtime = Builder::new_current_thread().build().map_err(|error| inner(&error))?;
        let environment = RuntimeEnvBuilder::new().with_memory_limit(MEMORY, 1.0).build_arc();
        let environment = environment.map_err(|error| inner(&error))?;
        // Plans hold the functions they call.
        let (config, none) = (STATE.config().clone(), "why".to_owned());
        let (scalar, folds, windows) = (HashMap::new(), HashMap::new(), HashMap::new());
        let task = TaskContext::new(None, none, config, scalar, folds, windows, environment);
        Ok(Self { runtime, task: Arc::new(task), told: Vec::new(), batches: BTreeMap::new() })
    }

    /// A table; `told` is how it reads in the statement that is shown.
    pub(crate) fn table(
        &mut self,
        name: &str,
        batch: RecordBatch,
        told: Option<String>,
    ) -> std::result::Result<(), AuditError> {
        self.batches.insert(exact(name), batch);
        self.told.extend(told.map(|told| (name.to_owned(), told)));
        Ok(())
    }

    /// How something that is no statement of its own reads.
    pub(crate) fn tell(&mut self, name: &str, told: String) {
        self.told.push((name.to_owned(), told));
    }

    /// All that was told so far.
    pub(crate) fn told_so_far(&self) -> Vec<(String, String)> {
        self.told.clone()
    }

    /// What another question has told.
    pub(crate) fn tell_again(&mut self, told: Vec<(String, String)>) {
        self.told.extend(told);
    }

    /// The columns of a table.
    pub(crate) fn schema(&self, name: &str) -> SchemaRef {
        self.batches.get(&exact(name)).map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema)
    }

    /// Whether there is such a table.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.batches.contains_key(name)
    }

    /// Runs a statement.
    pub(crate) fn run(&self, sql: &str) -> std::result::Result<RecordBatch, AuditError> {
        let run = async {
            let plan = Plan::of(sql, &self.batches).await?;
            let schema = plan.schema();
            let batches = plan.run(Arc::clone(&self.task)).await?;
            // What comes out may be stricter about nulls than what was planned.
            let schema = batches.first().map_or(schema, RecordBatch::schema);
            Ok::<_, DataFusionError>(concat_batches(&schema, &batches)?)
        };
        self.runtime.block_on(run).map_err(|error| AuditError::sql(sql, &error))
    }

    /// Runs a statement whose rows become a table.
    pub(crate) fn stage(&mut self, name: &str, sql: String) -> std::result::Result<RecordBatch, AuditError> {
        let batch = self.run(&sql)?;
        self.table(name, batch.clone(), Some(sql))?;
        Ok(batch)
    }

    /// `SELECT * FROM from WHERE condition` becomes a table. There is nothing to plan in it.
    pub(crate) fn select(
        &mut self,
        (from, to): (&str, &str),
        condition: Option<&str>,
    ) -> std::result::Result<(), AuditError> {
        let told = format!("SELECT * FROM {from}");
        let Some(condition) = condition else {
            let batch = self.rows(from)?;
            return self.table(to, batch, Some(told));
        };
        let told = format!("{told} WHERE {condition}");
        let refused = |error: DataFusionError| AuditError::sql(&told, &error);
        let schema = DFSchema::try_from(self.schema(from).as_ref().clone()).map_err(refused)?;
        let condition = STATE.create_logical_expr(condition, &schema).map_err(refused)?;
        self.filtered((from, to), condition, told)
    }

    /// Rows of a table for which an expression is true become a table.
    pub(crate) fn filtered(
        &mut self,
        (from, to): (&str, &str),
        condition: Expr,
        told: String,
    ) -> std::result::Result<(), AuditError> {
        let batch = self.rows(from)?;
        let run = || {
            let schema = DFSchema::try_from(batch.schema().as_ref().clone())?;
            let condition = STATE.create_physical_expr(condition, &schema)?;
            let holds = condition.evaluate(&batch)?.into_array(batch.num_rows())?;
            let holds = holds.as_boolean_opt();
            let holds = holds.ok_or_else(|| DataFusionError::Plan("no condition".to_owned()))?;
            // A null is not true.
            Ok(filter_record_batch(&batch, holds)?)
        };
        let batch = run().map_err(|error: DataFusionError| AuditError::sql(&told, &error))?;
        self.table(to, batch, Some(told))
    }

    fn rows(&self, table: &str) -> std::result::Result<RecordBatch, AuditError> {
        let rows = self.batches.get(&exact(table)).cloned();
        rows.ok_or_else(|| AuditError::Inner(format!("no table {table}")))
    }

    /// All that was run, as one statement that ends with `last`.
    pub(crate) fn told(&self, last: &[String]) -> String {
        let mut text = String::new();
        for (index, (name, sql)) in self.told.iter().enumerate() {
            let head = if index == 0 { "WITH " } else { ",\n" };
            let _ = write!(text, "{head}{name} AS (\n{}\n)", indented(sql));
        }
        for (index, sql) in last.iter().enumerate() {
            let _ = write!(text, "{}{sql}", if index == 0 { "\n" } else { ";\n" });
        }
        text
    }
}

/// The table that a name in SQL means.
fn exact(name: &str) -> String {
    datafusion::common::TableReference::parse_str(name).table().to_owned()
}

fn indented(sql: &str) -> String {
    let lines: Vec<String> = sql.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}

/// A name as SQL takes it exactly.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL takes it exactly.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
