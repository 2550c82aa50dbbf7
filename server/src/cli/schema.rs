//! `streamgauge schema KIND`: the JSON Schema that editors complete and check with.
//!
//! *In*: a kind. *Out*: its JSON Schema. *Never*: a schema that is kept beside the code that reads the
//! document.

use super::exit::{Exit, Outcome};

/// A kind of document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// kind: Event
    Event,
    /// kind: Entity
    Entity,
    /// kind: Table
    Table,
    /// kind: Metric
    Metric,
    /// kind: Settings
    Settings,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Event, Kind::Entity, Kind::Table, Kind::Metric, Kind::Settings];

    /// The word on the command line and in file names.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Event => "event",
            Kind::Entity => "entity",
            Kind::Table => "table",
            Kind::Metric => "metric",
            Kind::Settings => "settings",
        }
    }
}

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: streamgauge schema metric > .schema/metric.v1.json\n\
    Then put this line on top of a contract: # yaml-language-server: $schema=.schema/metric.v1.json")]
pub struct Args {
    /// The kind; without it, one schema that takes any of them
    kind: Option<Kind>,
}

/// The schema of `kind`.
pub fn of(kind: Kind) -> serde_json::Value {
    match kind {
        Kind::Settings => crate::settings::keys::json_schema(),
        Kind::Event => contracts::json_schema(contracts::Kind::Event),
        Kind::Entity => contracts::json_schema(contracts::Kind::Entity),
        Kind::Table => contracts::json_schema(contracts::Kind::Table),
        Kind::Metric => contracts::json_schema(contracts::Kind::Metric),
    }
}

/// One schema that takes a document of any kind.
fn any() -> serde_json::Value {
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Streamgauge",
        "oneOf": Kind::ALL.map(of),
    })
}

/// Prints it.
pub fn run(args: Args) -> Outcome {
    let schema = args.kind.map_or_else(any, of);
    let text = serde_json::to_string_pretty(&schema).expect("a schema has text keys");
    crate::say!("{text}");
    Ok(Exit::Ok)
}
