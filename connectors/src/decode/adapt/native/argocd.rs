//! Argo CD: which deployment of a revision a sync belongs to.
//!
//! *In*: an Application (`app`). *Out*: number, times and kind of the deployment its revision is. *Never*: a
//! self-heal or prune told as a new deployment; a roll-back to an earlier revision told as a repetition of it.
//!
//! Argo CD writes one entry of `status.history` per sync. Syncs of the same revision that follow each other
//! are one deployment: it is the first of them, with its times, however often it is repeated. Its default is
//! to keep ten entries: when all of them are of one revision, the first is not known any more and the oldest
//! kept one stands for it.

use serde_json::Value;

/// One entry of the history.
struct Entry<'a> {
    id: i64,
    revision: &'a str,
    raw: &'a Value,
}

/// The history in order, and where the syncs of the present revision begin that follow each other last.
fn run(body: &Value) -> Option<(Vec<Entry<'_>>, usize)> {
    let status = body.get("app").unwrap_or(body).get("status")?;
    let revision = status
        .pointer("/operationState/syncResult/revision")
        .or_else(|| status.pointer("/sync/revision"))
        .and_then(Value::as_str)?;
    let history = status.get("history")?.as_array()?;
    let mut entries: Vec<Entry<'_>> = history
        .iter()
        .filter_map(|raw| {
            Some(Entry { id: raw.get("id")?.as_i64()?, revision: raw.get("revision")?.as_str()?, raw })
        })
        .collect();
    entries.sort_by_key(|entry| entry.id);
    let last = entries.iter().rposition(|entry| entry.revision == revision)?;
    let first = entries[..last].iter().rposition(|entry| entry.revision != revision).map_or(0, |at| at + 1);
    Some((entries, first))
}

fn of_first(body: &Value, key: &str) -> Value {
    run(body).and_then(|(entries, first)| entries[first].raw.get(key).cloned()).unwrap_or_default()
}

/// The number of the deployment; null without a history of this revision.
pub(super) fn attempt(body: &Value) -> Value {
    run(body).map_or(Value::Null, |(entries, first)| Value::from(entries[first].id))
}

/// When it began.
pub(super) fn started(body: &Value) -> Value {
    of_first(body, "deployStartedAt")
}

/// When it was done.
pub(super) fn deployed(body: &Value) -> Value {
    of_first(body, "deployedAt")
}

/// `rollback` when the revision was deployed before the one that it replaced, else `normal`.
pub(super) fn kind(body: &Value) -> Value {
    let back = run(body).is_some_and(|(entries, first)| {
        entries[..first].iter().any(|entry| entry.revision == entries[first].revision)
    });
    Value::from(if back { "rollback" } else { "normal" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(revisions: &[&str], now: &str) -> Value {
        let history: Vec<Value> = revisions
            .iter()
            .enumerate()
            .map(|(id, revision)| json!({"id": id, "revision": revision}))
            .collect();
        attempt(&json!({"app": {"status": {"sync": {"revision": now}, "history": history}}}))
    }

    #[test]
    fn self_heal_is_the_same_deployment_and_a_roll_back_is_another() {
        assert_eq!(of(&["a", "b"], "b"), 1);
        assert_eq!(of(&["a", "b", "b", "b"], "b"), 1);
        assert_eq!(of(&["a", "b", "a"], "a"), 2);
        assert_eq!(of(&["a"], "c"), Value::Null);
        let back = json!({"status": {"sync": {"revision": "a"}, "history": [
            {"id": 3, "revision": "a", "deployedAt": "t3"}, {"id": 1, "revision": "a", "deployedAt": "t1"},
            {"id": 2, "revision": "b", "deployedAt": "t2"}, {"id": 4, "revision": "a", "deployedAt": "t4"}]}});
        assert_eq!(
            (kind(&back), deployed(&back), attempt(&back)),
            (json!("rollback"), json!("t3"), json!(3))
        );
        assert_eq!(attempt(&json!({})), Value::Null);
    }
}
