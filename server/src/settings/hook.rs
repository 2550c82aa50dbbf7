//! `hook:` of a source - webhooks, and the secret that proves who sent them.
//!
//! *In*: the section. *Out*: [`HookSettings`]. *Never*: a secret in the file, a hook that takes anything from
//! anybody on an address that others can reach.

use std::sync::Arc;
use std::time::Duration;

use connectors::decode::adapt::{Adapter, adapter};
use contracts::text::SourceFile;

use super::read::{Report, Section, duration};
use super::secret::{self, Secret};

/// Whose webhooks a source takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names of products.
pub enum HookKind {
    GitHub,
    GitLab,
    Jenkins,
    ArgoCd,
    PagerDuty,
    IncidentIo,
    Opsgenie,
    Sentry,
    Jira,
    Linear,
    CdEvents,
    Slack,
    /// Standard Webhooks of any sender.
    Standard,
    /// Any sender that shows a shared secret.
    Token,
}

/// Names in settings.
pub const KINDS: [(&str, HookKind); 14] = [
    ("github", HookKind::GitHub),
    ("gitlab", HookKind::GitLab),
    ("jenkins", HookKind::Jenkins),
    ("argocd", HookKind::ArgoCd),
    ("pagerduty", HookKind::PagerDuty),
    ("incidentio", HookKind::IncidentIo),
    ("opsgenie", HookKind::Opsgenie),
    ("sentry", HookKind::Sentry),
    ("jira", HookKind::Jira),
    ("linear", HookKind::Linear),
    ("cdevents", HookKind::CdEvents),
    ("slack", HookKind::Slack),
    ("standard", HookKind::Standard),
    ("token", HookKind::Token),
];

impl HookKind {
    /// Its name in settings, and that of its adapter.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// `hook:` of a source.
#[derive(Debug, Clone)]
pub struct HookSettings {
    /// Whose webhooks.
    pub kind: HookKind,
    /// The secrets that hold, the newest first; none with `verify: none`.
    pub secrets: Vec<Secret>,
    /// How old a delivery may be, where the scheme signs its time.
    pub tolerance: Duration,
    /// What makes canonical events of deliveries: the file that is named, else the one that comes with the
    /// program for this kind; `None`: the source's format and envelope do.
    pub adapter: Option<Arc<Adapter>>,
}

/// Secrets at the same time: the new one, the old one, and room for a mistake.
const MAX_SECRETS: usize = 4;
/// Beyond a day a replay window is none.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Reads the section. `loopback`: nobody else can reach the server.
pub fn read(
    section: &mut Section<'_>,
    base: &super::Base,
    loopback: bool,
    report: &mut Report,
) -> Option<HookSettings> {
    let before = report.mistakes.len();
    let mut inner = section.section("hook", report);
    let origin = inner.origin().clone();
    if inner.node("kind").is_none() {
        let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
        let fix = format!("one of {}", names.join(", "));
        report.mistake("missing", &origin, "`hook` needs a `kind`", fix);
    }
    let kind = inner.choice("kind", "standard", &KINDS, report);
    let secrets = secret::read_hook(&mut inner, base, report);
    let tolerance = inner.value(
        "tolerance",
        ("5m", Duration::from_secs(300)),
        "a duration from 1s to 24h",
        |text| duration(text).filter(|time| *time >= Duration::from_secs(1) && *time <= LONGEST),
        report,
    );
    let signed = inner.choice("verify", "signature", &[("signature", true), ("none", false)], report);
    let adapter = match read_adapter(&mut inner, base, report) {
        Some(own) => Some(own),
        None => adapter(kind.name()),
    };
    inner.done(report);
    match (signed, secrets.is_empty()) {
        (true, true) if report.mistakes.len() == before => report.mistake(
            "hook_without_secret",
            &origin,
            "a hook without a secret would take events from anybody",
            "name the secret: `secret_env: GITHUB_WEBHOOK_SECRET` or `secret_file: /run/secrets/github`",
        ),
        (false, false) => report.mistake(
            "not_allowed",
            &origin,
            "`verify: none` and a secret exclude each other",
            "leave `verify` out",
        ),
        (false, true) if !loopback => report.mistake(
            "open_on_network",
            &origin,
            "`verify: none` takes events from anybody, and others can reach `server.listen`",
            "give the hook a secret, or listen on 127.0.0.1",
        ),
        _ => {}
    }
    if secrets.len() > MAX_SECRETS {
        let message = format!("a hook has at most {MAX_SECRETS} secrets at the same time");
        report.mistake("not_allowed", &origin, message, "keep the new and the old one");
    }
    let settings = HookSettings { kind, secrets, tolerance, adapter };
    if report.mistakes.len() == before
        && let Err(problem) = crate::hooks::Webhook::new(&settings)
    {
        report.mistake(
            "not_allowed",
            &origin,
            format!("a secret of this hook cannot be used: {problem}"),
            "",
        );
    }
    (report.mistakes.len() == before).then_some(settings)
}

/// `adapter:`, a file of the user's own.
fn read_adapter(section: &mut Section<'_>, base: &super::Base, report: &mut Report) -> Option<Arc<Adapter>> {
    let (text, at) = section.text("adapter", report)?;
    section.effective("adapter", &text, &at, report);
    let path = base.resolve(&text, &at);
    match std::fs::read_to_string(&path) {
        Ok(yaml) => match Adapter::read(&SourceFile::new(path.to_string_lossy(), yaml)) {
            Ok(adapter) => return Some(Arc::new(adapter)),
            Err(mistakes) => report.mistakes.extend(mistakes),
        },
        Err(error) => {
            let message = format!("`adapter`: {} cannot be read: {error}", path.display());
            report.mistake(
                "no_such_path",
                &at,
                message,
                "name a YAML file as docs/reference/adapters.md describes it",
            );
        }
    }
    None
}
