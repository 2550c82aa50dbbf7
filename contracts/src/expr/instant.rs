//! Truncating instants, right in every year.
//!
//! *In*: timestamps in microseconds. *Out*: their start of second, hour, day or week in UTC, or an
//! error for years that DataFusion's nanoseconds cannot hold. *Never*: a product that wraps, as
//! DataFusion's `date_trunc` does before 1677 and after 2262.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion_common::{Result, exec_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::value::{format_timestamp, timestamp_type};

/// Microseconds of the units that have one length in UTC, and where one of them starts.
const UNITS: [(&str, i64, i64); 7] = [
    ("millisecond", 1_000, 0),
    ("second", 1_000_000, 0),
    ("minute", 60_000_000, 0),
    ("hour", 3_600_000_000, 0),
    ("day", 86_400_000_000, 0),
    // 1970-01-05 was a Monday.
    ("week", 7 * 86_400_000_000, 4 * 86_400_000_000),
    ("microsecond", 1, 0),
];

/// `date_trunc(unit, instant)` of type `ty`, where we do better; `None` for DataFusion's own, with
/// the instant [`within_nanoseconds`].
pub(super) fn truncated(unit: &str, instant: &Expr, ty: &DataType) -> Option<Expr> {
    if *ty != timestamp_type() {
        return None;
    }
    let unit = unit.to_lowercase();
    let (_, length, start) = UNITS.iter().find(|(name, ..)| *name == unit)?;
    Some(call(Work::Truncate { length: *length, start: *start }, instant.clone()))
}

/// `instant` itself; an error in years before 1678 or after 2261.
pub(super) fn within_nanoseconds(instant: Expr) -> Expr {
    call(Work::WithinNanoseconds, instant)
}

fn call(work: Work, instant: Expr) -> Expr {
    let function = Instants { work, signature: Signature::any(1, Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), vec![instant]))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Work {
    Truncate { length: i64, start: i64 },
    WithinNanoseconds,
}

impl Work {
    fn apply(self, micros: i64) -> std::result::Result<i64, ArrowError> {
        let outside = || {
            ArrowError::ComputeError(format!(
                "{} is outside of the years 1678 to 2261",
                format_timestamp(micros)
            ))
        };
        match self {
            Self::Truncate { length, start } => {
                micros.checked_sub((micros - start).rem_euclid(length)).ok_or_else(outside)
            }
            Self::WithinNanoseconds => match micros.checked_mul(1_000) {
                Some(_) => Ok(micros),
                None => Err(outside()),
            },
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Instants {
    work: Work,
    signature: Signature,
}

impl ScalarUDFImpl for Instants {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        match self.work {
            Work::Truncate { .. } => "truncate_utc",
            Work::WithinNanoseconds => "within_nanoseconds",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let instants = ColumnarValue::values_to_arrays(&arguments.args)?;
        let Some(instants) = instants.first() else { return exec_err!("no instant") };
        let DataType::Timestamp(TimeUnit::Microsecond, zone) = instants.data_type() else {
            return exec_err!("instants are in microseconds, not {}", instants.data_type());
        };
        let micros = instants.as_primitive::<TimestampMicrosecondType>();
        let done = micros.try_unary::<_, TimestampMicrosecondType, _>(|micros| self.work.apply(micros))?;
        Ok(ColumnarValue::Array(Arc::new(done.with_timezone_opt(zone.clone())) as ArrayRef))
    }
}
