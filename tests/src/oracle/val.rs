//! The oracle's values.
//!
//! *In*: what the other oracle modules compute, and the engine's cells to compare with. *Out*:
//! [`Val`], its order, its text. *Never*: a decimal through a float.

use std::cmp::Ordering;
use std::fmt;

use super::num::Rat;

/// One value.
#[derive(Debug, Clone)]
pub enum Val {
    /// Nothing.
    Null,
    /// Boolean.
    Bool(bool),
    /// Integer.
    Int(i64),
    /// Float.
    Float(f64),
    /// `unscaled / 10^scale`.
    Dec(i128, u8),
    /// Text.
    Text(String),
    /// Microseconds since the epoch.
    Ts(i64),
    /// Days since the epoch.
    Date(i32),
    /// Microseconds.
    Dur(i64),
    /// A list.
    List(Vec<Val>),
    /// Named fields.
    Obj(Vec<(String, Val)>),
    /// Upper bound (none = infinity) and count.
    Hist(Vec<(Option<f64>, u64)>),
}

impl Val {
    /// Is it null?
    pub fn is_null(&self) -> bool {
        matches!(self, Val::Null)
    }

    /// The exact value of an int, decimal, float or duration.
    pub fn rat(&self) -> Option<Rat> {
        match self {
            Val::Int(v) | Val::Dur(v) => Some(Rat::int(*v)),
            Val::Dec(v, s) => Some(Rat::dec(*v, *s)),
            Val::Float(v) if v.is_finite() => Some(Rat::float(*v)),
            _ => None,
        }
    }

    /// As a float, rounded once.
    pub fn f64(&self) -> Option<f64> {
        match self {
            Val::Float(v) => Some(*v),
            other => other.rat().map(|r| r.to_f64()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Val::Null => 0,
            Val::Bool(_) => 1,
            Val::Int(_) | Val::Float(_) | Val::Dec(..) => 2,
            Val::Text(_) => 3,
            Val::Ts(_) => 4,
            Val::Date(_) => 5,
            Val::Dur(_) => 6,
            Val::List(_) => 7,
            Val::Obj(_) => 8,
            Val::Hist(_) => 9,
        }
    }
}

impl Ord for Val {
    fn cmp(&self, other: &Val) -> Ordering {
        match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => a.cmp(b),
            (Val::Text(a), Val::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Val::Ts(a), Val::Ts(b)) | (Val::Dur(a), Val::Dur(b)) => a.cmp(b),
            (Val::Int(a), Val::Int(b)) => a.cmp(b),
            (Val::Date(a), Val::Date(b)) => a.cmp(b),
            (Val::Float(a), Val::Float(b)) => a.total_cmp(b),
            (Val::List(a), Val::List(b)) => a.cmp(b),
            (Val::Obj(a), Val::Obj(b)) => a.cmp(b),
            (Val::Hist(a), Val::Hist(b)) => format!("{a:?}").cmp(&format!("{b:?}")),
            _ if self.rank() != other.rank() => self.rank().cmp(&other.rank()),
            _ => match (self.rat(), other.rat()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => Ordering::Equal,
            },
        }
    }
}

impl PartialOrd for Val {
    fn partial_cmp(&self, other: &Val) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Val {
    fn eq(&self, other: &Val) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Val {}

impl From<&contracts::Value> for Val {
    fn from(value: &contracts::Value) -> Val {
        use contracts::Value as V;
        match value {
            V::Null => Val::Null,
            V::Bool(v) => Val::Bool(*v),
            V::Int(v) => Val::Int(*v),
            V::Float(v) => Val::Float(*v),
            V::Decimal(v, s) => Val::Dec(*v, u8::try_from(*s).unwrap_or(0)),
            V::Text(v) => Val::Text(v.to_string()),
            V::Timestamp(v) => Val::Ts(*v),
            V::Date(v) => Val::Date(*v),
            V::Duration(v) => Val::Dur(*v),
            V::List(v) => Val::List(v.iter().map(Val::from).collect()),
            V::Histogram(v) => Val::Hist(v.to_vec()),
            V::Ranking(v) => {
                let row = |(value, count): &(contracts::Value, u64)| {
                    Val::List(vec![Val::from(value), Val::Int(*count as i64)])
                };
                Val::List(v.iter().map(row).collect())
            }
        }
    }
}

impl fmt::Display for Val {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Val::Null => write!(f, "null"),
            Val::Bool(v) => write!(f, "{v}"),
            Val::Int(v) => write!(f, "{v}"),
            Val::Float(v) => write!(f, "{v:?}"),
            Val::Dec(v, s) => write!(f, "{}", decimal_text(*v, *s)),
            Val::Text(v) => write!(f, "{v:?}"),
            Val::Ts(v) => write!(f, "{}", instant(*v)),
            Val::Date(v) => write!(f, "{}", super::zone::date_text(*v)),
            Val::Dur(v) => write!(f, "{v}us"),
            Val::List(v) => {
                write!(f, "[")?;
                for (i, item) in v.iter().enumerate() {
                    write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
                }
                write!(f, "]")
            }
            Val::Obj(v) => write!(f, "{v:?}"),
            Val::Hist(v) => {
                write!(f, "[")?;
                for (i, (le, count)) in v.iter().enumerate() {
                    let gap = if i > 0 { ", " } else { "" };
                    match le {
                        Some(le) => write!(f, "{gap}<={le}: {count}")?,
                        None => write!(f, "{gap}rest: {count}")?,
                    }
                }
                write!(f, "]")
            }
        }
    }
}

/// An instant as RFC 3339 text.
pub fn instant(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| format!("{micros}us"), |t| t.to_string())
}

/// `12345`, 2 → `123.45`.
pub fn decimal_text(unscaled: i128, scale: u8) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}
