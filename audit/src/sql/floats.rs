//! Folds over floats that no order of rows changes.
//!
//! *In*: floats. *Out*: their sum, their deviation, as functions of SQL. *Never*: a result that depends on the order.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{Accumulator, AggregateUDF, Volatility, create_udaf};

use crate::numbers;

/// `exact_sum` and `exact_stddev`.
pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    let function = |exact: Exact| {
        let made = create_udaf(
            exact.name(),
            vec![DataType::Float64],
            Arc::new(DataType::Float64),
            Volatility::Immutable,
            Arc::new(move |_| Ok(Box::new(Floats { exact, values: Vec::new() }) as Box<dyn Accumulator>)),
            Arc::new(vec![list_type()]),
        );
        Arc::new(made)
    };
    [Exact::Sum, Exact::Deviation].map(function).to_vec()
}

/// A fold.
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
