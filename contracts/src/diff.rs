//! What a change of contracts means: who breaks, what is recomputed, whether the version says so.
//!
//! *In*: two catalogs. *Out*: [`Change`]s, per contract in order of kind and name. *Never*: layout or comments as
//! a change.

mod entity;
mod event;
mod metric;

use crate::catalog::{Catalog, Head, Status};
use crate::expr::{ListFold, Typed};
use crate::keep::StatePlan;
use crate::shape::Kind;

/// Whether readers and writers of the old contract get along with the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// They do.
    Compatible,
    /// They may not; needs a new major version.
    Breaking,
}

/// What becomes of the state that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It stays.
    Keep,
    /// It is folded anew, from history or from the rows of an entity that is kept. The events mean what they meant.
    Rebuild,
    /// Events are decoded and admitted anew, too.
    Replay,
}

/// One change of one contract.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// Kind of the contract.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What part: `fields.status.enum`; empty for the contract as a whole.
    pub path: String,
    /// Stable name of the change: `field_removed`, `enum_values_added`, ...
    pub what: &'static str,
    /// Whether it breaks somebody.
    pub class: Class,
    /// What becomes of the state.
    pub effect: Effect,
    /// The contract's version was raised far enough for this change: a new major for a breaking one, a new minor
    /// for an addition.
    pub version_ok: bool,
    /// One sentence.
    pub message: String,
}

/// How far a version must be raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    None,
    Minor,
    Major,
}

/// The changes of one contract as they are found.
struct Changes {
    kind: Kind,
    name: String,
    /// How far the version was raised.
    raised: Level,
    found: Vec<Change>,
}

impl Changes {
    fn add(
        &mut self,
        path: impl Into<String>,
        what: &'static str,
        (class, effect, level): Weight,
        message: impl Into<String>,
    ) {
        self.found.push(Change {
            kind: self.kind,
            name: self.name.clone(),
            path: path.into(),
            what,
            class,
            effect,
            version_ok: self.raised >= level,
            message: message.into(),
        });
    }
}

type Weight = (Class, Effect, Level);

/// Nobody notices: texts, budgets.
const QUIET: Weight = (Class::Compatible, Effect::Keep, Level::None);
/// A new thing that only the serving side sees.
const SHOWN: Weight = (Class::Compatible, Effect::Keep, Level::Minor);
/// A new thing that is computed from retained events.
const ADDED: Weight = (Class::Compatible, Effect::Rebuild, Level::Minor);
/// A new thing that must be decoded.
const DECODED: Weight = (Class::Compatible, Effect::Replay, Level::Minor);
/// Something is gone; the state of the rest stays.
const GONE: Weight = (Class::Breaking, Effect::Keep, Level::Major);
/// Numbers mean something else.
const CHANGED: Weight = (Class::Breaking, Effect::Rebuild, Level::Major);
/// Events mean something else.
const REREAD: Weight = (Class::Breaking, Effect::Replay, Level::Major);

/// The changes from `old` to `new`.
pub fn diff(old: &Catalog, new: &Catalog) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(pairs(Kind::Event, &old.events, &new.events, |e| &e.head, event::compare));
    changes.extend(pairs(
        Kind::Entity,
        &old.entities,
        &new.entities,
        |e| &e.head,
        |a, b, out| {
            entity::compare((old, a), (new, b), out);
        },
    ));
    changes.extend(pairs(
        Kind::Table,
        &old.tables,
        &new.tables,
        |t| &t.head,
        |a, b, out| {
            if a.key != b.key {
                out.add("key", "key_changed", REREAD, format!("the key was `{}`, is `{}`", a.key, b.key));
            }
            event::fields(&a.fields, &b.fields, out);
        },
    ));
    changes.extend(pairs(
        Kind::Metric,
        &old.metrics,
        &new.metrics,
        |m| &m.head,
        |a, b, out| {
            metric::compare((old, a), (new, b), out);
        },
    ));
    agree(&StatePlan::new(old, new), new, &mut changes);
    changes
}

/// What becomes of state is said once, for the whole contract: where its changes alone would say too much or too
/// little, they follow.
fn agree(plan: &StatePlan, new: &Catalog, changes: &mut Vec<Change>) {
    for (kind, name, effect) in plan.contracts(new) {
        let own = |change: &&mut Change| change.kind == kind && change.name == name;
        let most = changes.iter_mut().filter(own).map(|change| change.effect).max();
        match most {
            None if effect == Effect::Keep => {}
            None => {
                let mut told =
                    Changes { kind, name: name.to_owned(), raised: Level::Major, found: Vec::new() };
                told.add("", "dependency_changed", (Class::Compatible, effect, Level::None), BELOW);
                changes.append(&mut told.found);
            }
            Some(most) => {
                for change in changes.iter_mut().filter(own) {
                    change.effect = if most < effect { effect } else { change.effect.min(effect) };
                }
            }
        }
    }
    changes.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
}

/// Of a contract that says what it said.
const BELOW: &str = "what it is computed from has changed";

fn pairs<T>(
    kind: Kind,
    old: &[T],
    new: &[T],
    head: impl Fn(&T) -> &Head,
    compare: impl Fn(&T, &T, &mut Changes),
) -> Vec<Change> {
    let mut names: Vec<&str> = old.iter().chain(new).map(|item| head(item).name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut all = Vec::new();
    for name in names {
        let before = old.iter().find(|item| head(item).name == name);
        let after = new.iter().find(|item| head(item).name == name);
        let mut changes = Changes { kind, name: name.to_string(), raised: Level::Major, found: Vec::new() };
        match (before, after) {
            (Some(before), Some(after)) => {
                changes.raised = raised(head(before), head(after));
                heads(head(before), head(after), &mut changes);
                compare(before, after, &mut changes);
                if changes.found.is_empty() && head(before).hash != head(after).hash {
                    let weight = (Class::Compatible, Effect::Replay, Level::None);
                    changes.add("", "dependency_changed", weight, BELOW);
                }
            }
            (None, Some(_)) => changes.add("", "contract_added", ADDED, "the contract is new"),
            (Some(before), None) => {
                changes.add("", "contract_removed", GONE, "the contract is gone");
                // Deprecation is the notice; only then may it go.
                let announced = head(before).status == Status::Deprecated;
                changes.found.iter_mut().for_each(|change| change.version_ok = announced);
            }
            (None, None) => {}
        }
        all.append(&mut changes.found);
    }
    all
}

/// How far the version was raised; below 1.0.0 a new minor is as good as a major.
fn raised(old: &Head, new: &Head) -> Level {
    let ((a, b, _), (x, y, _)) = (old.version, new.version);
    if x > a {
        Level::Major
    } else if x == a && y > b {
        if a == 0 { Level::Major } else { Level::Minor }
    } else {
        Level::None
    }
}

fn heads(old: &Head, new: &Head, out: &mut Changes) {
    if new.version < old.version {
        let text = |v: (u64, u64, u64)| format!("{}.{}.{}", v.0, v.1, v.2);
        let message = format!("the version went back from {} to {}", text(old.version), text(new.version));
        out.add("version", "version_lowered", (Class::Breaking, Effect::Keep, Level::Minor), message);
    }
    if old.status != new.status {
        let message = format!("the status was {:?}, is {:?}", old.status, new.status).to_lowercase();
        out.add("status", "status_changed", QUIET, message);
    }
    if old.title != new.title || old.description != new.description {
        out.add("description", "description_changed", QUIET, "title or description changed");
    }
    if old.team != new.team || old.contact != new.contact {
        out.add("owner", "owner_changed", QUIET, "the owner changed");
    }
}

/// Same meaning, whatever the spelling.
fn same(a: &Typed, b: &Typed) -> bool {
    let lists = |a: &[ListFold], b: &[ListFold]| {
        a.len() == b.len()
            && a.iter().zip(b).all(|(a, b)| {
                a.fold == b.fold
                    && a.list == b.list
                    && match (&a.item, &b.item) {
                        (Some(a), Some(b)) => same(a, b),
                        (None, None) => true,
                        _ => false,
                    }
            })
    };
    a.ty == b.ty && (a.expr == b.expr || a.sql.trim() == b.sql.trim()) && lists(&a.lists, &b.lists)
}

/// Same meaning of expressions that may be missing.
fn same_option(a: Option<&Typed>, b: Option<&Typed>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// `a` for people; `nothing` where there is none.
fn shown<T: std::fmt::Display>(a: Option<T>) -> String {
    a.map_or_else(|| "nothing".to_string(), |a| format!("`{a}`"))
}
