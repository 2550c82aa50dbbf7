//! A field of a struct column, null also where the struct is.
//!
//! *In*: a struct array. *Out*: one of its fields. *Never*: the bytes that happen to lie below a null
//! struct, which DataFusion's own `get_field` hands out.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StructArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// `parent.name`.
pub(super) fn field(parent: Expr, name: &str) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    let function = ScalarUDF::from(FieldOf { name: name.to_owned(), signature });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![parent]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FieldOf {
    name: String,
    signature: Signature,
}

impl ScalarUDFImpl for FieldOf {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        "field_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments.first() {
            Some(DataType::Struct(fields)) => match fields.find(&self.name) {
                Some((_, field)) => Ok(field.data_type().clone()),
                None => plan_err!("no field `{}`", self.name),
            },
            _ => plan_err!("`{}` of what is no struct", self.name),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let parents = ColumnarValue::values_to_arrays(&arguments.args)?;
        match parents.first().and_then(|parent| parent.as_struct_opt()) {
            Some(parent) => {
                let child = child(parent, &self.name)?;
                debug_assert!(child.len() == rows || child.len() == 1, "one value per row");
                Ok(ColumnarValue::Array(child))
            }
            None => exec_err!("`{}` of what is no struct", self.name),
        }
    }
}

fn child(parent: &StructArray, name: &str) -> Result<ArrayRef> {
    let Some(child) = parent.column_by_name(name) else { return exec_err!("no field `{name}`") };
    let Some(parent_nulls) = parent.nulls().filter(|nulls| nulls.null_count() > 0) else {
        return Ok(Arc::clone(child));
    };
    let nulls = NullBuffer::union(child.nulls(), Some(parent_nulls));
    Ok(make_array(child.to_data().into_builder().nulls(nulls).build()?))
}
