//! A metric compiled for folding.
//!
//! *In*: [`contracts::catalog::Metric`]. *Out*: a [`MetricPlan`], shared by all workers and readers.
//! *Never*: an expression that is planned again per batch.

use std::sync::Arc;

use contracts::catalog::{Input, MeasureKind, Metric, Overflow, WindowKind};
use contracts::expr::Typed;
use contracts::value::Value;

use super::acc::FoldSpec;
use super::window::{self, Extent, UnknownZone};
use crate::eval::{Compiled, PlanError};

/// Everything the fold and its readers need to know about a metric.
#[derive(Debug)]
pub struct MetricPlan {
    /// The contract.
    pub metric: Arc<Metric>,
    /// Pane width, microseconds.
    pub step: i64,
    /// One per window.
    pub extents: Vec<Extent>,
    /// One per fold.
    pub specs: Vec<FoldSpec>,
    /// One per feed.
    pub feeds: Vec<FeedPlan>,
    /// Panes that fall out of retention are summed up for an `all` window.
    pub keeps_base: bool,
    /// A total over all keys is kept beside the keys.
    pub keeps_total: bool,
}

/// One feed compiled; equal expressions are evaluated once.
#[derive(Debug)]
pub struct FeedPlan {
    /// What it reads.
    pub input: Input,
    /// Column that is the row's time.
    pub time: String,
    /// When a row counts, where not at its time.
    pub moment: Option<Compiled>,
    /// `where`.
    pub filter: Option<Compiled>,
    /// One per dimension, with the value that replaces null.
    pub dimensions: Vec<(Compiled, Value)>,
    /// Distinct value expressions.
    pub values: Vec<Compiled>,
    /// Distinct measure filters.
    pub filters: Vec<Compiled>,
    /// One per fold: indexes into `values` and `filters`. `None`: not moved by this feed.
    pub folds: Vec<Option<(Option<usize>, Option<usize>)>>,
    /// One per fold: from when to when a row lasts.
    pub spans: Vec<Option<(Compiled, Compiled)>>,
}

/// A metric that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum MetricPlanError {
    /// An expression without a physical plan.
    #[error("`{sql}`: {source}")]
    Expression {
        /// The expression.
        sql: String,
        /// Why.
        source: PlanError,
    },
    /// A zone the bundled database does not have.
    #[error(transparent)]
    Zone(#[from] UnknownZone),
}

impl MetricPlan {
    /// Compiles a metric.
    pub fn new(metric: Arc<Metric>) -> Result<Self, MetricPlanError> {
        let extents = window::extents(&metric.windows)?;
        let retracts = metric.feeds.iter().any(|feed| !matches!(feed.input, Input::Event(_)));
        let specs = metric.folds.iter().map(|fold| FoldSpec {
            agg: fold.agg.clone(),
            input: fold.input.clone(),
            retracts,
        });
        let shifts = metric.measures.iter().filter_map(|measure| match measure.kind {
            MeasureKind::Shift { by, .. } => Some(by),
            _ => None,
        });
        let defaults: Vec<Value> = metric.dimensions.iter().map(|d| d.default.clone()).collect();
        let refuses = metric.dimensions.iter().any(|d| d.overflow == Overflow::Refuse);
        Ok(Self {
            step: window::grid(&extents, shifts),
            specs: specs.collect(),
            feeds: metric
                .feeds
                .iter()
                .map(|feed| FeedPlan::new(feed, &defaults))
                .collect::<Result<_, _>>()?,
            keeps_base: metric.windows.iter().any(|w| w.kind == WindowKind::All),
            keeps_total: !metric.dimensions.is_empty() && !refuses,
            extents,
            metric,
        })
    }

    /// The pane of an instant.
    pub fn pane(&self, time: i64) -> i64 {
        time.div_euclid(self.step)
    }

    /// The oldest pane kept at `now`: the first one wholly inside of retention.
    pub fn oldest_pane(&self, now: i64) -> i64 {
        self.pane(now.saturating_sub(self.metric.retain))
    }
}

impl FeedPlan {
    fn new(feed: &contracts::catalog::Feed, defaults: &[Value]) -> Result<Self, MetricPlanError> {
        let mut values = Distinct::default();
        let mut filters = Distinct::default();
        let folds = feed.folds.iter().map(|fold| {
            let Some(fold) = fold else { return Ok(None) };
            let value = fold.value.as_ref().map(|v| values.index(v)).transpose()?;
            let filter = fold.filter.as_ref().map(|f| filters.index(f)).transpose()?;
            Ok(Some((value, filter)))
        });
        let folds = folds.collect::<Result<_, MetricPlanError>>()?;
        let spans = feed.folds.iter().map(|fold| {
            let span = fold.as_ref().and_then(|fold| fold.span.as_ref());
            span.map(|(start, end)| Ok((compile(start)?, compile(end)?))).transpose()
        });
        let dimensions = feed
            .dimensions
            .iter()
            .zip(defaults)
            .map(|(expr, default)| Ok((compile(expr)?, default.clone())))
            .collect::<Result<_, MetricPlanError>>()?;
        Ok(Self {
            input: feed.input,
            time: feed.time.clone(),
            moment: feed.moment.as_ref().map(compile).transpose()?,
            filter: feed.filter.as_ref().map(compile).transpose()?,
            dimensions,
            values: values.compiled,
            filters: filters.compiled,
            folds,
            spans: spans.collect::<Result<_, MetricPlanError>>()?,
        })
    }
}

/// Compiled expressions by their text.
#[derive(Default)]
struct Distinct {
    sql: Vec<String>,
    compiled: Vec<Compiled>,
}

impl Distinct {
    fn index(&mut self, typed: &Typed) -> Result<usize, MetricPlanError> {
        if let Some(found) = self.sql.iter().position(|sql| *sql == typed.sql) {
            return Ok(found);
        }
        self.compiled.push(compile(typed)?);
        self.sql.push(typed.sql.clone());
        Ok(self.sql.len() - 1)
    }
}

fn compile(typed: &Typed) -> Result<Compiled, MetricPlanError> {
    Compiled::new(typed).map_err(|source| MetricPlanError::Expression { sql: typed.sql.clone(), source })
}
