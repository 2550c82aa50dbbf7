//! Commerce events as facts and as JSON.
//!
//! *In*: a [`Fact`]. *Out*: one JSON object, as a shop would send it; or a broken one. *Never*: money
//! as a float.

use std::fmt::Write;

use bytes::Bytes;
use fastrand::Rng;

use super::truth::format_cents;

pub(super) const CURRENCIES: [&str; 4] = ["RUB", "USD", "EUR", "GBP"];

/// One thing that happened in the shop.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fact {
    /// Event id; set when it is sent.
    pub(super) id: String,
    /// Event time, microseconds since the Unix epoch.
    pub(super) time: i64,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Order { event: OrderEvent, order: Order },
    Payment(Payment),
    Page(Page),
    Product(Product),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OrderEvent {
    Created,
    Updated,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) number: u64,
    /// `yyyymmdd` of its creation.
    pub(super) day: String,
    pub(super) user: u32,
    pub(super) status: &'static str,
    pub(super) items: Vec<Item>,
    /// Index into [`CURRENCIES`].
    pub(super) currency: usize,
}

impl Order {
    pub(super) fn id(&self) -> String {
        format!("ORD-{}-{:04}", self.day, self.number)
    }
    /// In hundredths.
    pub(super) fn total(&self) -> i64 {
        self.items.iter().map(|i| i.quantity * i.price).sum()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) product: u32,
    pub(super) quantity: i64,
    /// In hundredths.
    pub(super) price: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Payment {
    pub(super) status: &'static str,
    pub(super) number: u64,
    pub(super) order: String,
    pub(super) user: u32,
    /// In hundredths.
    pub(super) amount: i64,
    pub(super) currency: usize,
    pub(super) method: &'static str,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Page {
    pub(super) event: &'static str,
    pub(super) session: u64,
    pub(super) user: Option<u32>,
    pub(super) url: String,
    pub(super) agent: &'static str,
    pub(super) width: Option<u32>,
    pub(super) product: Option<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Product {
    pub(super) product: u32,
    /// In hundredths.
    pub(super) price: i64,
    pub(super) stock: u32,
}

impl Fact {
    pub(super) fn event_type(&self) -> &'static str {
        match &self.kind {
            Kind::Order { event: OrderEvent::Created, .. } => "order.created",
            Kind::Order { event: OrderEvent::Updated, .. } => "order.updated",
            Kind::Order { event: OrderEvent::Cancelled, .. } => "order.cancelled",
            Kind::Payment(p) => match p.status {
                "initiated" => "payment.initiated",
                "completed" => "payment.completed",
                _ => "payment.failed",
            },
            Kind::Page(page) => page.event,
            Kind::Product(_) => "product.updated",
        }
    }
}

/// RFC 3339 in UTC.
fn rfc3339(time: i64) -> String {
    jiff::Timestamp::from_microsecond(time).map_or_else(|_| "1970-01-01T00:00:00Z".into(), |t| t.to_string())
}

fn session_id(session: u64) -> String {
    format!("s-{session:08}")
}

fn category(product: u32) -> &'static str {
    ["books", "garden", "kitchen", "music", "sport", "toys"][product as usize % 6]
}

/// The event as a shop sends it.
pub(super) fn json(fact: &Fact, id: &str) -> Bytes {
    write(id, fact.event_type(), &rfc3339(fact.time), &body(&fact.kind))
}

fn write(id: &str, event_type: &str, time: &str, body: &str) -> Bytes {
    format!(r#"{{"event_id":"{id}","event_type":"{event_type}","timestamp":"{time}",{body}}}"#).into()
}

fn body(kind: &Kind) -> String {
    match kind {
        Kind::Order { order, .. } => {
            order_body(order, &order.id(), CURRENCIES[order.currency], order.total())
        }
        Kind::Payment(p) => payment_body(p, &p.order, p.amount),
        Kind::Page(page) => page_body(page, &session_id(page.session)),
        Kind::Product(p) => format!(
            r#""product_id":"P-{0:04}","name":"Article {0}","category":"{1}","price":"{2}","currency":"USD","in_stock":{3},"stock_quantity":{4}"#,
            p.product,
            category(p.product),
            format_cents(p.price),
            p.stock > 0,
            p.stock
        ),
    }
}

fn order_body(order: &Order, id: &str, currency: &str, total: i64) -> String {
    let mut items = String::new();
    for (i, item) in order.items.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let price = format_cents(item.price);
        let (product, quantity) = (item.product, item.quantity);
        let _ = write!(
            items,
            r#"{comma}{{"product_id":"P-{product:04}","quantity":{quantity},"unit_price":"{price}"}}"#
        );
    }
    format!(
        r#""order_id":"{id}","user_id":"u-{:06}","status":"{}","items":[{items}],"total_amount":"{}","currency":"{currency}""#,
        order.user,
        order.status,
        format_cents(total)
    )
}

fn payment_body(p: &Payment, order: &str, amount: i64) -> String {
    let reason = if p.status == "failed" { r#","failure_reason":"card_declined""# } else { "" };
    format!(
        r#""payment_id":"PAY-{:08}","order_id":"{order}","user_id":"u-{:06}","amount":"{}","currency":"{}","method":"{}","status":"{}"{reason}"#,
        p.number,
        p.user,
        format_cents(amount),
        CURRENCIES[p.currency],
        p.method,
        p.status
    )
}

fn page_body(page: &Page, session: &str) -> String {
    let mut out =
        format!(r#""session_id":"{session}","page_url":"{}","user_agent":"{}""#, page.url, page.agent);
    if let Some(user) = page.user {
        let _ = write!(out, r#","user_id":"u-{user:06}""#);
    }
    if let Some(width) = page.width {
        let _ = write!(out, r#","viewport_width":{width}"#);
    }
    if let Some(product) = page.product {
        let _ = write!(out, r#","product_id":"P-{product:04}""#);
    }
    out
}

/// The ways a broken event is broken; each is refused by the commerce pack for the reason named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bad {
    Malformed,
    UnknownType,
    Missing,
    WrongType,
    NotInEnum,
    Pattern,
    TotalRule,
    AmountRule,
    SessionRule,
    Min,
    Max,
    Future,
}

impl Bad {
    pub(super) const ALL: [Bad; 12] = [
        Self::Malformed,
        Self::UnknownType,
        Self::Missing,
        Self::WrongType,
        Self::NotInEnum,
        Self::Pattern,
        Self::TotalRule,
        Self::AmountRule,
        Self::SessionRule,
        Self::Min,
        Self::Max,
        Self::Future,
    ];

    /// The reason code it is refused with.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_json",
            Self::UnknownType => "unknown_event_type",
            Self::Missing => "missing",
            Self::WrongType => "wrong_type",
            Self::NotInEnum => "not_in_enum",
            Self::Pattern => "pattern",
            Self::TotalRule => "rule:order_total_consistency",
            Self::AmountRule => "rule:payment_min_amount",
            Self::SessionRule => "rule:clickstream_session_required",
            Self::Min => "min",
            Self::Max => "max",
            Self::Future => "time_in_future",
        }
    }
}

/// A broken event of its own (new id), at about the time of `fact`.
pub(super) fn bad_json(bad: Bad, fact: &Fact, id: &str, rng: &mut Rng) -> Bytes {
    let item = Item { product: 1, quantity: 2, price: 1999 };
    // Ids that no good event has: a broken event that slips through would show as a wrong number.
    let order = Order {
        number: 9_000_000_000 + rng.u64(0..1_000_000),
        day: "20000101".into(),
        user: 0,
        status: "pending",
        items: vec![item],
        currency: 1,
    };
    let payment = Payment {
        status: "completed",
        number: 99_000_000 + rng.u64(0..1_000_000),
        order: order.id(),
        user: 0,
        amount: 3998,
        currency: 1,
        method: "card",
    };
    let page = Page {
        event: "page_view",
        session: 0,
        user: None,
        url: "/checkout".into(),
        agent: "broken",
        width: None,
        product: None,
    };
    let with_quantity = |quantity| Order { items: vec![Item { quantity, ..item }], ..order.clone() };
    let total = order.total();
    let (event_type, body) = match bad {
        Bad::Malformed | Bad::Future => ("order.created", order_body(&order, &order.id(), "USD", total)),
        Bad::UnknownType => ("order.teleported", order_body(&order, &order.id(), "USD", total)),
        Bad::Missing => {
            let body = order_body(&order, &order.id(), "USD", total);
            ("order.created", body.replace(r#""user_id":"u-000000","#, ""))
        }
        Bad::WrongType => {
            let body = order_body(&order, &order.id(), "USD", total);
            ("order.created", body.replace(r#""quantity":2"#, r#""quantity":"two""#))
        }
        Bad::NotInEnum => ("order.created", order_body(&order, &order.id(), "XXX", total)),
        Bad::Pattern => ("order.created", order_body(&order, "order-1", "USD", total)),
        Bad::TotalRule => ("order.created", order_body(&order, &order.id(), "USD", total + 500)),
        Bad::AmountRule => ("payment.completed", payment_body(&payment, &payment.order, 10)),
        Bad::SessionRule => ("page_view", page_body(&page, "")),
        Bad::Min => {
            let order = with_quantity(0);
            ("order.created", order_body(&order, &order.id(), "USD", 0))
        }
        Bad::Max => {
            let order = with_quantity(1001);
            ("order.created", order_body(&order, &order.id(), "USD", order.total()))
        }
    };
    // After any time it can be received at, also when a history is generated at once.
    let time = if bad == Bad::Future { fact.time + TEN_YEARS } else { fact.time };
    let whole = write(id, event_type, &rfc3339(time), &body);
    if bad == Bad::Malformed { whole.slice(..whole.len() - 1 - rng.usize(0..40)) } else { whole }
}

const TEN_YEARS: i64 = 3650 * 24 * 3600 * 1_000_000;
