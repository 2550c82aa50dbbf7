//! The functions expressions may call.
//!
//! *In*: a function name. *Out*: DataFusion's scalar function, or why not. *Never*: a function whose
//! answer depends on anything but its arguments: a replay must decide alike.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{AggregateUDF, ScalarUDF, TableSource, Volatility, WindowUDF};

use super::{ExprError, lists};

/// Not for contracts: about Arrow or DataFusion itself, or results no column of ours has.
const HIDDEN: [&str; 10] = [
    "version",
    "arrow_typeof",
    "arrow_metadata",
    "arrow_cast",
    "union_extract",
    "union_tag",
    "struct",
    "row",
    "named_struct",
    "get_field",
];

/// Known elsewhere as functions of the clock or of chance (DataFusion's own say so themselves).
const CHANGING: [&str; 12] = [
    "current_timestamp",
    "localtimestamp",
    "localtime",
    "sysdate",
    "getdate",
    "today",
    "rand",
    "gen_random_uuid",
    "newid",
    "uuid_generate_v4",
    "uuidv4",
    "uuidv7",
];

/// Over many rows: these belong into `agg:` of a measure.
const AGGREGATES: [&str; 26] = [
    "count",
    "sum",
    "avg",
    "mean",
    "min",
    "max",
    "median",
    "stddev",
    "stddev_samp",
    "stddev_pop",
    "var",
    "var_samp",
    "var_pop",
    "variance",
    "first_value",
    "last_value",
    "array_agg",
    "string_agg",
    "bool_and",
    "bool_or",
    "approx_distinct",
    "approx_percentile_cont",
    "approx_median",
    "percentile_cont",
    "row_number",
    "rank",
];

/// All scalar functions by name and alias.
static FUNCTIONS: LazyLock<BTreeMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut functions = BTreeMap::new();
    for function in datafusion_functions::all_default_functions() {
        for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str)) {
            if !HIDDEN.contains(&name) {
                functions.insert(name.to_owned(), Arc::clone(&function));
            }
        }
    }
    functions
});

/// Whether `name` may be called at all, before its arguments are looked at.
pub(super) fn check(name: &str, place: Range<usize>) -> std::result::Result<(), ExprError> {
    let name = name.to_lowercase();
    let function = FUNCTIONS.get(&name);
    let changing = function.is_some_and(|f| f.signature().volatility != Volatility::Immutable)
        || CHANGING.contains(&name.as_str());
    if changing {
        let message = format!("`{name}` gives another answer every time, so a replay could not agree");
        return Err(ExprError::new("not_allowed", place, message)
            .found(name)
            .fix("use a time or id column of the event"));
    }
    if function.is_some() {
        return Ok(());
    }
    if AGGREGATES.contains(&name.as_str()) {
        let list = format!("{name}_of");
        let fix = match lists::names().find(|known| **known == *list) {
            Some(known) => {
                format!("use `agg: {name}` in a measure; over the items of a list, `{known}(list, ...)`")
            }
            None => "use `agg:` in a measure".to_owned(),
        };
        let message = format!("`{name}` is over many rows, an expression is over one");
        return Err(ExprError::new("not_allowed", place, message).found(name).fix(fix));
    }
    let message = format!("no function is called `{name}`");
    let names = FUNCTIONS.iter().filter(|(_, f)| f.signature().volatility == Volatility::Immutable);
    let names = names.map(|(name, _)| name.as_str()).chain(lists::names());
    Err(ExprError::new("unknown_function", place, message).names(&name, names))
}

/// What DataFusion's SQL planner asks for: functions, no tables.
pub(super) struct Context {
    options: ConfigOptions,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

/// The one context; it holds no state.
pub(super) static CONTEXT: LazyLock<Context> = LazyLock::new(|| Context {
    options: ConfigOptions::default(),
    planners: vec![
        Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
        Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
        Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
    ],
});

impl ContextProvider for Context {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        plan_err!("table {name} in an expression")
    }
    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }
    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        FUNCTIONS.get(name).cloned()
    }
    fn get_aggregate_meta(&self, _: &str) -> Option<Arc<AggregateUDF>> {
        None
    }
    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }
    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }
    fn options(&self) -> &ConfigOptions {
        &self.options
    }
    fn udf_names(&self) -> Vec<String> {
        FUNCTIONS.keys().cloned().collect()
    }
    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }
    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
