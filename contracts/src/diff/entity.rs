//! Changes of an entity.
//!
//! *In*: two versions with their catalogs. *Out*: changes. *Never*: rows.

use std::sync::Arc;

use crate::catalog::{Catalog, Entity, EntityFeed};

use super::{ADDED, CHANGED, Changes, GONE, QUIET, same_option};

/// Compares two versions of an entity.
pub(super) fn compare(
    (old, a): (&Catalog, &Arc<Entity>),
    (new, b): (&Catalog, &Arc<Entity>),
    out: &mut Changes,
) {
    if a.key != b.key {
        out.add("key", "key_changed", CHANGED, format!("the key was `{}`, is `{}`", a.key, b.key));
    }
    let name = |catalog: &Catalog, feed: &EntityFeed| catalog.events[feed.event].head.name.clone();
    let before: Vec<String> = a.feeds.iter().map(|feed| name(old, feed)).collect();
    let after: Vec<String> = b.feeds.iter().map(|feed| name(new, feed)).collect();
    for event in before.iter().filter(|event| !after.contains(event)) {
        out.add("events", "event_removed", CHANGED, format!("`{event}` no longer moves it"));
    }
    for event in after.iter().filter(|event| !before.contains(event)) {
        out.add("events", "event_added", CHANGED, format!("`{event}` now moves it"));
    }
    for (index, field) in a.fields.iter().enumerate() {
        let path = format!("fields.{}", field.name);
        let Some(at) = b.fields.iter().position(|f| f.name == field.name) else {
            out.add(path, "field_removed", GONE, format!("the field `{}` is gone", field.name));
            continue;
        };
        let other = &b.fields[at];
        if field.ty != other.ty {
            let message = format!("the type was {}, is {}", field.ty, other.ty);
            out.add(format!("{path}.type"), "field_type_changed", CHANGED, message);
        } else if field.fold != other.fold {
            let message = format!("the fold was {:?}, is {:?}", field.fold, other.fold);
            out.add(path, "field_changed", CHANGED, message.to_lowercase());
        } else {
            let differs = a.feeds.iter().zip(&before).any(|(feed, event)| {
                let twin = after.iter().position(|e| e == event).map(|i| &b.feeds[i]);
                twin.is_some_and(|twin| !same_option(feed.values[index].as_ref(), twin.values[at].as_ref()))
            });
            if differs {
                let message = format!("the field `{}` follows its events differently", field.name);
                out.add(path, "field_changed", CHANGED, message);
            }
        }
    }
    for field in b.fields.iter().filter(|f| !a.fields.iter().any(|g| g.name == f.name)) {
        let message = format!("the field `{}` is new", field.name);
        out.add(format!("fields.{}", field.name), "field_added", ADDED, message);
    }
    if a.history != b.history {
        let message = format!("{} events were remembered per key, now {}", a.history, b.history);
        out.add("history", "history_changed", QUIET, message);
    }
}
