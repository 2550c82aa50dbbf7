//! Changes of an event.
//!
//! *In*: two versions. *Out*: changes. *Never*: other contracts.

use std::sync::Arc;

use crate::catalog::{Checks, Event, Field, Severity};
use crate::duration::format_duration;
use crate::value::Value;

use super::{ADDED, CHANGED, Changes, Class, DECODED, Effect, GONE, Level, QUIET, REREAD, same, shown};

/// Compares two versions of an event.
pub(super) fn compare(old: &Arc<Event>, new: &Arc<Event>, out: &mut Changes) {
    let key = |event: &Event| (!event.key.is_empty()).then(|| event.key.join(", "));
    for (path, what, a, b) in [
        ("key", "key_changed", &key(old), &key(new)),
        ("time", "time_changed", &old.time, &new.time),
        ("id", "id_changed", &old.id, &new.id),
    ] {
        if a != b {
            let message = format!("`{path}` was {}, is {}", shown(a.as_ref()), shown(b.as_ref()));
            out.add(path, what, REREAD, message);
        }
    }
    if old.dedupe != new.dedupe {
        let (a, b) = (format_duration(old.dedupe), format_duration(new.dedupe));
        let weight = (Class::Compatible, Effect::Replay, Level::Minor);
        out.add("dedupe", "dedupe_changed", weight, format!("ids were remembered {a}, now {b}"));
    }
    fields(&old.fields, &new.fields, out);
    rules(old, new, out);
    enrich(old, new, out);
}

/// Compares declared fields.
pub(super) fn fields(old: &[Field], new: &[Field], out: &mut Changes) {
    for a in old {
        let path = format!("fields.{}", a.name);
        match new.iter().find(|b| b.name == a.name) {
            None => out.add(path, "field_removed", GONE, format!("the field `{}` is gone", a.name)),
            Some(b) => field(&path, a, b, out),
        }
    }
    for b in new.iter().filter(|b| !old.iter().any(|a| a.name == b.name)) {
        let path = format!("fields.{}", b.name);
        if b.required && b.default.is_none() {
            let message = format!("the new field `{}` is required: old events lack it", b.name);
            out.add(path, "field_required_added", REREAD, message);
        } else {
            out.add(path, "field_added", DECODED, format!("the field `{}` is new", b.name));
        }
    }
}

fn field(path: &str, a: &Field, b: &Field, out: &mut Changes) {
    if a.ty != b.ty {
        let message = format!("the type was {}, is {}", a.ty, b.ty);
        out.add(format!("{path}.type"), "field_type_changed", REREAD, message);
        return;
    }
    if a.path != b.path {
        let message = format!("it was read from `{}`, now from `{}`", a.path.join("."), b.path.join("."));
        out.add(format!("{path}.from"), "field_path_changed", REREAD, message);
    }
    let must = |f: &Field| f.required && f.default.is_none();
    if must(a) != must(b) {
        let path = format!("{path}.required");
        if must(b) {
            out.add(path, "field_became_required", REREAD, "events without it are now refused");
        } else {
            out.add(path, "field_became_optional", DECODED, "events without it are now admitted");
        }
    }
    if a.default != b.default {
        let what = if a.default.is_none() { "field_default_added" } else { "field_default_changed" };
        let weight = if a.default.is_none() { DECODED } else { REREAD };
        let text = |v: &Option<Value>| shown(v.as_ref().map(|v| v.to_json(None)));
        let message = format!("the default was {}, is {}", text(&a.default), text(&b.default));
        out.add(format!("{path}.default"), what, weight, message);
    }
    if a.pii != b.pii {
        let message = if b.pii { "it is now masked" } else { "it is no longer masked" };
        out.add(format!("{path}.pii"), "pii_changed", QUIET, message);
    }
    checks(path, &a.checks, &b.checks, out);
    for nested in &b.nested {
        let path = format!("{path}.{}", nested.path.join("."));
        match a.nested.iter().find(|n| n.path == nested.path) {
            None => {}
            Some(before) => {
                if before.required != nested.required {
                    let (what, weight) = match nested.required {
                        true => ("field_became_required", REREAD),
                        false => ("field_became_optional", DECODED),
                    };
                    out.add(format!("{path}.required"), what, weight, "inside the items");
                }
                checks(&path, &before.checks, &nested.checks, out);
            }
        }
    }
}

fn checks(path: &str, a: &Checks, b: &Checks, out: &mut Changes) {
    enumeration(path, a, b, out);
    if a.pattern != b.pattern {
        let weight = if b.pattern.is_none() { DECODED } else { REREAD };
        let message =
            format!("the pattern was {}, is {}", shown(a.pattern.as_ref()), shown(b.pattern.as_ref()));
        out.add(format!("{path}.pattern"), "pattern_changed", weight, message);
    }
    let number = |v: Option<u64>| v.map(|v| Value::Int(i64::try_from(v).unwrap_or(i64::MAX)));
    let bounds = [
        ("min", a.min.clone(), b.min.clone(), true),
        ("max", a.max.clone(), b.max.clone(), false),
        ("min_length", number(a.min_length), number(b.min_length), true),
        ("max_length", number(a.max_length), number(b.max_length), false),
    ];
    for (key, before, after, least) in bounds {
        if before == after {
            continue;
        }
        let wider = match (&before, &after) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(before), Some(after)) => (after < before) == least,
        };
        let (what, weight) = if wider { ("check_widened", DECODED) } else { ("check_narrowed", REREAD) };
        let text = |v: &Option<Value>| shown(v.as_ref().map(|v| v.to_json(None)));
        let message = format!("`{key}` was {}, is {}", text(&before), text(&after));
        out.add(format!("{path}.{key}"), what, weight, message);
    }
}

fn enumeration(path: &str, a: &Checks, b: &Checks, out: &mut Changes) {
    let path = format!("{path}.enum");
    match (&a.one_of, &b.one_of) {
        (None, Some(_)) => {
            out.add(path, "enum_added", REREAD, "other texts are now refused");
        }
        (Some(_), None) => out.add(path, "enum_removed", DECODED, "every text is now admitted"),
        (Some(before), Some(after)) => {
            let missing = |from: &[String], of: &[String]| {
                let gone: Vec<&str> = from.iter().filter(|w| !of.contains(w)).map(String::as_str).collect();
                gone.join(", ")
            };
            let (gone, new) = (missing(before, after), missing(after, before));
            if !gone.is_empty() {
                let message = format!("no longer allowed: {gone}");
                out.add(path.clone(), "enum_values_removed", REREAD, message);
            }
            if !new.is_empty() {
                out.add(path, "enum_values_added", DECODED, format!("now allowed: {new}"));
            }
        }
        (None, None) => {}
    }
}

fn rules(old: &Event, new: &Event, out: &mut Changes) {
    for a in &old.rules {
        let path = format!("rules.{}", a.name);
        let Some(b) = new.rules.iter().find(|b| b.name == a.name) else {
            let weight = if a.severity == Severity::Error { DECODED } else { QUIET };
            out.add(path, "rule_removed", weight, format!("the rule `{}` is gone", a.name));
            continue;
        };
        if !same(&a.check, &b.check) {
            let weight = if b.severity == Severity::Error { REREAD } else { QUIET };
            let message = format!("the check was `{}`, is `{}`", a.check.sql, b.check.sql);
            out.add(path.clone(), "rule_changed", weight, message);
        }
        if a.severity != b.severity {
            let weight = if b.severity == Severity::Error { REREAD } else { DECODED };
            let message = format!("the severity was {:?}, is {:?}", a.severity, b.severity);
            out.add(format!("{path}.severity"), "severity_changed", weight, message.to_lowercase());
        }
    }
    for b in new.rules.iter().filter(|b| !old.rules.iter().any(|a| a.name == b.name)) {
        let weight = if b.severity == Severity::Error { REREAD } else { QUIET };
        let message = format!("the rule `{}` is new", b.name);
        out.add(format!("rules.{}", b.name), "rule_added", weight, message);
    }
}

fn enrich(old: &Event, new: &Event, out: &mut Changes) {
    for a in &old.enrich {
        let path = format!("enrich.{}", a.name);
        match new.enrich.iter().find(|b| b.name == a.name) {
            None => out.add(path, "column_removed", GONE, format!("the column `{}` is gone", a.name)),
            Some(b) if !same(&a.expr, &b.expr) => {
                let message = format!("it was `{}`, is `{}`", a.expr.sql, b.expr.sql);
                out.add(path, "column_changed", CHANGED, message);
            }
            Some(_) => {}
        }
    }
    for b in new.enrich.iter().filter(|b| !old.enrich.iter().any(|a| a.name == b.name)) {
        let message = format!("the column `{}` is new", b.name);
        out.add(format!("enrich.{}", b.name), "column_added", ADDED, message);
    }
}
