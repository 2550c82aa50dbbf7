//! What a shopper does.
//!
//! *In*: chance and an instant. *Out*: the facts of one session and of the order it may lead to.
//! *Never*: a fact before the instant.

use fastrand::Rng;

use super::SECOND;
use super::event::{Fact, Item, Kind, Order, OrderEvent, Page, Payment, Product};

const USERS: u32 = 5_000;
const PRODUCTS: u32 = 400;
const AGENTS: [&str; 3] =
    ["Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (iPhone)", "ShopApp/7.2 (Android 16)"];

/// Numbers given out so far.
#[derive(Debug, Default)]
pub(super) struct Shop {
    sessions: u64,
    orders: u64,
    payments: u64,
}

/// The facts of one session, with a clock that only goes on.
struct Script<'a> {
    rng: &'a mut Rng,
    now: i64,
    facts: Vec<Fact>,
}

impl Script<'_> {
    fn wait(&mut self, from: i64, to: i64) {
        self.now += self.rng.i64(from * SECOND..to * SECOND) / 1000 * 1000;
    }
    fn say(&mut self, kind: Kind) {
        self.facts.push(Fact { id: String::new(), time: self.now, kind });
    }
    fn chance(&mut self, share: f64) -> bool {
        self.rng.f64() < share
    }
}

/// Price of a product in hundredths: fixed, so that items of any order agree.
fn price(product: u32) -> i64 {
    99 + i64::from(product.wrapping_mul(2_654_435_761) % 24_000)
}

impl Shop {
    pub(super) fn session(&mut self, rng: &mut Rng, at: i64) -> Vec<Fact> {
        self.sessions += 1;
        let user = rng.u32(0..USERS);
        let known = rng.f64() < 0.7;
        let agent = AGENTS[rng.usize(0..AGENTS.len())];
        let width = (rng.f64() < 0.9).then(|| [390, 768, 1280, 1920][rng.usize(0..4)]);
        let session = self.sessions;
        let page = |event, url: &str, product| {
            let user = known.then_some(user);
            Kind::Page(Page { event, session, user, url: url.into(), agent, width, product })
        };
        let mut script = Script { rng, now: at / 1000 * 1000, facts: Vec::new() };
        script.say(page("page_view", "/", None));
        let mut cart: Vec<Item> = Vec::new();
        for _ in 0..script.rng.usize(0..5) {
            script.wait(1, 15);
            if script.chance(0.25) {
                script.say(page("page_view", "/search?q=gift", None));
                continue;
            }
            // Squared: a few products are seen most.
            let product = (script.rng.f64().powi(2) * f64::from(PRODUCTS)) as u32;
            let url = format!("/products/{product}");
            script.say(page("page_view", &url, Some(product)));
            if script.chance(0.5) {
                script.wait(1, 5);
                script.say(page("click", &url, Some(product)));
            }
            if script.chance(0.4) && cart.iter().all(|i| i.product != product) {
                script.wait(1, 5);
                script.say(page("add_to_cart", &url, Some(product)));
                let quantity = script.rng.i64(1..4);
                cart.push(Item { product, quantity, price: price(product) });
            }
        }
        if !cart.is_empty() && script.chance(0.8) {
            script.wait(2, 10);
            script.say(page("page_view", "/cart", None));
            if script.chance(0.6) {
                script.wait(2, 20);
                script.say(page("page_view", "/checkout", None));
                if script.chance(0.9) {
                    self.order(&mut script, user, cart);
                }
            }
        }
        script.facts
    }

    fn order(&mut self, script: &mut Script<'_>, user: u32, items: Vec<Item>) {
        self.orders += 1;
        script.wait(1, 10);
        let day = jiff::Timestamp::from_microsecond(script.now)
            .map_or_else(|_| "19700101".into(), |t| t.strftime("%Y%m%d").to_string());
        let currency = [0, 0, 0, 1, 1, 2, 2, 3][script.rng.usize(0..8)];
        let number = self.orders;
        let mut order = Order { number, day, user, status: "pending", items, currency };
        let say = |script: &mut Script<'_>, event, order: &Order| {
            script.say(Kind::Order { event, order: order.clone() });
        };
        say(script, OrderEvent::Created, &order);
        if !self.pay(script, &order) {
            order.status = "cancelled";
            script.wait(1, 30);
            return say(script, OrderEvent::Cancelled, &order);
        }
        order.status = "confirmed";
        script.wait(1, 10);
        if script.chance(0.1) {
            order.items[0].quantity += 1; // amended: the total changes
        }
        say(script, OrderEvent::Updated, &order);
        if script.chance(0.07) {
            order.status = "cancelled";
            script.wait(5, 60);
            return say(script, OrderEvent::Cancelled, &order);
        }
        for (status, from, to) in [("shipped", 20, 90), ("delivered", 60, 240)] {
            order.status = status;
            script.wait(from, to);
            say(script, OrderEvent::Updated, &order);
        }
        let item = order.items[0];
        script.wait(1, 5);
        let stock = script.rng.u32(0..200);
        script.say(Kind::Product(Product { product: item.product, price: item.price, stock }));
    }

    /// Up to two tries; true when one worked.
    fn pay(&mut self, script: &mut Script<'_>, order: &Order) -> bool {
        let method = ["card", "card", "wallet", "bank_transfer"][script.rng.usize(0..4)];
        for _ in 0..2 {
            self.payments += 1;
            let payment = Payment {
                status: "initiated",
                number: self.payments,
                order: order.id(),
                user: order.user,
                amount: order.total(),
                currency: order.currency,
                method,
            };
            script.wait(1, 4);
            script.say(Kind::Payment(payment.clone()));
            let works = script.chance(0.9);
            let status = if works { "completed" } else { "failed" };
            script.wait(1, 4);
            script.say(Kind::Payment(Payment { status, ..payment }));
            if works {
                return true;
            }
        }
        false
    }
}
