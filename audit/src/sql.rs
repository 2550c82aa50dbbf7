//! DataFusion: tables in memory, statements over them.
//!
//! *In*: batches by name, SQL. *Out*: batches. *Never*: a file, a second thread, more memory than [`MEMORY`].
//!
//! DataFusion runs on tokio; each question has a runtime of one thread, its own, for as long as it runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::expr::Expr;
use datafusion::logical_expr::{Accumulator, Volatility, create_udaf};
use datafusion::prelude::{SessionConfig, SessionContext};
use tokio::runtime::{Builder, Runtime};

use crate::ask::AuditError;
use crate::numbers;

/// What one question may hold in DataFusion.
const MEMORY: usize = 512 << 20;

/// A session with the tables and statements of one question.
pub(crate) struct Sql {
    context: SessionContext,
    runtime: Runtime,
    /// Name and statement of each stage, in order.
    told: Vec<(String, String)>,
    /// Columns of the tables.
    schemas: BTreeMap<String, SchemaRef>,
}

impl Sql {
    pub(crate) fn new() -> std::result::Result<Self, AuditError> {
        let inner = |error: &dyn std::fmt::Display| AuditError::Inner(error.to_string());
        let runtime = Builder::new_current_thread().build().map_err(|error| inner(&error))?;
        let environment = RuntimeEnvBuilder::new().with_memory_limit(MEMORY, 1.0).build_arc();
        let environment = environment.map_err(|error| inner(&error))?;
        // One partition: the order of rows decides nothing, and no thread is started.
        let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
        // Statements are small and made for this: one pass over the rules is enough.
        config.options_mut().optimizer.max_passes = 1;
        let context = SessionContext::new_with_config_rt(config, environment);
        for exact in [Exact::Sum, Exact::Deviation] {
            let state = Arc::new(vec![list_type()]);
            let number = Arc::new(DataType::Float64);
            context.register_udaf(create_udaf(
                exact.name(),
                vec![DataType::Float64],
                number,
                Volatility::Immutable,
                Arc::new(move |_| Ok(Box::new(Floats { exact, values: Vec::new() }) as Box<dyn Accumulator>)),
                state,
            ));
        }
        Ok(Self { context, runtime, told: Vec::new(), schemas: BTreeMap::new() })
    }

    /// A table; `told` is how it reads in the statement that is shown.
    pub(crate) fn table(
        &mut self,
        name: &str,
        batch: RecordBatch,
        told: Option<String>,
    ) -> std::result::Result<(), AuditError> {
        let refused = |error: DataFusionError| AuditError::sql(name, &error);
        self.schemas.insert(name.to_owned(), batch.schema());
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(refused)?;
        self.context.register_table(exact(name), Arc::new(table)).map_err(refused)?;
        self.told.extend(told.map(|told| (name.to_owned(), told)));
        Ok(())
    }

    /// How something that is no statement of its own reads.
    pub(crate) fn tell(&mut self, name: &str, told: String) {
        self.told.push((name.to_owned(), told));
    }

    /// The columns of a table.
    pub(crate) fn schema(&self, name: &str) -> SchemaRef {
        self.schemas.get(name).cloned().unwrap_or_else(|| Arc::new(Schema::empty()))
    }

    /// Whether there is such a table.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.context.table_exist(exact(&quoted(name))).unwrap_or(false)
    }

    /// Runs a statement.
    pub(crate) fn run(&self, sql: &str) -> std::result::Result<RecordBatch, AuditError> {
        let run = async {
            let frame = self.context.sql(sql).await?;
            let schema = Arc::new(frame.schema().as_arrow().clone());
            let batches = frame.collect().await?;
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

    /// Rows of a table for which an expression is true become a table.
    pub(crate) fn filtered(
        &mut self,
        (from, to): (&str, &str),
        condition: Expr,
        told: String,
    ) -> std::result::Result<(), AuditError> {
        let run = async {
            let frame = self.context.table(exact(from)).await?.filter(condition)?;
            let schema = Arc::new(frame.schema().as_arrow().clone());
            let batches = frame.collect().await?;
            let schema = batches.first().map_or(schema, RecordBatch::schema);
            Ok::<_, DataFusionError>(concat_batches(&schema, &batches)?)
        };
        let batch = self.runtime.block_on(run).map_err(|error| AuditError::sql(&told, &error))?;
        self.table(to, batch, Some(told))
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
fn exact(name: &str) -> datafusion::common::TableReference {
    datafusion::common::TableReference::parse_str(name)
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

/// Folds over floats that no order of rows changes.
#[derive(Debug, Clone, Copy)]
enum Exact {
    Sum,
    Deviation,
}

impl Exact {
    fn name(self) -> &'static str {
        match self {
            Self::Sum => "exact_sum",
            Self::Deviation => "exact_stddev",
        }
    }
}

fn list_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Float64, true)))
}

/// All values; what they come to is computed once, from all of them.
#[derive(Debug)]
struct Floats {
    exact: Exact,
    values: Vec<f64>,
}

impl Floats {
    fn take(&mut self, array: &ArrayRef) {
        self.values.extend(array.as_primitive::<Float64Type>().iter().flatten());
    }
}

impl Accumulator for Floats {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.take(&values[0]);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            self.take(&list);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> =
            self.values.iter().map(|value| ScalarValue::Float64(Some(*value))).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Float64))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = match self.exact {
            Exact::Sum => (!self.values.is_empty()).then(|| numbers::exact_sum(self.values.iter().copied())),
            Exact::Deviation => numbers::deviation(&self.values),
        };
        Ok(ScalarValue::Float64(value))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }
}
