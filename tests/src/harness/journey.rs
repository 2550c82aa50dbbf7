//! Journeys: text in, text out.
//!
//! *In*: a file with contracts, a log of events and questions. *Out*: the answers as text, by a road.
//! *Never*: an answer that only one road gives.
//!
//! A file has three sections. `=== contracts`: YAML. `=== journey`: one step per line:
//!
//! ```text
//! @clock 2026-03-02T10:00:00Z        the clock moves; records are received at the clock
//! @received 2026-03-02T09:59:00Z     records are received then instead, until the next @clock
//! {"type": "order", ...}             a record of partition 0; `1 {...}` of partition 1
//! ask revenue hour by region at 2026-03-02T09:00:00Z where region = 'eu'
//! entity order ORD-1 at 2026-03-02T09:00:00Z
//! lost revenue                       rows that are not counted, by reason
//! counts
//! refused
//! ```
//!
//! `=== answers`: what each question must give; written anew by `UPDATE=1`.

use std::fmt::Write as _;
use std::sync::{Arc, PoisonError};

use engine::{MetricQuery, Published};

use super::compare::compare;
use super::second::differences;
use super::{Rig, catalog, envelope};
use crate::oracle::admit::Raw;
use crate::oracle::val::instant;
use crate::oracle::zone::parse_instant;
use crate::oracle::{Oracle, Val};

/// A journey.
#[derive(Debug, Clone)]
pub struct Journey {
    /// YAML.
    pub contracts: String,
    /// The section as written.
    pub text: String,
    /// The steps.
    pub steps: Vec<Step>,
    /// Expected answers.
    pub answers: String,
}

/// One line of a journey.
#[derive(Debug, Clone)]
pub enum Step {
    /// The clock moves.
    Clock(i64),
    /// A record arrives.
    Record(Raw),
    /// A question, as written.
    Question(String),
}

/// How the records reach the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// One worker, one chunk between two other steps.
    Straight,
    /// Two workers, random cuts.
    Cut(u64),
    /// Stopped before this step, started again with four workers from the beginning of the log.
    Restart(usize),
    /// Two workers; lost before this step, three others go on from a checkpoint.
    Lost(usize),
}

const PARTITIONS: usize = 4;

/// Questions per metric that are recomputed at each step that asks.
const FEW: usize = 2;

impl Journey {
    /// Reads a file.
    pub fn parse(file: &str) -> Journey {
        let section = |name: &str| {
            let head = format!("=== {name}\n");
            let start = file.find(&head).unwrap_or_else(|| panic!("no section {name}")) + head.len();
            let end = file[start..].find("\n=== ").map_or(file.len(), |at| start + at + 1);
            file[start..end].to_string()
        };
        let text = section("journey");
        Journey { contracts: section("contracts"), steps: steps(&text), text, answers: section("answers") }
    }

    /// The file with these answers.
    pub fn with_answers(&self, answers: &str) -> String {
        format!("=== contracts\n{}=== journey\n{}=== answers\n{answers}", self.contracts, self.text)
    }

    /// The answers by a road; questions that a restart jumps over are left out.
    pub fn run(&self, road: Road) -> Result<String, String> {
        let catalog = catalog(&self.contracts)?;
        let workers = match road {
            Road::Straight => 1,
            Road::Cut(_) | Road::Lost(_) => 2,
            Road::Restart(_) => 4,
        };
        let mut rng = fastrand::Rng::with_seed(if let Road::Cut(seed) = road { seed } else { 0 });
        let mut rig = Rig::start(&catalog, workers, PARTITIONS, &[], self.start())?;
        let mut waiting: Vec<&Raw> = Vec::new();
        let mut log: Vec<(Raw, i64)> = Vec::new();
        let mut now = self.start();
        let mut out = String::new();
        for (i, step) in self.steps.iter().enumerate() {
            if road == Road::Restart(i) {
                flush(&mut rig, &mut waiting, None);
                rig.stop();
                rig = Rig::start(&catalog, workers, PARTITIONS, &[], now)?;
                log.iter().for_each(|(raw, _)| rig.send(&[raw]));
                out.clear();
            }
            if road == Road::Lost(i) {
                flush(&mut rig, &mut waiting, None);
                let saved = rig.checkpoint()?;
                let before: Vec<&Raw> = log.iter().map(|(raw, _)| raw).collect();
                rig = rig.restart(3, saved, &before)?;
            }
            match step {
                Step::Clock(to) => {
                    flush(&mut rig, &mut waiting, Some(&mut rng));
                    // Records sent before the clock moves are folded before it moves.
                    rig.published();
                    now = *to;
                    rig.clock(now);
                }
                Step::Record(raw) => {
                    waiting.push(raw);
                    log.push((raw.clone(), now));
                }
                Step::Question(question) => {
                    flush(&mut rig, &mut waiting, (road != Road::Straight).then_some(&mut rng));
                    let published = rig.published();
                    let mut oracle = Oracle::new(&self.contracts, &envelope(), &log, now);
                    let instants: Vec<i64> = at(question).into_iter().collect();
                    let found = compare(&mut oracle, &published, &instants);
                    if let Some(first) = found.first() {
                        return Err(format!("`{question}`, the oracle differs: {first}"));
                    }
                    if road == Road::Straight {
                        let kept = rig.told.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        let few = (FEW, &mut rng);
                        if let Some(first) = differences(&published, &kept, &instants, few).first() {
                            return Err(format!("`{question}`, the second truth differs: {first}"));
                        }
                    }
                    let _ = write!(out, "{question}\n{}", answer(question, &published, &rig));
                }
            }
        }
        rig.stop();
        Ok(out)
    }

    /// The first instant of the clock.
    fn start(&self) -> i64 {
        let clock = |step: &Step| if let Step::Clock(to) = step { Some(*to) } else { None };
        self.steps.iter().find_map(clock).expect("a journey sets the clock first")
    }

    /// The first question at or after step `from`, and the answers from there on.
    pub fn answers_from(&self, from: usize) -> String {
        let skipped = self.steps[..from].iter().filter(|s| matches!(s, Step::Question(_))).count();
        let questions: Vec<&String> = self
            .steps
            .iter()
            .filter_map(|s| if let Step::Question(q) = s { Some(q) } else { None })
            .collect();
        let mut lines = self.answers.lines().peekable();
        for _ in 0..skipped {
            lines.next();
            while lines.peek().is_some_and(|line| line.starts_with(' ')) {
                lines.next();
            }
        }
        debug_assert!(skipped <= questions.len());
        lines.map(|line| format!("{line}\n")).collect()
    }
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut received = 0;
    let mut offsets = [0i64; PARTITIONS];
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(at) = line.strip_prefix("@clock ") {
            received = moment(at);
            steps.push(Step::Clock(received));
        } else if let Some(at) = line.strip_prefix("@received ") {
            received = moment(at);
        } else if ["ask ", "entity ", "lost "].iter().any(|word| line.starts_with(word))
            || ["counts", "refused"].contains(&line)
        {
            steps.push(Step::Question(line.to_string()));
        } else {
            let (partition, payload) = match line.split_once(' ') {
                Some((number, rest)) if number.len() == 1 => match number.parse::<usize>() {
                    Ok(number) => (number, rest),
                    Err(_) => (0, line),
                },
                _ => (0, line),
            };
            let offset = offsets[partition];
            offsets[partition] += 1;
            steps.push(Step::Record(Raw {
                partition,
                offset,
                received,
                payload: payload.as_bytes().to_vec(),
                key: None,
                table: None,
            }));
        }
    }
    steps
}

fn moment(text: &str) -> i64 {
    parse_instant(text.trim()).unwrap_or_else(|| panic!("`{text}` is no instant"))
}

/// Sends what waits: at once, or cut at random places.
fn flush(rig: &mut Rig, waiting: &mut Vec<&Raw>, mut rng: Option<&mut fastrand::Rng>) {
    let mut chunk: Vec<&Raw> = Vec::new();
    for raw in waiting.drain(..) {
        let cut = rng.as_mut().is_some_and(|rng| rng.bool());
        if chunk.first().is_some_and(|first| first.partition != raw.partition) || cut {
            rig.send(&chunk);
            chunk.clear();
        }
        chunk.push(raw);
    }
    rig.send(&chunk);
}

/// The instant after ` at `.
fn at(question: &str) -> Option<i64> {
    let rest = &question[question.find(" at ")? + 4..];
    Some(moment(rest.split_whitespace().next()?))
}

fn answer(question: &str, published: &Arc<Published>, rig: &Rig) -> String {
    let words: Vec<&str> = question.split_whitespace().collect();
    match words[0] {
        "ask" => ask(question, &words, published),
        "entity" => entity(question, &words, published),
        "lost" => lost(&words, published),
        "counts" => counts(published),
        _ => {
            let refused = rig.told.refused.lock().unwrap_or_else(PoisonError::into_inner);
            let line = |(at, row): (&(i32, i64, u32), &contracts::batch::Refused)| {
                let reasons: Vec<String> = row
                    .reasons
                    .iter()
                    .map(
                        |r| if r.path.is_empty() { r.code.clone() } else { format!("{} {}", r.code, r.path) },
                    )
                    .collect();
                format!("  {}/{}/{} {}\n", at.0, at.1, at.2, reasons.join(", "))
            };
            refused.iter().map(line).collect()
        }
    }
}

fn ask(question: &str, words: &[&str], published: &Published) -> String {
    let after = |word: &str| words.iter().position(|w| *w == word).and_then(|i| words.get(i + 1)).copied();
    let query = MetricQuery {
        window: Some(words[2].to_string()),
        measures: None,
        by: after("by").map_or(Vec::new(), |by| by.split(',').map(str::to_string).collect()),
        filter: question.find(" where ").map(|at| question[at + 7..].to_string()),
        as_of: at(question),
    };
    let metric = published.catalog.metric_index(words[1]).unwrap_or_else(|| panic!("no metric {}", words[1]));
    let answer = match published.metric(metric, &query) {
        Ok(answer) => answer,
        Err(e) => return format!("  error: {e}\n"),
    };
    let mut out = String::from("  ");
    if let (Some(start), Some(end)) = (answer.start, answer.end) {
        let _ = write!(out, "{} to {}, ", instant(start), instant(end));
    }
    let level = answer.level.map_or(String::new(), |level| format!(", level {level}"));
    let _ = writeln!(out, "value {}{level}", Val::from(&answer.value));
    let names: Vec<String> = answer.dimensions.iter().chain(&answer.measures).cloned().collect();
    let _ = writeln!(out, "  {}", names.join(" | "));
    for row in &answer.rows {
        let cells: Vec<String> =
            row.key.iter().chain(&row.values).map(|v| Val::from(v).to_string()).collect();
        let session =
            row.session.map_or(String::new(), |(s, e)| format!("  ({} to {})", instant(s), instant(e)));
        let _ = writeln!(out, "  {}{session}", cells.join(" | "));
    }
    out
}

fn entity(question: &str, words: &[&str], published: &Published) -> String {
    let entity = published.catalog.entity_index(words[1]).unwrap_or_else(|| panic!("no entity {}", words[1]));
    match published.entity(entity, words[2], at(question)) {
        Ok(Some(row)) => {
            let fields: Vec<String> =
                row.fields.iter().map(|(name, v)| format!("{name}: {}", Val::from(v))).collect();
            format!(
                "  {}\n  {} events, the last at {}\n",
                fields.join(", "),
                row.events,
                instant(row.last_time)
            )
        }
        Ok(None) => "  none\n".to_string(),
        Err(e) => format!("  error: {e}\n"),
    }
}

fn lost(words: &[&str], published: &Published) -> String {
    let metric = published.catalog.metric_index(words[1]).unwrap_or_else(|| panic!("no metric {}", words[1]));
    published.lost(metric).iter().map(|(reason, count)| format!("  {reason}: {count}\n")).collect()
}

fn counts(published: &Published) -> String {
    let line = |((_, event), c): (&(Arc<str>, String), &engine::Counts)| {
        let name = if event.is_empty() { "-" } else { event };
        format!(
            "  {name}: {} received, {} admitted, {} refused, {} duplicate, {} skipped, {} warned\n",
            c.received, c.admitted, c.refused, c.duplicate, c.skipped, c.warned
        )
    };
    published.counters.iter().map(line).collect()
}
