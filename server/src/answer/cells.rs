//! Arrow cells of admitted rows as JSON.
//!
//! *In*: a column and a row. *Out*: the cell as docs/reference/semantics.md "Cells" says. *Never*:
//! a decimal through a float; personal data (the caller names the columns to mask).

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use contracts::value::Value;
use serde_json::{Map, Value as Json};

/// Shown instead of personal data.
pub(crate) const MASK: &str = "***";

/// The cell at `row`.
pub(crate) fn cell(column: &dyn Array, row: usize) -> Json {
    if column.is_null(row) {
        return Json::Null;
    }
    match column.data_type() {
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            (0..items.len()).map(|i| cell(items.as_ref(), i)).collect()
        }
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            let pairs = fields.iter().zip(columns).map(|(f, c)| (f.name().clone(), cell(c.as_ref(), row)));
            Json::Object(pairs.collect::<Map<_, _>>())
        }
        _ => Value::from_arrow(column, row).to_json(None),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, Decimal128Array, DictionaryArray, Int64Array, ListArray, StringArray, StructArray,
    };
    use arrow::datatypes::{Field, Int32Type, Int64Type};
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_cells() {
        let codes: DictionaryArray<Int32Type> = ["a", "b"].into_iter().collect();
        assert_eq!(cell(&codes, 1), json!("b"));
        let money = Decimal128Array::from(vec![Some(12_345), None]).with_precision_and_scale(18, 2).unwrap();
        assert_eq!((cell(&money, 0), cell(&money, 1)), (json!("123.45"), Json::Null));
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None])]);
        assert_eq!(cell(&list, 0), json!([1, null]));
        let pair = StructArray::from(vec![
            (
                Arc::new(Field::new("n", DataType::Int64, true)),
                Arc::new(Int64Array::from(vec![7])) as ArrayRef,
            ),
            (
                Arc::new(Field::new("s", DataType::Utf8, true)),
                Arc::new(StringArray::from(vec!["x"])) as ArrayRef,
            ),
        ]);
        assert_eq!(cell(&pair, 0), json!({ "n": 7, "s": "x" }));
    }
}
