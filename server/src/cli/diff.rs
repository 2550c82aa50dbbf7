//! `streamgauge diff OLD NEW`: what a change of contracts means for readers and for state.
//!
//! *In*: two sets of contracts without mistakes. *Out*: each change with its class, its effect on state and
//! whether the version says so. *Never*: layout or comments as a change.

use std::collections::BTreeMap;

use contracts::{Change, Class, Effect};
use serde_json::json;

use super::exit::{Exit, Outcome};
use super::files;
use super::out::table;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 1 when a version is not raised far enough: a breaking change needs a new major one,\n\
    an addition a new minor one.\n\
    Example: streamgauge diff pack:commerce contracts/"
)]
pub struct Args {
    /// Folder, file or pack:NAME before the change
    old: String,
    /// The same after it
    new: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Compares two sets of contracts.
pub fn run(args: Args) -> Outcome {
    let (old, _) = files::catalog(&files::from_arguments(&[args.old])?)?;
    let (new, _) = files::catalog(&files::from_arguments(&[args.new])?)?;
    let changes = contracts::diff(&old, &new);
    let missing = changes.iter().filter(|c| !c.version_ok).count();
    let exit = if missing > 0 { Exit::Failed } else { Exit::Ok };
    // The same words as a reload says.
    let state: Vec<(String, Effect)> = contracts::StatePlan::new(&old, &new)
        .contracts(&new)
        .into_iter()
        .map(|(kind, name, effect)| (format!("{} {name}", kind.name().to_lowercase()), effect))
        .collect();
    if args.json {
        super::out::json(&json!({
            "ok": missing == 0,
            "breaking": changes.iter().filter(|c| c.class == Class::Breaking).count(),
            "version_missing": missing,
            "changes": changes,
            "state": state.iter().map(|(name, effect)| (name, effect)).collect::<BTreeMap<_, _>>(),
        }));
        return Ok(exit);
    }
    if changes.is_empty() {
        crate::say!("no change of meaning");
        return Ok(exit);
    }
    crate::say!(
        "{}",
        table(
            &["CONTRACT", "CHANGE", "MEANS", "STATE", "VERSION", ""],
            changes.iter().map(cells).collect(),
            &[]
        )
    );
    let of = |wanted: Effect| state.iter().filter(|(_, effect)| *effect == wanted).count();
    crate::say!(
        "state: {} kept, {} made again from what is kept or read (rebuild), {} decoded and admitted again (replay)",
        of(Effect::Keep),
        of(Effect::Rebuild),
        of(Effect::Replay)
    );
    if missing > 0 {
        eprintln!(
            "{} not raised far enough: a breaking change needs a new major version, an addition a new minor one",
            if missing == 1 { "1 version is" } else { "some versions are" }
        );
    }
    Ok(exit)
}

fn cells(change: &Change) -> Vec<String> {
    let class = match change.class {
        Class::Compatible => "compatible",
        Class::Breaking => "BREAKING",
    };
    let effect = match change.effect {
        Effect::Keep => "keep",
        Effect::Rebuild => "rebuild",
        Effect::Replay => "replay",
    };
    let version = if change.version_ok { "ok" } else { "raise it" };
    let place = if change.path.is_empty() {
        change.what.to_owned()
    } else {
        format!("{} {}", change.path, change.what)
    };
    vec![
        format!("{} {}", change.kind.name(), change.name),
        place,
        class.into(),
        effect.into(),
        version.into(),
        change.message.clone(),
    ]
}
