//! Workload W1: the events, and W2, the same events happening now.
//!
//! *In*: a number of events. *Out*: their lines and their true answers, always the same. *Never*: another
//! byte than the definition in `bench/README.md` says: the published checksums are verified.

mod file;

use std::io::Write;

pub use file::{Data, make};

use crate::answers::Groups;

/// 2026-01-01T00:00:00Z in milliseconds: the time of the first event.
pub const T0: i64 = 1_767_225_600_000;
/// W1 covers one day of event time, 1000 events a second.
pub const MOST: u64 = 86_400_000;
/// Milliseconds of a window.
pub const MINUTE: i64 = 60_000;

/// The regions, in the order of the draws.
pub const REGIONS: [&str; 20] = [
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "ca-central-1",
    "sa-east-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eu-central-1",
    "eu-north-1",
    "eu-south-1",
    "me-south-1",
    "af-south-1",
    "ap-south-1",
    "ap-east-1",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-southeast-1",
    "ap-southeast-2",
];
/// The good statuses, in the order of the draws.
pub const STATUSES: [&str; 5] = ["pending", "confirmed", "shipped", "delivered", "cancelled"];
const UNKNOWN: &str = "unknown";
const TYPES: [&str; 3] = ["order.created", "order.updated", "order.paid"];
const CURRENCIES: [&str; 4] = ["USD", "EUR", "GBP", "JPY"];

/// What is known of W1 from elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Lines.
    pub events: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Hex SHA-256 of the file.
    pub sha256: &'static str,
    /// Groups of the answer.
    pub groups: usize,
    /// Cents.
    pub revenue: i64,
    /// Good events.
    pub n: u64,
    /// Bad amounts.
    pub bad_amount: u64,
    /// Bad statuses.
    pub bad_status: u64,
}

/// The published sizes.
pub const KNOWN: [Known; 2] = [
    Known {
        events: 200_000,
        bytes: 54_905_044,
        sha256: "16512412178c6e0dd1a1f5b714c361bb3e3bdc4cde40b5d1a90be47ba311cfc7",
        groups: 80,
        revenue: 4_913_056_718,
        n: 195_983,
        bad_amount: 2_045,
        bad_status: 1_972,
    },
    Known {
        events: 5_000_000,
        bytes: 1_372_653_761,
        sha256: "633b23451355072d7880acc4507f7371cfcad2aeb8ba1601e7f904288e370395",
        groups: 1_680,
        revenue: 122_703_633_147,
        n: 4_900_328,
        bad_amount: 49_716,
        bad_status: 49_956,
    },
];

/// xorshift*: 64 bits of state.
#[derive(Debug, Clone)]
pub struct Draws(u64);

impl Draws {
    /// The draws of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// 64 bits.
    pub fn next_bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_bits()) * u128::from(n)) >> 64) as u64
    }

    fn one_of<const N: usize>(&mut self, list: [&'static str; N]) -> &'static str {
        list[self.below(N as u64) as usize]
    }
}

/// One event.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    ids: (u64, u64),
    event_type: &'static str,
    user: u64,
    /// One of [`REGIONS`].
    pub region: &'static str,
    /// One of [`STATUSES`], or `unknown`.
    pub status: &'static str,
    /// The amount.
    pub cents: i64,
    currency: &'static str,
    /// Event time, milliseconds since the Unix epoch.
    pub ts: i64,
    created_ms: i64,
    items: u64,
}

impl Event {
    /// Whether the status is one of the five.
    pub fn good_status(&self) -> bool {
        self.status != UNKNOWN
    }

    /// Minute since the Unix epoch.
    pub fn minute(&self) -> i64 {
        self.ts.div_euclid(MINUTE)
    }

    /// Appends its JSON, without line break. `sequence` becomes a twelfth field.
    pub fn write(&self, sequence: Option<u64>, to: &mut Vec<u8>) {
        self.try_write(sequence, to).expect("writing to memory does not fail");
    }

    fn try_write(&self, sequence: Option<u64>, to: &mut Vec<u8>) -> std::io::Result<()> {
        let (a, b) = self.ids;
        write!(
            to,
            "{{\"event_id\":\"{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}\",\"event_type\":\"{}\",\"user_id\":\"USR-{:05}\",\
             \"region\":\"{}\",\"status\":\"{}\",\"amount\":{}{}.{:02},\"currency\":\"{}\",\"ts\":{},",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            (b >> 48) | 0x8000,
            b & 0xffff_ffff_ffff,
            self.event_type,
            self.user,
            self.region,
            self.status,
            if self.cents < 0 { "-" } else { "" },
            self.cents.abs() / 100,
            self.cents.abs() % 100,
            self.currency,
            self.ts,
        )?;
        let ms = self.created_ms;
        let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
        let (seconds, millis) = (ms / 1_000 % 60, ms % 1_000);
        write!(
            to,
            "\"created_at\":\"2026-01-01T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z\",\"items\":{},\
             \"source\":\"checkout-service\"",
            self.items,
        )?;
        if let Some(sequence) = sequence {
            write!(to, ",\"seq\":{sequence}")?;
        }
        to.write_all(b"}")
    }
}

/// The events of W1, one after the other, without end.
#[derive(Debug)]
pub struct W1 {
    draws: Draws,
    index: i64,
}

impl Default for W1 {
    fn default() -> Self {
        Self { draws: Draws::new(42), index: 0 }
    }
}

impl Iterator for W1 {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let draws = &mut self.draws;
        let jitter = draws.below(2000) as i64;
        let ids = (draws.next_bits(), draws.next_bits());
        let user = draws.below(10_000);
        let region = draws.one_of(REGIONS);
        let bad = draws.below(100);
        let status = if bad == 1 { UNKNOWN } else { draws.one_of(STATUSES) };
        let cents = draws.below(49_900) as i64 + 100;
        let event_type = draws.one_of(TYPES);
        let currency = draws.one_of(CURRENCIES);
        let items = draws.below(5) + 1;
        let ts = T0.max(T0 + self.index - jitter);
        self.index += 1;
        let cents = if bad == 0 { -cents } else { cents };
        Some(Event { ids, event_type, user, region, status, cents, currency, ts, created_ms: ts - T0, items })
    }
}

/// The events of W2: as W1, but of one type and currency, and at times that are given.
#[derive(Debug)]
pub struct W2 {
    draws: Draws,
}

impl W2 {
    /// The events of a seed; 1 is the seed of the definition.
    pub fn new(seed: u64) -> Self {
        Self { draws: Draws::new(seed) }
    }

    /// The next event, at `ts` milliseconds since the Unix epoch.
    pub fn at(&mut self, ts: i64) -> Event {
        let draws = &mut self.draws;
        let region = draws.one_of(REGIONS);
        let bad = draws.below(100);
        let cents = draws.below(49_900) as i64 + 100;
        let ids = (draws.next_bits(), draws.next_bits());
        let user = draws.below(10_000);
        let status = if bad == 1 { UNKNOWN } else { draws.one_of(STATUSES) };
        let items = draws.below(5) + 1;
        let cents = if bad == 0 { -cents } else { cents };
        let (event_type, currency) = (TYPES[0], CURRENCIES[0]);
        Event { ids, event_type, user, region, status, cents, currency, ts, created_ms: 0, items }
    }
}

/// Counts events: the oracle.
#[derive(Debug, Default)]
pub struct Oracle {
    groups: std::collections::HashMap<(&'static str, i64), crate::answers::Cell>,
}

impl Oracle {
    /// Counts one.
    pub fn add(&mut self, event: &Event) {
        self.groups.entry((event.region, event.minute())).or_default().add(event.cents, event.good_status());
    }

    /// The answer.
    pub fn finish(self) -> Groups {
        let full = |cell: crate::answers::Cell| crate::answers::Cell { avg: cell.average(), ..cell };
        Groups(
            self.groups.into_iter().map(|((region, w), cell)| ((region.to_owned(), w), full(cell))).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "{\"event_id\":\"18d78b06-255e-4a1f-88c8-3129f00f4f29\",\"event_type\":\"order.paid\",\
        \"user_id\":\"USR-05067\",\"region\":\"eu-west-1\",\"status\":\"delivered\",\"amount\":332.96,\"currency\":\"GBP\",\
        \"ts\":1767225600000,\"created_at\":\"2026-01-01T00:00:00.000Z\",\"items\":1,\"source\":\"checkout-service\"}";

    #[test]
    fn the_first_line_is_as_published() {
        let mut line = Vec::new();
        W1::default().next().unwrap().write(None, &mut line);
        assert_eq!(String::from_utf8(line).unwrap(), FIRST);
    }

    #[test]
    fn lines_are_json_with_a_sequence_where_wanted() {
        let mut events = W2::new(1);
        for sequence in 0..200 {
            let mut line = Vec::new();
            events.at(1_800_000_000_000).write(Some(sequence), &mut line);
            let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(json["seq"], sequence);
            assert_eq!(json["event_type"], "order.created");
            assert_eq!(json.as_object().unwrap().len(), 12);
        }
    }
}
