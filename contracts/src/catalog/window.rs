//! What a kind of window says about itself.
//!
//! *In*: a [`WindowKind`]. *Out*: how long it can be, whether it comes to an end. *Never*: where one begins: that needs
//! an instant and, for local days, the time zone.

use super::{CalendarUnit, Micros, WindowKind};

const DAY: Micros = 86_400_000_000;

impl WindowKind {
    /// The longest a window of this kind can be, a session's gap; 0 for `all`, which no retention bounds.
    pub fn longest(&self) -> Micros {
        match self {
            Self::Tumbling { size } | Self::Sliding { size, .. } => *size,
            Self::Days { days, .. } => i64::from(*days).saturating_mul(DAY).saturating_add(DAY / 24),
            Self::Session { gap } => *gap,
            Self::ToDate { unit, .. } => match unit {
                CalendarUnit::Hour => DAY / 24,
                CalendarUnit::Day => DAY + DAY / 24,
                CalendarUnit::Week => 7 * DAY + DAY / 24,
                CalendarUnit::Month => 31 * DAY + DAY / 24,
                CalendarUnit::Quarter => 92 * DAY + DAY / 24,
                CalendarUnit::Year => 366 * DAY,
            },
            Self::All => 0,
        }
    }

    /// Whether windows of this kind come to an end: what an answer says of one then is final but for what comes late.
    pub fn ends(&self) -> bool {
        *self != Self::All
    }
}
