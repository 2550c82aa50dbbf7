//! The result of a freshness benchmark.
//!
//! *In*: what was measured. *Out*: JSON, a table, a plot. *Never*: a percentile without its misses.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::schedule::Schedule;
use super::{Measured, Options, Reader, Road};
use crate::machine::Machine;
use crate::plot;
use crate::stats::Latency;

/// What a process used during the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Cores, on average.
    pub cores: Option<f64>,
    /// Largest resident memory, bytes.
    pub peak_rss: Option<u64>,
}

/// The result. Latencies are in milliseconds, counted from when an event was due.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// `freshness`.
    pub kind: String,
    /// How events reached the server.
    pub road: Road,
    /// How they were read.
    pub reader: Reader,
    /// Events per second.
    pub rate: u32,
    /// How long.
    pub seconds: u32,
    /// Dataflow threads.
    pub workers: usize,
    /// Scored events.
    pub events: u64,
    /// Scored events that never showed.
    pub misses: u64,
    /// Due until visible to an HTTP reader: the result.
    pub visible: Latency,
    /// Due until acknowledged by Kafka (or by the server, when pushed).
    pub acknowledged: Latency,
    /// Due until handed to the client library: how well the sender kept its schedule.
    pub sent: Latency,
    /// Round trip of a read of the metric; empty with server-sent events.
    pub read: Latency,
    /// Round trip of `/livez` in the same run: what HTTP and the machine cost.
    pub floor: Latency,
    /// Answers the reader looked at.
    pub answers: u64,
    /// The server.
    pub server: Usage,
    /// Kafka, if it was started for this.
    pub broker: Option<Usage>,
    /// Where this was.
    pub machine: Machine,
}

pub(super) fn make(options: &Options, schedule: &Schedule, measured: Measured) -> Report {
    let Measured { sent, watched, server, broker, machine } = measured;
    let events = schedule.events() - schedule.first_scored();
    Report {
        kind: "freshness".to_owned(),
        road: options.road,
        reader: options.reader,
        rate: options.rate,
        seconds: options.seconds,
        workers: options.workers,
        events,
        misses: events - watched.visible.count().min(events),
        visible: watched.visible.summary(),
        acknowledged: sent.acknowledged.summary(),
        sent: sent.late.summary(),
        read: watched.read.summary(),
        floor: watched.floor.summary(),
        answers: watched.answers,
        server,
        broker,
        machine,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let road = match self.road {
            Road::Kafka => "Apache Kafka",
            Road::Push => "POST /v1/events",
        };
        let reader = match self.reader {
            Reader::Poll => "GET every 1 ms",
            Reader::Sse => "server-sent events",
        };
        writeln!(
            f,
            "Freshness: {} events/s for {} s by {road}, read by {reader}; {} scored, {} missed{}\n",
            self.rate,
            self.seconds,
            self.events,
            self.misses,
            if self.misses == 0 { ", final answers equal to the truth" } else { "" }
        )?;
        writeln!(f, "  milliseconds              p50      p95      p99    p99.9      max")?;
        row(f, "due to VISIBLE", &self.visible)?;
        row(f, "due to acknowledged", &self.acknowledged)?;
        row(f, "due to sent", &self.sent)?;
        row(f, "reading the metric", &self.read)?;
        row(f, "HTTP floor (/livez)", &self.floor)?;
        writeln!(f, "\n  due to visible\n{}", plot::buckets(&self.visible).trim_end())?;
        writeln!(
            f,
            "\n  {} answers; server {}{}",
            self.answers,
            usage(&self.server),
            match &self.broker {
                Some(broker) => format!("; Kafka {}", usage(broker)),
                None => String::new(),
            }
        )?;
        write!(f, "  {}", self.machine.line())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, latency: &Latency) -> fmt::Result {
    if latency.count == 0 {
        return Ok(());
    }
    let Latency { p50, p95, p99, p999, max, .. } = latency;
    writeln!(f, "  {name:<20} {p50:>8.2} {p95:>8.2} {p99:>8.2} {p999:>8.2} {max:>8.2}")
}

fn usage(usage: &Usage) -> String {
    let cores = usage.cores.map_or_else(|| "?".to_owned(), |cores| format!("{cores:.2}"));
    let rss = usage.peak_rss.map_or_else(|| "?".to_owned(), |bytes| format!("{:.0}", bytes as f64 / 1e6));
    format!("used {cores} cores, {rss} MB at most")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report(p50: f64) -> Report {
        let visible = Latency {
            count: 10,
            p50,
            p95: 5.0,
            p99: 9.0,
            p999: 9.5,
            max: 10.0,
            buckets: vec![(Some(2.0), 10)],
        };
        Report {
            kind: "freshness".to_owned(),
            road: Road::Kafka,
            reader: Reader::Poll,
            rate: 10,
            seconds: 1,
            workers: 1,
            events: 10,
            misses: 0,
            visible: visible.clone(),
            acknowledged: visible.clone(),
            sent: visible,
            read: Latency::default(),
            floor: Latency::default(),
            answers: 5,
            server: Usage { cores: Some(0.5), peak_rss: Some(1_000_000) },
            broker: None,
            machine: Machine::here(),
        }
    }

    #[test]
    fn the_table() {
        let text = report(1.5).to_string();
        assert!(text.contains("10 scored, 0 missed, final answers equal"), "{text}");
        assert!(
            text.contains("  due to VISIBLE           1.50     5.00     9.00     9.50    10.00"),
            "{text}"
        );
        assert!(!text.contains("/livez"), "{text}");
        assert!(text.contains("server used 0.50 cores, 1 MB at most"), "{text}");
    }
}
