//! `lake:` - the long memory. Read and checked, but not running in this version.
//!
//! *In*: the section. *Out*: a notice. *Never*: a setting that is ignored in silence.

use super::read::{Report, Section, duration};

/// Reads the section; says so when it asks for what does not run yet.
pub fn read(root: &mut Section<'_>, report: &mut Report) {
    if !root.has("lake") {
        return;
    }
    let mut section = root.section("lake", report);
    let origin = section.origin().clone();
    section.choice("catalog", "sqlite", &[("sqlite", ()), ("rest", ())], report);
    section.value("warehouse", ("data/lake", ()), "a folder or URL", |_| Some(()), report);
    let every = std::time::Duration::from_secs(10);
    section.value("commit_every", ("10s", every), "a duration such as 10s", duration, report);
    section.done(report);
    report.notices.push(format!(
        "{origin}: `lake` is ignored: this version keeps events in the log and in Kafka only; \
         the lake comes with a later version"
    ));
}
