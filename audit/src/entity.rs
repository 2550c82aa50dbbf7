//! Live rows of an entity, as SQL over its events.
//!
//! *In*: an entity, its events, an instant. *Out*: one row per key. *Never*: a row carried over from another instant.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, new_null_array,
};
use arrow::compute::{cast, concat_batches, is_not_null};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use contracts::batch::{ChangeOp, Partition};
use contracts::catalog::{Agg, Entity, EntityFeed, EntityField, EntityFold, Fold};
use contracts::value::{Value, ValueType, to_arrow};

use crate::aggs;
use crate::ask::AuditError;
use crate::eval::evaluate;
use crate::rows::{Source, sql_type, value_of};
use crate::sql::{literal, quoted};
use crate::stages::{Work, events_of, instant};

/// The rows of an entity as of an instant.
pub(crate) fn rows(work: &mut Work<'_>, index: usize, as_of: i64) -> Result<Source, AuditError> {
    let entity = Arc::clone(&work.catalog.entities[index]);
    let touches = format!("touches_{}", entity.head.name);
    if !work.sql.has(&touches) {
        let batches = entity.feeds.iter().map(|feed| touches_of(work, &entity, feed));
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        let batch = concat_batches(&schema(&entity), &batches).map_err(AuditError::arrow)?;
        let told: Vec<String> = entity.feeds.iter().map(|feed| told(work, &entity, feed)).collect();
        work.sql.table(&quoted(&touches), batch, Some(told.join("\nUNION ALL\n")))?;
    }
    let from = format!("FROM {} WHERE at < {}", quoted(&touches), instant(as_of));
    let mut columns = vec!["key, MIN(at) AS first_at, MAX(at) AS last_at".to_owned()];
    for (number, field) in entity.fields.iter().enumerate() {
        if let Some(fold) = fold_of(field) {
            let (value, sees) = (quoted(&format!("v_{}", field.name)), quoted(&format!("if_{}", field.name)));
            columns.extend(aggs::columns_of(&fold, number, &value, &sees));
        }
    }
    let name = work.name(&format!("entity_{}", entity.head.name), as_of);
    let sql = format!("SELECT {}\n{from}\nGROUP BY key ORDER BY key", columns.join(",\n  "));
    let batch = work.sql.stage(&quoted(&name), sql)?;
    let sets = sets(work, &entity, &from)?;
    finish(&entity, &batch, &sets)
}

fn fold_of(field: &EntityField) -> Option<Fold> {
    let agg = match field.fold {
        EntityFold::First => Agg::First,
        EntityFold::Last => Agg::Last,
        EntityFold::Count => Agg::Count,
        EntityFold::Sum => Agg::Sum,
        EntityFold::Min => Agg::Min,
        EntityFold::Max => Agg::Max,
        EntityFold::Set => return None,
    };
    Some(Fold { agg, input: field.ty.clone() })
}

/// `key`, `id`, `at`, then per field its value and whether there is one.
fn schema(entity: &Entity) -> SchemaRef {
    let field = |name: String, ty: DataType| Field::new(name, ty, true);
    let mut fields = vec![
        field("key".to_owned(), DataType::Utf8),
        field("id".to_owned(), DataType::Utf8),
        field("at".to_owned(), DataType::Int64),
    ];
    for one in &entity.fields {
        fields.push(field(format!("v_{}", one.name), value_type(one)));
        fields.push(field(format!("if_{}", one.name), DataType::Boolean));
    }
    Arc::new(Schema::new(fields))
}

/// What is counted is not looked at.
fn value_type(field: &EntityField) -> DataType {
    match field.fold {
        EntityFold::Count => DataType::Boolean,
        _ => sql_type(&field.ty),
    }
}

/// What the events of one type do to the rows.
fn touches_of(work: &Work<'_>, entity: &Entity, feed: &EntityFeed) -> Result<RecordBatch, AuditError> {
    let source = events_of(work.catalog, work.events, feed.event)?;
    let rows = source.batch.num_rows();
    let times = source.batch.column_by_name("time");
    let times = times.and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
    let times = times.ok_or_else(|| AuditError::Inner("events without a time".to_owned()))?;
    let key = evaluate(&feed.key, &source.batch)?;
    let keys = cast(&key.values, &DataType::Utf8).map_err(AuditError::arrow)?;
    let mut bad = key.failed;
    bad.iter_mut().enumerate().for_each(|(row, bad)| *bad |= keys.is_null(row));
    let mut columns: Vec<ArrayRef> =
        vec![keys, Arc::new(source.ids), Arc::new(Int64Array::new(times.values().clone(), None))];
    for (field, value) in entity.fields.iter().zip(&feed.values) {
        let (value, there): (ArrayRef, ArrayRef) = match value {
            None => {
                (new_null_array(&value_type(field), rows), Arc::new(BooleanArray::from(vec![false; rows])))
            }
            Some(value) => {
                let evaluated = evaluate(value, &source.batch)?;
                bad.iter_mut().zip(&evaluated.failed).for_each(|(bad, failed)| *bad |= failed);
                let there = is_not_null(&evaluated.values).map_err(AuditError::arrow)?;
                let value = match field.fold {
                    EntityFold::Count => Arc::new(there.clone()) as ArrayRef,
                    _ => as_sql(&evaluated.values, &field.ty)?,
                };
                (value, Arc::new(there))
            }
        };
        columns.extend([value, there]);
    }
    let batch = RecordBatch::try_new(schema(entity), columns).map_err(AuditError::arrow)?;
    let mut good: Vec<bool> = bad.iter().map(|bad| !bad).collect();
    if feed.changelog {
        good = current(work, feed, &good, times.values())?;
    }
    let good = BooleanArray::from(good);
    arrow::compute::filter_record_batch(&batch, &good).map_err(AuditError::arrow)
}

/// Of a change stream: the rows that are the newest version of their key, not ended, and whole. A version that says
/// nothing of the entity replaces the one before all the same.
fn current(
    work: &Work<'_>,
    feed: &EntityFeed,
    good: &[bool],
    times: &[i64],
) -> Result<Vec<bool>, AuditError> {
    // Where each version stands: partition, offset, place in the record; and when the source committed it.
    struct Version<'k> {
        row: usize,
        partition: &'k Partition,
        place: (i64, u32),
        committed: i64,
    }
    let after = |a: &Version<'_>, b: &Version<'_>| match a.partition == b.partition {
        true => a.place > b.place,
        false => a.committed > b.committed,
    };
    let mut newest: BTreeMap<&str, Version<'_>> = BTreeMap::new();
    let mut truncates: Vec<Version<'_>> = Vec::new();
    let mut upserts = vec![false; good.len()];
    let mut first = 0;
    for kept in work.events.iter().filter(|kept| kept.batch.event == feed.event) {
        let Some(changes) = &kept.batch.changes else {
            return Err(AuditError::Inner("a change stream without changes".to_owned()));
        };
        for (number, change) in changes.iter().enumerate() {
            let row = first + number;
            let place = (kept.batch.offsets[number], kept.batch.parts[number]);
            let version = Version { row, partition: &kept.partition, place, committed: change.at };
            upserts[row] = change.op == ChangeOp::Upsert;
            if times[row] >= work.question.now {
                continue;
            }
            if change.op == ChangeOp::Truncate {
                truncates.push(version);
                continue;
            }
            match newest.entry(kept.batch.ids.value(number)) {
                Entry::Occupied(mut known) if after(&version, known.get()) => {
                    known.insert(version);
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(free) => {
                    free.insert(version);
                }
            }
        }
        first += changes.len();
    }
    let mut current = vec![false; good.len()];
    for version in newest.values() {
        let gone = truncates.iter().any(|truncate| after(truncate, version));
        current[version.row] = good[version.row] && upserts[version.row] && !gone;
    }
    Ok(current)
}

fn as_sql(values: &ArrayRef, ty: &ValueType) -> Result<ArrayRef, AuditError> {
    let exact = ty.arrow().unwrap_or(DataType::Utf8);
    let plain = cast(values, &exact).map_err(AuditError::arrow)?;
    cast(&plain, &sql_type(ty)).map_err(AuditError::arrow)
}

fn told(work: &Work<'_>, entity: &Entity, feed: &EntityFeed) -> String {
    let mut columns = vec![format!("{} AS key", feed.key.sql), "id".to_owned(), "time AS at".to_owned()];
    for (field, value) in entity.fields.iter().zip(&feed.values) {
        let value = value.as_ref().map_or("NULL", |value| value.sql.as_str());
        columns.push(format!("{value} AS {}", quoted(&format!("v_{}", field.name))));
        columns.push(format!("({value}) IS NOT NULL AS {}", quoted(&format!("if_{}", field.name))));
    }
    let from = quoted(&work.catalog.events[feed.event].head.name);
    format!("SELECT {}\nFROM {from}", columns.join(",\n  "))
}

/// Key and field to the distinct values of a `set`.
type Sets = BTreeMap<(String, usize), Vec<Value>>;

fn sets(work: &Work<'_>, entity: &Entity, from: &str) -> Result<Sets, AuditError> {
    let mut sets = Sets::new();
    for (number, field) in entity.fields.iter().enumerate().filter(|(_, f)| f.fold == EntityFold::Set) {
        let value = quoted(&format!("v_{}", field.name));
        let sql = format!("SELECT DISTINCT key, {value} AS v {from} AND {value} IS NOT NULL ORDER BY key, v");
        let batch = work.sql.run(&sql)?;
        let (keys, values) = (text(&batch, "key")?, column(&batch, "v")?);
        for row in 0..batch.num_rows() {
            let set = sets.entry((keys.value(row).to_owned(), number)).or_default();
            set.push(value_of(values, row, &field.ty));
        }
    }
    Ok(sets)
}

fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef, AuditError> {
    batch.column_by_name(name).ok_or_else(|| AuditError::Inner(format!("no column {}", literal(name))))
}

fn text<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b StringArray, AuditError> {
    let column = column(batch, name)?.as_string_opt::<i32>();
    column.ok_or_else(|| AuditError::Inner(format!("{} is no text", literal(name))))
}

/// Rows as the metric's expressions see them.
fn finish(entity: &Entity, batch: &RecordBatch, sets: &Sets) -> Result<Source, AuditError> {
    let keys = text(batch, "key")?.clone();
    let rows = batch.num_rows();
    let cell = |name: &str, row: usize| match entity.fields.iter().position(|field| field.name == name) {
        Some(number) => {
            let field = &entity.fields[number];
            match fold_of(field) {
                Some(fold) => aggs::finish(&fold, &aggs::read(batch, row, &fold, number), None),
                None => {
                    let set = sets.get(&(keys.value(row).to_owned(), number));
                    Value::List(set.cloned().unwrap_or_default().into())
                }
            }
        }
        None if name == "first_time" => Value::Timestamp(aggs::count(batch, "first_at", row)),
        None if name == "time" => Value::Timestamp(aggs::count(batch, "last_at", row)),
        None => Value::Text(Arc::from(keys.value(row))),
    };
    let columns = entity.schema.fields().iter().map(|field| {
        let values: Vec<Value> = (0..rows).map(|row| cell(field.name(), row)).collect();
        to_arrow(&values, field.data_type()).map_err(|error| AuditError::Inner(error.to_string()))
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let batch = RecordBatch::try_new(Arc::clone(&entity.schema), columns).map_err(AuditError::arrow)?;
    Ok(Source { batch, ids: keys.clone(), names: keys, received: None })
}
