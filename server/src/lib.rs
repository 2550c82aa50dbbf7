//! The server: settings, start-up, intake, answers, the page.
//!
//! *In*: a settings file, contracts, HTTP requests. *Out*: answers about what the engine has
//! published. *Never*: a computation of a metric (engine), parsing of events (connectors).
//!
//! Modules in the order an event meets them: it is pushed ([`intake`]), its fate comes back with a
//! tick (`pulse`), its effect is asked for ([`answer`]).

pub mod app;
pub mod error;
pub mod hooks;
pub mod intake;
pub mod telemetry;

pub mod answer;

pub mod backfill;
pub mod cli;
pub mod reload;
pub mod serve;
pub mod settings;
pub mod sources;

pub mod checkpoints;
pub mod history;
pub mod lakepast;
mod laketicks;
pub mod pace;
mod pulse;
mod retention;
mod ring;
mod sampler;
pub mod second;

pub use app::{App, Limits, Live, Parts, ReloadState, SourceProbe, router};
pub use pulse::Hook;
