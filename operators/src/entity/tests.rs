//! Rows of change streams come, change and go.

use std::sync::Arc;

use super::*;

const SECOND: i64 = 1_000_000;

/// An entity over one change stream: its sum, greatest, last and set of `n`.
fn plan() -> Arc<EntityPlan> {
    const CONTRACTS: &str = "
apiVersion: streamgauge/v1
kind: Event
name: cdc.orders
version: 1.0.0
changelog: true
key: id
fields: { id: { type: string }, shop: { type: string }, n: { type: int } }
---
apiVersion: streamgauge/v1
kind: Entity
name: shop
version: 1.0.0
key: shop
events: [cdc.orders]
history: 2
fields: { sum: { sum: n }, most: { max: n }, last: { last: n }, all: { set: n } }
";
    let loaded = contracts::load(&[contracts::SourceFile::new("shop.yaml", CONTRACTS)]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    Arc::new(EntityPlan::new(Arc::clone(&loaded.catalog.entities[0])).unwrap())
}

fn touch(id: &str, second: i64, n: i64, weight: i64) -> Touch {
    let moment = Moment {
        time: second * SECOND,
        id: Some(id.into()),
        feed: 0,
        values: vec![Some(Value::Int(n)); 4].into(),
    };
    Touch { key: "eu".into(), moment, weight }
}

fn row(state: &EntityState, as_of: Option<i64>) -> Option<(Vec<String>, u64)> {
    let row = state.shard().row("eu", as_of.map(|second| second * SECOND)).unwrap()?;
    Some((row.cells[1..5].iter().map(Value::to_string).collect(), row.events))
}

#[test]
fn what_is_taken_back_leaves_no_trace() {
    let mut state = EntityState::new(plan(), 10);
    let said = |cells: [&str; 4], events| Some((cells.map(str::to_owned).to_vec(), events));
    // More rows than `history`: rows of a stream are all remembered.
    let all = [("a", 1, 7), ("b", 2, 9), ("c", 3, 7), ("d", 4, 1)];
    state.apply(all.iter().map(|(id, at, n)| touch(id, *at, *n, 1)).collect());
    assert_eq!(row(&state, None), said(["24", "9", "1", "[1,7,9]"], 4));
    assert_eq!(row(&state, Some(3)), said(["16", "9", "9", "[7,9]"], 2));
    // The greatest changes, one of two sevens and the last go.
    let changes = state.apply(vec![
        touch("b", 2, 9, -1),
        touch("b", 2, 3, 1),
        touch("a", 1, 7, -1),
        touch("d", 4, 1, -1),
    ]);
    assert_eq!(changes.unwrap().weights, [-1, 1]);
    assert_eq!(row(&state, None), said(["10", "7", "7", "[3,7]"], 2));
    // What was never there changes nothing; who has nothing left is gone.
    assert!(state.apply(vec![touch("x", 1, 1, -1)]).is_none());
    let changes = state.apply(vec![touch("b", 2, 3, -1), touch("c", 3, 7, -1)]);
    assert_eq!(changes.unwrap().weights, [-1]);
    assert_eq!(row(&state, None), None);
    assert!(state.shard().is_empty());
}
