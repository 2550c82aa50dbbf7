//! What was sent, what was acknowledged, and what must come of it: plain sums, written from the semantics page.
//!
//! *In*: numbers of events. *Out*: the events, and every number that they give. *Never*: a look at the engine's code.
//! Everything about an event follows from its number: pushed ones are even, those of Kafka odd.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

pub(crate) const CONTRACTS: &str = r#"
apiVersion: streamgauge/v1
kind: Event
name: shop.order
version: 1.0.0
fields:
  order: { type: string, required: true }
  region: { type: string, required: true }
  customer: { type: string, required: true }
  amount: { type: "decimal(18,2)", required: true, min: "0" }
---
apiVersion: streamgauge/v1
kind: Event
name: shop.visit
version: 1.0.0
fields:
  region: { type: string, required: true }
---
apiVersion: streamgauge/v1
kind: Event
name: shop.paid
version: 1.0.0
fields:
  order: { type: string, required: true }
---
apiVersion: streamgauge/v1
kind: Event
name: shop.claim
version: 1.0.0
fields:
  amount: { type: "decimal(18,2)", required: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: claims
version: 1.0.0
events: { claim: { type: shop.claim } }
measures:
  claims: { agg: count }
  said: { agg: sum, value: amount }
windows: { all: { all: true } }
retain: { live: 3650d }
---
apiVersion: streamgauge/v1
kind: Metric
name: revenue
version: 1.0.0
events: { order: { type: shop.order } }
dimensions: { region: { from: region, max: 10 } }
measures:
  revenue: { agg: sum, value: amount }
  orders: { agg: count }
  dearest: { agg: max, value: amount }
  newest: { agg: last, value: amount }
  customers: { agg: distinct, value: customer }
windows: { all: { all: true }, 1h: { tumbling: 1h } }
retain: { live: 3650d }
serve: { lake: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: visits
version: 1.0.0
events: { visit: { type: shop.visit } }
dimensions: { region: { from: region, max: 10 } }
measures: { visits: { agg: count } }
windows: { all: { all: true } }
retain: { live: 3650d }
---
apiVersion: streamgauge/v1
kind: Metric
name: paid
version: 1.0.0
events: { order: { type: shop.order }, pay: { type: shop.paid } }
join: [{ from: order, to: pay, match: order.order = pay.order, pick: first, within: 1h }]
dimensions: { region: { from: order.region, max: 10 } }
measures:
  paid: { agg: count }
  amount: { agg: sum, value: order.amount }
windows: { all: { all: true }, 1h: { tumbling: 1h } }
retain: { live: 3650d }
serve: { lake: true }
"#;

/// From here on numbers are claims: three copies of each, which say different amounts and come by different ways. Any of
/// them may count; it must be the one that is in the lake, whatever happens.
pub(crate) const CLAIMS: u64 = 1 << 40;

const REGIONS: [&str; 3] = ["eu", "us", "asia"];
/// 2026-11-01T00:00:00Z, in seconds; event n happens n seconds later.
const START: i64 = 1_793_491_200;
const HOUR: u64 = 3600;
/// At most so many hours are asked for.
const HOURS: u64 = 5;

/// Deterministic numbers.
#[derive(Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Order,
    Visit,
    /// Of the order of this number, which was sent the other way.
    Paid(u64),
}

fn kind(n: u64) -> Kind {
    match n % 6 {
        0 | 1 => Kind::Order,
        2 | 3 => Kind::Visit,
        4 => Kind::Paid(n - 3),
        _ => Kind::Paid(n - 5),
    }
}

/// A field that is required is not there.
pub(crate) fn is_bad(n: u64) -> bool {
    n < CLAIMS && n % 17 == 5
}

/// The number of a copy (0 to 2) of a claim.
pub(crate) fn claim(claim: u64, copy: u64) -> u64 {
    CLAIMS + 3 * claim + copy
}

/// Takes the claims out.
pub(crate) fn claims(numbers: &mut BTreeSet<u64>) -> BTreeSet<u64> {
    numbers.split_off(&CLAIMS).into_iter().map(|n| (n - CLAIMS) / 3).collect()
}

fn cents(n: u64) -> u64 {
    n * 37 % 100_003
}

fn region(n: u64) -> &'static str {
    REGIONS[(n / 5 % 3) as usize]
}

fn customer(n: u64) -> u64 {
    n * 7919 % 997
}

fn decimal(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn instant(seconds: u64) -> String {
    let at = START + i64::try_from(seconds).unwrap();
    jiff::Timestamp::from_second(at).unwrap().to_string()
}

/// Event `n` as JSON.
pub(crate) fn event(n: u64) -> String {
    if let Some(copy) = n.checked_sub(CLAIMS) {
        let (id, time) = (format!("claim{}", copy / 3), instant(copy / 3));
        return json!({ "type": "shop.claim", "id": id, "time": time, "amount": decimal(copy) }).to_string();
    }
    let (id, time) = (format!("e{n}"), instant(n));
    let (mut event, required) = match kind(n) {
        Kind::Order => (
            json!({ "type": "shop.order", "order": format!("o{n}"), "region": region(n),
                "customer": format!("c{}", customer(n)), "amount": decimal(cents(n)) }),
            "region",
        ),
        Kind::Visit => (json!({ "type": "shop.visit", "region": region(n) }), "region"),
        Kind::Paid(order) => (json!({ "type": "shop.paid", "order": format!("o{order}") }), "order"),
    };
    (event["id"], event["time"]) = (id.into(), time.into());
    if is_bad(n) {
        event[required] = Value::Null;
    }
    event.to_string()
}

/// Numbers by "metric window group measure".
pub(crate) type Numbers = BTreeMap<String, String>;

/// Rows of a table of the lake, and the sum of its amounts where it has some.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) rows: u64,
    pub(crate) cents: u64,
}

#[derive(Default)]
struct Cell {
    orders: u64,
    cents: u64,
    dearest: u64,
    newest: (u64, u64),
    customers: BTreeSet<u64>,
}

impl Cell {
    fn add(&mut self, n: u64) {
        self.orders += 1;
        self.cents += cents(n);
        self.dearest = self.dearest.max(cents(n));
        self.newest = self.newest.max((n, cents(n)));
        self.customers.insert(customer(n));
    }

    fn tell(&self, at: &str, numbers: &mut Numbers) {
        let mut say = |measure: &str, value: String| numbers.insert(format!("{at} {measure}"), value);
        say("orders", self.orders.to_string());
        say("revenue", decimal(self.cents));
        say("dearest", decimal(self.dearest));
        say("newest", decimal(self.newest.1));
        say("customers", self.customers.len().to_string());
    }
}

/// The hours that are asked for: the first, the last, and some between.
pub(crate) fn hours(acked: &BTreeSet<u64>) -> BTreeSet<u64> {
    let last = acked.last().map_or(0, |n| n / HOUR);
    (0..HOURS).map(|one| last * one / (HOURS - 1)).collect()
}

/// What the acknowledged events give.
pub(crate) fn expected(acked: &BTreeSet<u64>) -> Numbers {
    within(acked, &hours(acked))
}

/// What they give in each hour: all are over.
pub(crate) fn results(acked: &BTreeSet<u64>) -> Numbers {
    let mut numbers = within(acked, &acked.iter().map(|n| n / HOUR).collect());
    numbers.retain(|at, _| at.split(' ').nth(1) != Some("all"));
    numbers
}

/// The number of the hour that begins at this second.
pub(crate) fn hour_of(start: i64) -> u64 {
    u64::try_from(start - START).unwrap() / HOUR
}

/// All numbers, of these hours apart.
fn within(acked: &BTreeSet<u64>, hours: &BTreeSet<u64>) -> Numbers {
    let mut cells = BTreeMap::<String, Cell>::new();
    let (mut visits, mut paid) = (BTreeMap::<_, u64>::new(), BTreeMap::<_, (u64, u64)>::new());
    for n in acked.iter().copied() {
        match kind(n) {
            Kind::Order => {
                cells.entry(format!("revenue all {}", region(n))).or_default().add(n);
                if hours.contains(&(n / HOUR)) {
                    cells.entry(format!("revenue {} {}", n / HOUR, region(n))).or_default().add(n);
                }
            }
            Kind::Visit => *visits.entry(region(n)).or_default() += 1,
            Kind::Paid(order) if acked.contains(&order) => {
                // At the time of the payment, which is the later one.
                let hour = hours.contains(&(n / HOUR)).then(|| (n / HOUR).to_string());
                for window in hour.into_iter().chain(["all".to_owned()]) {
                    let cell = paid.entry(format!("paid {window} {}", region(order))).or_default();
                    *cell = (cell.0 + 1, cell.1 + cents(order));
                }
            }
            Kind::Paid(_) => {}
        }
    }
    let mut numbers = Numbers::new();
    cells.iter().for_each(|(at, cell)| cell.tell(at, &mut numbers));
    for (region, count) in visits {
        numbers.insert(format!("visits all {region} visits"), count.to_string());
    }
    for (at, (count, cents)) in paid {
        numbers.insert(format!("{at} paid"), count.to_string());
        numbers.insert(format!("{at} amount"), decimal(cents));
    }
    numbers
}

/// What the lake must hold of the acknowledged events.
pub(crate) fn stored(acked: &BTreeSet<u64>) -> BTreeMap<&'static str, Stored> {
    let mut tables = BTreeMap::<_, Stored>::new();
    for n in acked {
        let (table, cents) = match kind(*n) {
            Kind::Order => ("shop_order", cents(*n)),
            Kind::Visit => ("shop_visit", 0),
            Kind::Paid(_) => ("shop_paid", 0),
        };
        let of = tables.entry(table).or_default();
        *of = Stored { rows: of.rows + 1, cents: of.cents + cents };
    }
    tables
}

/// The questions whose answers [`expected`] tells: a name for the window, and the path.
pub(crate) fn questions(acked: &BTreeSet<u64>) -> Vec<(String, String)> {
    let all = |metric: &str| (format!("{metric} all"), format!("/v1/metrics/{metric}?window=all&by=region"));
    let mut questions: Vec<_> = ["revenue", "visits", "paid"].map(all).into();
    for hour in hours(acked) {
        let end = instant((hour + 1) * HOUR);
        for metric in ["revenue", "paid"] {
            let path = format!("/v1/metrics/{metric}?window=1h&by=region&as_of={end}");
            questions.push((format!("{metric} {hour}"), path));
        }
    }
    questions
}

/// An answer in the form of [`expected`]; groups without rows say nothing.
pub(crate) fn told(at: &str, answer: &Value, numbers: &mut Numbers) {
    for row in answer["rows"].as_array().into_iter().flatten() {
        let region = row["region"].as_str().unwrap_or("?");
        let counts = ["orders", "visits", "paid"];
        if counts.iter().any(|count| row[count] == 0) {
            continue;
        }
        for (measure, value) in row.as_object().into_iter().flatten().filter(|(name, _)| *name != "region") {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            numbers.insert(format!("{at} {region} {measure}"), text);
        }
    }
}
