//! Settings: `streamgauge.yaml`, the environment over it, defaults under it.
//!
//! *In*: a file, the variables of the process. *Out*: [`Settings`], or every mistake of the run with its
//! place; and the effective settings with where each came from. *Never*: a secret in clear, a guess.
//!
//! One file per part: what the part has, its defaults, its checks.

pub mod audit;
pub mod auth;
pub mod env;
pub mod hook;
pub mod keeping;
pub mod keys;
pub mod lake;
pub mod limits;
pub mod read;
pub mod secret;
pub mod server;
pub mod source;
pub mod stream;
pub mod tree;

use std::path::{Path, PathBuf};

use contracts::diagnostic::Diagnostic;
use contracts::text::SourceFile;

pub use audit::Audit;
pub use hook::{HookKind, HookSettings};
pub use keeping::Keeping;
pub use lake::Lake;
pub use limits::Limits;
pub use read::Effective;
use read::{Report, Section};
pub use server::Server;
pub use source::{Envelope, Format, Kafka, Source, Start, Transport};
use tree::{Node, Origin};

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "streamgauge.yaml";

/// All settings of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where contracts come from, in order.
    pub contracts: Vec<ContractSource>,
    /// The data folder: log, dead letters.
    pub data: PathBuf,
    /// Dataflow threads.
    pub workers: usize,
    /// HTTP.
    pub server: Server,
    /// At least one of them takes pushed events.
    pub sources: Vec<Source>,
    /// The lake.
    pub lake: Lake,
    /// Bounds.
    pub limits: Limits,
    /// The second truth.
    pub audit: Audit,
    /// Checkpoints.
    pub checkpoints: Keeping,
}

/// Where contracts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContractSource {
    /// A folder (all `.yaml` and `.yml` below it) or a file.
    Path(PathBuf),
    /// `pack:NAME`: contracts that come with the program.
    Pack(String),
}

/// What relative paths are relative to.
#[derive(Debug, Clone)]
pub struct Base {
    folder: PathBuf,
}

impl Base {
    /// Paths in a file are relative to its folder; paths in the environment to the working folder.
    pub fn resolve(&self, text: &str, origin: &Origin) -> PathBuf {
        match origin {
            Origin::Env(_) => PathBuf::from(text),
            Origin::Default | Origin::File { .. } => self.folder.join(text),
        }
    }
}

/// What loading yields, mistakes or not.
#[derive(Debug)]
pub struct Loaded {
    /// Only without mistakes.
    pub settings: Option<Settings>,
    /// All of them.
    pub mistakes: Vec<Diagnostic>,
    /// Things to know that stop nothing.
    pub notices: Vec<String>,
    /// Every setting with its value and origin.
    pub effective: Vec<Effective>,
    /// The text, for showing mistakes in their place.
    pub file: SourceFile,
}

/// The names of the top-level settings.
pub const TOP: &[&str] = &[
    "apiVersion",
    "kind",
    "contracts",
    "data",
    "workers",
    "server",
    "sources",
    "lake",
    "auth",
    "limits",
    "audit",
    "checkpoints",
];

/// Reads `path` and the environment. The error is the operating system's when the file cannot be read.
pub fn load(path: &Path) -> std::io::Result<Loaded> {
    let text = std::fs::read_to_string(path)?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(load_text(&path.to_string_lossy(), &text, &folder, std::env::vars()))
}

/// Reads settings from text, as if it stood in `folder`.
pub fn load_text(
    file: &str,
    text: &str,
    folder: &Path,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Loaded {
    let file = SourceFile::new(file, text);
    let mut report = Report::default();
    let (mut documents, mistakes) = tree::parse(&file);
    report.mistakes.extend(mistakes);
    if documents.len() > 1 {
        let at = documents[1].origin.clone();
        report.mistake(
            "second_document",
            &at,
            "a settings file holds one document",
            "contracts go to a file of their own, in a folder named under `contracts:`",
        );
    }
    let mut root = if documents.is_empty() { env::empty() } else { documents.swap_remove(0) };
    let (notices, broken) = env::overlay(&mut root, variables, TOP);
    report.notices.extend(notices);
    report.mistakes.extend(broken);
    let settings = read(&root, &Base { folder: folder.to_path_buf() }, &mut report);
    report.mistakes.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Loaded {
        settings: report.mistakes.is_empty().then_some(settings),
        mistakes: report.mistakes,
        notices: report.notices,
        effective: report.effective,
        file,
    }
}

fn read(root: &Node, base: &Base, report: &mut Report) -> Settings {
    let mut section = Section::open("", Some(root), report);
    read_head(&mut section, report);
    let contracts = read_contracts(&mut section, base, report);
    let data_at = section.node("data").map_or(Origin::Default, |node| node.origin.clone());
    let data =
        section.value("data", ("data/", "data/".to_owned()), "a folder", |t| Some(t.to_owned()), report);
    let workers = section.value(
        "workers",
        ("1", 1),
        "a whole number from 1 to 256",
        |text| read::whole(text).and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=256).contains(n)),
        report,
    );
    let server = Server::read(&mut section, report);
    let sources = source::read(&mut section, base, server.listen.ip().is_loopback(), report);
    let lake = Lake::read(&mut section, base, report);
    auth::read(&mut section, (server.listen, &server.listen_origin), report);
    let limits = Limits::read(&mut section, report);
    let audit = Audit::read(&mut section, report);
    let checkpoints = Keeping::read(&mut section, base, report);
    section.done(report);
    let data = base.resolve(&data, &data_at);
    Settings { contracts, data, workers, server, sources, lake, limits, audit, checkpoints }
}

fn read_head(section: &mut Section<'_>, report: &mut Report) {
    for (key, wanted) in [("apiVersion", "streamgauge/v1"), ("kind", "Settings")] {
        match section.text(key, report) {
            Some((text, at)) if text != wanted => {
                let mistake =
                    at.error("not_allowed", format!("`{key}` is `{text}`, but settings need `{wanted}`"));
                report.mistakes.push(mistake.fix(format!("{key}: {wanted}")));
            }
            None if matches!(section.origin(), Origin::File { .. }) => {
                let at = section.origin().clone();
                report.mistake("missing", &at, format!("`{key}` is missing"), format!("{key}: {wanted}"));
            }
            _ => {}
        }
    }
}

fn read_contracts(section: &mut Section<'_>, base: &Base, report: &mut Report) -> Vec<ContractSource> {
    let texts = section.texts("contracts", &["contracts/"], report);
    let mut sources = Vec::new();
    for (text, at) in texts {
        let Some(name) = text.strip_prefix("pack:") else {
            let path = base.resolve(&text, &at);
            if !path.exists() {
                let at = if at == Origin::Default { section.origin() } else { &at };
                let fix = "make it, or name an existing folder, file or pack:NAME under `contracts:`";
                report.mistake(
                    "no_such_path",
                    at,
                    format!("`contracts`: there is no `{}`", path.display()),
                    fix,
                );
            }
            sources.push(ContractSource::Path(path));
            continue;
        };
        if contracts::pack(name).is_none() {
            let mistake = at.error("unknown_pack", format!("there is no pack `{name}`"));
            report.mistakes.push(mistake.names(name, contracts::pack::pack_names()));
        }
        sources.push(ContractSource::Pack(name.to_owned()));
    }
    sources
}

#[cfg(test)]
mod tests;
