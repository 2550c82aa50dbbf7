//! Rows become a batch again.
//!
//! *In*: whole rows with their weights. *Out*: [`Changes`] over the relation's schema. *Never*: a key cell.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field};
use contracts::value::{Value, to_arrow};

use super::{RelationPlan, Row};
use crate::entity::Changes;

impl RelationPlan {
    /// A batch of the rows, in order.
    pub fn changes(&self, rows: &[(Row, i64)]) -> Changes {
        let schema = &self.relation.schema;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        let mut parts = 0..self.relation.parts.len();
        if self.relation.flat {
            parts.next();
            let own = &self.relation.parts[0].fields;
            let shown = own.iter().enumerate().filter(|(_, field)| field.name() != "time");
            columns.extend(shown.map(|(cell, field)| column(rows, 0, cell, field)));
        }
        columns.extend(parts.map(|part| self.part(rows, part)));
        let times: Vec<Value> = rows.iter().map(|(row, _)| Value::Timestamp(row.time)).collect();
        columns.push(array(&times, schema.field(columns.len()).data_type()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options);
        Changes {
            batch: batch.expect("columns are built from the schema"),
            weights: rows.iter().map(|(_, weight)| *weight).collect(),
            keys: rows.iter().map(|(row, _)| row.id.as_deref()).collect::<StringArray>(),
        }
    }

    /// The struct column of a part.
    fn part(&self, rows: &[(Row, i64)], part: usize) -> ArrayRef {
        let fields = &self.relation.parts[part].fields;
        let there = NullBuffer::from_iter(rows.iter().map(|(row, _)| row.parts[part].is_some()));
        if fields.is_empty() {
            return Arc::new(StructArray::new_empty_fields(rows.len(), Some(there)));
        }
        let columns =
            fields.iter().enumerate().map(|(cell, field)| column(rows, part, cell, field)).collect();
        Arc::new(StructArray::new(fields.clone(), columns, Some(there)))
    }
}

fn column(rows: &[(Row, i64)], part: usize, cell: usize, field: &Field) -> ArrayRef {
    let value = |(row, _): &(Row, i64)| match &row.parts[part] {
        Some(part) => part.cells[cell].clone(),
        None => Value::Null,
    };
    let values: Vec<Value> = rows.iter().map(value).collect();
    array(&values, field.data_type())
}

fn array(values: &[Value], ty: &DataType) -> ArrayRef {
    to_arrow(values, ty).expect("cells have the types of their columns")
}
