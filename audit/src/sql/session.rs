//! What all questions share of DataFusion: its functions and the rules that plans go through.
//!
//! *In*: a statement, the tables it may name. *Out*: a plan that can be run. *Never*: a table of another question.
//!
//! Statements are small and made for this crate, and most of their time goes into planning. So only the rules
//! that they need are there; the last of them refuses a plan that would not do what it says.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{TableReference, plan_datafusion_err};
use datafusion::error::Result;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion::logical_expr::{AggregateUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::optimizer::OptimizerRule;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::enforce_sorting::EnforceSorting;
use datafusion::physical_optimizer::output_requirements::OutputRequirements;
use datafusion::physical_optimizer::sanity_checker::SanityCheckPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::SqlToRel;

use super::floats;

/// One for all questions: a session holds nothing of its own.
pub(super) static STATE: LazyLock<SessionState> = LazyLock::new(|| state(Vec::new()));

/// The same for statements whose functions look at rows in an order.
static ORDERED: LazyLock<SessionState> = LazyLock::new(|| {
    let sort = Arc::new(EnforceSorting::new());
    state(vec![
        Arc::new(OutputRequirements::new_add_mode()),
        sort,
        Arc::new(OutputRequirements::new_remove_mode()),
    ])
});

fn state(mut physical: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>) -> SessionState {
    physical.push(Arc::new(SanityCheckPlan::new()));
    // One partition: the order of rows decides nothing, and no thread is started.
    let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    // One pass over the rules is enough.
    config.options_mut().optimizer.max_passes = 1;
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_optimizer_rules(rules)
        .with_physical_optimizer_rules(physical)
        .build();
    for function in floats::functions() {
        // The name is new: there is no earlier one to give back, and nothing that can fail.
        let _ = datafusion::execution::FunctionRegistry::register_udaf(&mut state, function);
    }
    state
}

/// The logical plan of a statement over these tables.
pub(super) fn plan(sql: &str, tables: &BTreeMap<String, Arc<dyn TableSource>>) -> Result<LogicalPlan> {
    let statement = STATE.sql_to_statement(sql, &STATE.config().options().sql_parser.dialect)?;
    let datafusion::sql::parser::Statement::Statement(statement) = statement else {
        return Err(plan_datafusion_err!("no query"));
    };
    SqlToRel::new(&Names { tables }).sql_statement_to_plan(*statement)
}

/// How a logical plan is run.
pub(super) async fn physical(plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let is_ordered = plan.exists(|node| Ok(matches!(node, LogicalPlan::Window(_))))?;
    let state = if is_ordered { &ORDERED } else { &STATE };
    state.create_physical_plan(plan).await
}

/// What the names of a statement mean.
struct Names<'a> {
    tables: &'a BTreeMap<String, Arc<dyn TableSource>>,
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let source = self.tables.get(name.table()).cloned();
        source.ok_or_else(|| plan_datafusion_err!("table '{name}' not found"))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        STATE.expr_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        None
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        STATE.scalar_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        STATE.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        STATE.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        STATE.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        STATE.scalar_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        STATE.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        STATE.window_functions().keys().cloned().collect()
    }
}
