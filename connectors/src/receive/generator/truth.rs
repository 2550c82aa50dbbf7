//! The generator's books: what any right engine must answer.
//!
//! *In*: events as they arrive. *Out*: a [`Truth`]. *Never*: a float, a look at the engine, more
//! memory than the orders and sessions under way and 25 hours of seconds take.

use std::collections::{BTreeMap, HashMap};

use super::SECOND;
use super::What;
use super::event::{CURRENCIES, Fact, Kind};

/// What is true of the events so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Truth {
    /// Events sent: `accepted + refused + duplicates`.
    pub emitted: u64,
    /// Events that must be admitted.
    pub accepted: u64,
    /// Events that must be refused.
    pub refused: u64,
    /// The same, per reason code.
    pub refused_by_reason: BTreeMap<String, u64>,
    /// Events that must be recognised as seen before.
    pub duplicates: u64,
    /// Accepted events that came a minute or more after their time.
    pub late: u64,
    /// Accepted events that came seconds after their time.
    pub out_of_order: u64,
    /// Accepted events per type.
    pub by_type: BTreeMap<String, u64>,
    /// Orders whose latest status is not `cancelled`.
    pub orders: u64,
    /// Orders whose latest status is `cancelled`.
    pub cancelled: u64,
    /// Sum of the latest totals of the orders that are not cancelled, per currency, in hundredths.
    pub revenue: BTreeMap<String, i64>,
    /// Sessions with at least one page event.
    pub sessions: u64,
    /// Sessions that saw the checkout page.
    pub conversions: u64,
    /// `payment.completed` events.
    pub payments_completed: u64,
    /// `payment.failed` events.
    pub payments_failed: u64,
}

/// `12345` is `123.45`.
pub fn format_cents(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

/// Seconds of history kept.
const KEEP: i64 = 25 * 3600;

/// Numbers that add up.
#[derive(Debug, Clone, Default)]
struct Sums {
    orders: u64,
    cancelled: u64,
    revenue: [i64; CURRENCIES.len()],
    /// A currency with no live order has no row in an answer grouped by currency.
    revenue_orders: [u64; CURRENCIES.len()],
    sessions: u64,
    conversions: u64,
    payments_completed: u64,
    payments_failed: u64,
}

impl Sums {
    fn add(&mut self, other: &Sums) {
        self.orders += other.orders;
        self.cancelled += other.cancelled;
        for c in 0..CURRENCIES.len() {
            self.revenue[c] += other.revenue[c];
            self.revenue_orders[c] += other.revenue_orders[c];
        }
        self.sessions += other.sessions;
        self.conversions += other.conversions;
        self.payments_completed += other.payments_completed;
        self.payments_failed += other.payments_failed;
    }

    fn write(&self, truth: &mut Truth) {
        (truth.orders, truth.cancelled) = (self.orders, self.cancelled);
        (truth.sessions, truth.conversions) = (self.sessions, self.conversions);
        (truth.payments_completed, truth.payments_failed) = (self.payments_completed, self.payments_failed);
        for (c, name) in CURRENCIES.iter().enumerate() {
            if self.revenue_orders[c] > 0 {
                truth.revenue.insert((*name).into(), self.revenue[c]);
            }
        }
    }
}

/// An order of which events are still on their way.
#[derive(Debug, Default)]
struct OpenOrder {
    /// Events not arrived yet.
    pending: u32,
    /// (event time, event id) of the newest event, and what it says.
    newest: Option<(i64, String)>,
    first: i64,
    cancelled: bool,
    total: i64,
    currency: usize,
}

impl OpenOrder {
    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        match (&self.newest, self.cancelled) {
            (None, _) => {}
            (Some(_), true) => sums.cancelled = 1,
            (Some(_), false) => {
                sums.orders = 1;
                sums.revenue[self.currency] = self.total;
                sums.revenue_orders[self.currency] = 1;
            }
        }
        sums
    }
}

#[derive(Debug, Default)]
struct OpenSession {
    pending: u32,
    first: Option<i64>,
    converted: bool,
}

impl OpenSession {
    fn sums(&self) -> Sums {
        Sums {
            sessions: u64::from(self.first.is_some()),
            conversions: u64::from(self.converted),
            ..Sums::default()
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Books {
    /// Counts that do not depend on orders or sessions.
    counts: Truth,
    /// Orders and sessions all of whose events have arrived, and payments.
    closed: Sums,
    /// The same by second of event time (of creation, of start).
    seconds: BTreeMap<i64, Sums>,
    orders: HashMap<u64, OpenOrder>,
    sessions: HashMap<u64, OpenSession>,
}

impl Books {
    /// An event was put on its way.
    pub(super) fn expect(&mut self, fact: &Fact) {
        match &fact.kind {
            Kind::Order { order, .. } => self.orders.entry(order.number).or_default().pending += 1,
            Kind::Page(page) => self.sessions.entry(page.session).or_default().pending += 1,
            Kind::Payment(_) | Kind::Product(_) => {}
        }
    }

    pub(super) fn arrived(&mut self, what: &What) {
        self.counts.emitted += 1;
        match what {
            What::Duplicate => self.counts.duplicates += 1,
            What::Bad(bad) => {
                self.counts.refused += 1;
                *self.counts.refused_by_reason.entry(bad.reason().into()).or_default() += 1;
            }
            What::Good { fact, late, out_of_order } => {
                self.counts.accepted += 1;
                self.counts.late += u64::from(*late);
                self.counts.out_of_order += u64::from(*out_of_order);
                *self.counts.by_type.entry(fact.event_type().into()).or_default() += 1;
                self.accept(fact);
            }
        }
    }

    fn accept(&mut self, fact: &Fact) {
        match &fact.kind {
            Kind::Product(_) => {}
            Kind::Payment(payment) => {
                let sums = Sums {
                    payments_completed: u64::from(payment.status == "completed"),
                    payments_failed: u64::from(payment.status == "failed"),
                    ..Sums::default()
                };
                self.close(fact.time, &sums);
            }
            Kind::Order { order, .. } => {
                let open = self.orders.entry(order.number).or_default();
                open.pending = open.pending.saturating_sub(1);
                open.first = if open.newest.is_some() { open.first.min(fact.time) } else { fact.time };
                let this = (fact.time, fact.id.clone());
                if open.newest.as_ref().is_none_or(|newest| *newest < this) {
                    open.newest = Some(this);
                    open.cancelled = order.status == "cancelled";
                    (open.total, open.currency) = (order.total(), order.currency);
                }
                if open.pending == 0 {
                    let (first, sums) = (open.first, open.sums());
                    self.orders.remove(&order.number);
                    self.close(first, &sums);
                }
            }
            Kind::Page(page) => {
                let open = self.sessions.entry(page.session).or_default();
                open.pending = open.pending.saturating_sub(1);
                open.first = Some(open.first.map_or(fact.time, |first| first.min(fact.time)));
                open.converted |= page.url == "/checkout";
                if open.pending == 0 {
                    let (first, sums) = (open.first.unwrap_or(fact.time), open.sums());
                    self.sessions.remove(&page.session);
                    self.close(first, &sums);
                }
            }
        }
    }

    fn close(&mut self, time: i64, sums: &Sums) {
        self.closed.add(sums);
        self.seconds.entry(time.div_euclid(SECOND)).or_default().add(sums);
        while let (Some((first, _)), Some((last, _))) =
            (self.seconds.first_key_value(), self.seconds.last_key_value())
        {
            if last - first <= KEEP {
                break;
            }
            self.seconds.pop_first();
        }
    }

    pub(super) fn truth(&self) -> Truth {
        let mut sums = self.closed.clone();
        self.orders.values().for_each(|open| sums.add(&open.sums()));
        self.sessions.values().for_each(|open| sums.add(&open.sums()));
        let mut truth = self.counts.clone();
        sums.write(&mut truth);
        truth
    }

    pub(super) fn between(&self, from: i64, to: i64) -> Truth {
        let mut sums = Sums::default();
        let inside = |time: i64| (from..to).contains(&time);
        if from < to {
            let seconds = from.div_euclid(SECOND)..to.div_euclid(SECOND);
            self.seconds.range(seconds).for_each(|(_, s)| sums.add(s));
        }
        for open in self.orders.values().filter(|o| o.newest.is_some() && inside(o.first)) {
            sums.add(&open.sums());
        }
        for open in self.sessions.values().filter(|s| s.first.is_some_and(inside)) {
            sums.add(&open.sums());
        }
        let mut truth = Truth::default();
        sums.write(&mut truth);
        truth
    }
}
