//! Values of expressions, in three-valued logic.
//!
//! *In*: [`Ex`] and the columns of one row. *Out*: a value, or why the row has none. *Never*: a
//! decimal through a float unless a float takes part.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::num::Rat;
use super::sql::{Ex, Op};
use super::val::Val;

/// Why an expression fails for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fail {
    /// Division by zero.
    Zero,
    /// Beyond 64 bits or 38 digits.
    Overflow,
}

/// The columns of a row, and what may stand before a dot.
#[derive(Debug, Clone, Copy)]
pub struct Env<'a> {
    /// Column to value.
    pub cols: &'a BTreeMap<String, Val>,
    /// `row`, an alias, an entity, a table: its columns, or null where the row has none of it.
    pub parts: &'a BTreeMap<String, Val>,
}

static NO_PARTS: BTreeMap<String, Val> = BTreeMap::new();

impl<'a> Env<'a> {
    /// Columns alone.
    pub fn plain(cols: &'a BTreeMap<String, Val>) -> Env<'a> {
        Env { cols, parts: &NO_PARTS }
    }

    fn column(&self, path: &[String]) -> Val {
        let (first, rest) = path.split_first().expect("a column has a name");
        let part = if rest.is_empty() { None } else { self.parts.get(first) };
        let mut value = match part.or_else(|| self.cols.get(first)) {
            Some(value) => value.clone(),
            None => panic!("no column {path:?} among {:?}", self.cols.keys()),
        };
        for key in rest {
            value = member(&value, key);
        }
        value
    }

    /// The value of `ex` on this row.
    pub fn eval(&self, ex: &Ex) -> Result<Val, Fail> {
        Ok(match ex {
            Ex::Lit(value) => value.clone(),
            Ex::Col(path) => self.column(path),
            Ex::Index(of, key) => member(&self.eval(of)?, key),
            Ex::Not(of) => truth(not(as_bool(&self.eval(of)?))),
            Ex::Neg(of) => negate(&self.eval(of)?)?,
            Ex::Bin(Op::And, a, b) => match as_bool(&self.eval(a)?) {
                Some(false) => Val::Bool(false),
                a => truth(and(a, as_bool(&self.eval(b)?))),
            },
            Ex::Bin(Op::Or, a, b) => match as_bool(&self.eval(a)?) {
                Some(true) => Val::Bool(true),
                a => truth(not(and(not(a), not(as_bool(&self.eval(b)?))))),
            },
            Ex::Bin(op, a, b) => binary(*op, &self.eval(a)?, &self.eval(b)?)?,
            Ex::IsNull(of, negated) => Val::Bool(self.eval(of)?.is_null() != *negated),
            Ex::In(of, list, negated) => {
                let of = self.eval(of)?;
                let mut found = Some(false);
                for item in list {
                    let same = as_bool(&binary(Op::Eq, &of, &self.eval(item)?)?);
                    found = not(and(not(found), not(same)));
                }
                truth(if *negated { not(found) } else { found })
            }
            Ex::Between(of, low, high, negated) => {
                let of = self.eval(of)?;
                let above = as_bool(&binary(Op::Ge, &of, &self.eval(low)?)?);
                let below = as_bool(&binary(Op::Le, &of, &self.eval(high)?)?);
                let inside = and(above, below);
                truth(if *negated { not(inside) } else { inside })
            }
            Ex::Like(of, pattern, negated) => match (self.eval(of)?, self.eval(pattern)?) {
                (Val::Text(of), Val::Text(pattern)) => {
                    let of: Vec<char> = of.chars().collect();
                    let pattern: Vec<char> = pattern.chars().collect();
                    Val::Bool(like(&of, &pattern) != *negated)
                }
                _ => Val::Null,
            },
            Ex::Case(operand, whens, otherwise) => {
                self.case(operand.as_deref(), whens, otherwise.as_deref())?
            }
            Ex::Call(name, args) => self.call(name, args)?,
        })
    }

    /// Does the condition hold: true, not null?
    pub fn holds(&self, ex: Option<&Ex>) -> Result<bool, Fail> {
        match ex {
            Some(ex) => Ok(as_bool(&self.eval(ex)?) == Some(true)),
            None => Ok(true),
        }
    }

    fn case(&self, operand: Option<&Ex>, whens: &[(Ex, Ex)], otherwise: Option<&Ex>) -> Result<Val, Fail> {
        let operand = operand.map(|ex| self.eval(ex)).transpose()?;
        for (when, then) in whens {
            let when = self.eval(when)?;
            let hit = match &operand {
                Some(operand) => as_bool(&binary(Op::Eq, operand, &when)?),
                None => as_bool(&when),
            };
            if hit == Some(true) {
                return self.eval(then);
            }
        }
        otherwise.map_or(Ok(Val::Null), |ex| self.eval(ex))
    }

    fn call(&self, name: &str, args: &[Ex]) -> Result<Val, Fail> {
        if name == "as_of" {
            return Ok(self.cols["as_of()"].clone());
        }
        if let Some(fold) = name.strip_suffix("_of") {
            return self.list_fold(fold, args);
        }
        if name == "coalesce" {
            for arg in args {
                let value = self.eval(arg)?;
                if !value.is_null() {
                    return Ok(value);
                }
            }
            return Ok(Val::Null);
        }
        let args = args.iter().map(|arg| self.eval(arg)).collect::<Result<Vec<_>, _>>()?;
        Ok(match (name, args.as_slice()) {
            ("nullif", [a, b]) => match as_bool(&binary(Op::Eq, a, b)?) {
                Some(true) => Val::Null,
                _ => a.clone(),
            },
            (_, [Val::Null]) => Val::Null,
            ("abs", [a]) => match a {
                Val::Float(v) => Val::Float(v.abs()),
                a if a < &zero_like(a) => negate(a)?,
                a => a.clone(),
            },
            ("lower", [Val::Text(v)]) => Val::Text(v.to_lowercase()),
            ("upper", [Val::Text(v)]) => Val::Text(v.to_uppercase()),
            ("length" | "char_length" | "character_length", [Val::Text(v)]) => {
                Val::Int(v.chars().count() as i64)
            }
            (name, args) => panic!("the oracle has no function {name} over {args:?}"),
        })
    }

    /// `sum_of(list, expression over an item)` and its siblings. Nulls are passed over.
    fn list_fold(&self, fold: &str, args: &[Ex]) -> Result<Val, Fail> {
        let items = match self.eval(&args[0])? {
            Val::List(items) => items,
            _ => Vec::new(),
        };
        let mut values = Vec::new();
        for item in &items {
            let value = match (args.get(1), item) {
                (None, item) => item.clone(),
                (Some(ex), Val::Obj(fields)) => {
                    let cols = fields.iter().cloned().collect();
                    Env::plain(&cols).eval(ex)?
                }
                (Some(ex), item) => {
                    let cols = BTreeMap::from([
                        ("item".to_string(), item.clone()),
                        ("value".to_string(), item.clone()),
                    ]);
                    Env::plain(&cols).eval(ex)?
                }
            };
            if !value.is_null() {
                values.push(value);
            }
        }
        let some = |value: bool| if values.is_empty() { Val::Null } else { Val::Bool(value) };
        Ok(match fold {
            "sum" if values.is_empty() => Val::Int(0),
            "sum" => super::fold::sum(&values).ok_or(Fail::Overflow)?,
            "count" => Val::Int(values.len() as i64),
            "min" => values.iter().min().cloned().unwrap_or(Val::Null),
            "max" => values.iter().max().cloned().unwrap_or(Val::Null),
            "avg" => super::fold::avg(&values),
            "distinct" => Val::Int(values.iter().collect::<std::collections::BTreeSet<_>>().len() as i64),
            "any" => some(values.contains(&Val::Bool(true))),
            "all" => some(!values.contains(&Val::Bool(false))),
            other => panic!("the oracle has no {other}_of"),
        })
    }
}

fn member(value: &Val, key: &str) -> Val {
    match value {
        Val::Obj(fields) => fields.iter().find(|(name, _)| name == key).map_or(Val::Null, |(_, v)| v.clone()),
        Val::Null => Val::Null,
        other => panic!("{other} has no member {key}"),
    }
}

fn as_bool(value: &Val) -> Option<bool> {
    match value {
        Val::Bool(v) => Some(*v),
        Val::Null => None,
        other => panic!("{other} is no condition"),
    }
}

fn truth(value: Option<bool>) -> Val {
    value.map_or(Val::Null, Val::Bool)
}

fn not(value: Option<bool>) -> Option<bool> {
    value.map(|v| !v)
}

fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn zero_like(value: &Val) -> Val {
    match value {
        Val::Dur(_) => Val::Dur(0),
        _ => Val::Int(0),
    }
}

fn negate(value: &Val) -> Result<Val, Fail> {
    Ok(match value {
        Val::Null => Val::Null,
        Val::Int(v) => Val::Int(v.checked_neg().ok_or(Fail::Overflow)?),
        Val::Dec(v, s) => Val::Dec(-v, *s),
        Val::Float(v) => Val::Float(-v),
        Val::Dur(v) => Val::Dur(-v),
        other => panic!("cannot negate {other}"),
    })
}

/// `a op b` for everything but AND and OR; also used for expressions over measures.
pub fn binary(op: Op, a: &Val, b: &Val) -> Result<Val, Fail> {
    if a.is_null() || b.is_null() {
        return Ok(Val::Null);
    }
    let ordering = |wanted: &[Ordering]| Ok(Val::Bool(wanted.contains(&compare(a, b))));
    match op {
        Op::Eq => ordering(&[Ordering::Equal]),
        Op::Ne => ordering(&[Ordering::Less, Ordering::Greater]),
        Op::Lt => ordering(&[Ordering::Less]),
        Op::Le => ordering(&[Ordering::Less, Ordering::Equal]),
        Op::Gt => ordering(&[Ordering::Greater]),
        Op::Ge => ordering(&[Ordering::Greater, Ordering::Equal]),
        Op::Cat => match (a, b) {
            (Val::Text(a), Val::Text(b)) => Ok(Val::Text(format!("{a}{b}"))),
            _ => panic!("|| joins texts, not {a} and {b}"),
        },
        Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Mod => arithmetic(op, a, b),
        Op::And | Op::Or => panic!("AND and OR are evaluated by their parent"),
    }
}

/// Numbers compare by value: exactly, unless a float takes part.
fn compare(a: &Val, b: &Val) -> Ordering {
    match (a, b) {
        (Val::Float(_), Val::Int(_) | Val::Dec(..)) | (Val::Int(_) | Val::Dec(..), Val::Float(_)) => {
            let (a, b) = (a.f64().expect("a number"), b.f64().expect("a number"));
            a.total_cmp(&b)
        }
        _ => a.cmp(b),
    }
}

fn arithmetic(op: Op, a: &Val, b: &Val) -> Result<Val, Fail> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => ints(op, *a, *b),
        (Val::Ts(a), Val::Ts(b)) if op == Op::Sub => Ok(Val::Dur(a - b)),
        (Val::Ts(a), Val::Dur(b)) if op == Op::Add => Ok(Val::Ts(a + b)),
        (Val::Ts(a), Val::Dur(b)) if op == Op::Sub => Ok(Val::Ts(a - b)),
        (Val::Dur(a), Val::Dur(b)) if op == Op::Add => Ok(Val::Dur(a + b)),
        (Val::Dur(a), Val::Dur(b)) if op == Op::Sub => Ok(Val::Dur(a - b)),
        (Val::Float(_), _) | (_, Val::Float(_)) => {
            let (a, b) = (a.f64().expect("a number"), b.f64().expect("a number"));
            floats(op, a, b)
        }
        (Val::Int(_) | Val::Dec(..), Val::Int(_) | Val::Dec(..)) => decimals(op, a, b),
        _ => panic!("{a} {op:?} {b}"),
    }
}

fn ints(op: Op, a: i64, b: i64) -> Result<Val, Fail> {
    let result = match op {
        Op::Add => a.checked_add(b),
        Op::Sub => a.checked_sub(b),
        Op::Mul => a.checked_mul(b),
        _ if b == 0 => return Err(Fail::Zero),
        Op::Div => a.checked_div(b),
        _ => a.checked_rem(b),
    };
    result.map(Val::Int).ok_or(Fail::Overflow)
}

fn floats(op: Op, a: f64, b: f64) -> Result<Val, Fail> {
    let result = match op {
        Op::Add => a + b,
        Op::Sub => a - b,
        Op::Mul => a * b,
        _ if b == 0.0 => return Err(Fail::Zero),
        Op::Div => a / b,
        _ => a % b,
    };
    if result.is_finite() { Ok(Val::Float(result)) } else { Err(Fail::Overflow) }
}

/// `+ -`: the greater scale; `*`: scales add; `/`: the left scale plus 4 (as the dialect's Arrow
/// kernels do), cut towards zero.
fn decimals(op: Op, a: &Val, b: &Val) -> Result<Val, Fail> {
    let scale = |v: &Val| if let Val::Dec(_, s) = v { *s } else { 0 };
    let (sa, sb) = (scale(a), scale(b));
    let (ra, rb) = (a.rat().expect("a number"), b.rat().expect("a number"));
    let (value, scale) = match op {
        Op::Add => (ra.add(&rb), sa.max(sb)),
        Op::Sub => (ra.sub(&rb), sa.max(sb)),
        Op::Mul => (ra.mul(&rb), sa + sb),
        Op::Div => {
            let scale = (sa + 4).min(38);
            let quotient = ra.div(&rb).ok_or(Fail::Zero)?;
            return Ok(Val::Dec(cut(&quotient, scale).ok_or(Fail::Overflow)?, scale));
        }
        _ => {
            let scale = sa.max(sb);
            let quotient = ra.div(&rb).ok_or(Fail::Zero)?;
            let whole = Rat::int(cut(&quotient, 0).ok_or(Fail::Overflow)?);
            (ra.sub(&whole.mul(&rb)), scale)
        }
    };
    match value.round(scale) {
        Some(unscaled) if unscaled.unsigned_abs() < 10u128.pow(38) => Ok(Val::Dec(unscaled, scale)),
        _ => Err(Fail::Overflow),
    }
}

fn cut(value: &Rat, scale: u8) -> Option<i128> {
    let scaled = value.abs().mul(&Rat::int(super::num::ten(u32::from(scale))));
    let whole = i128::try_from(scaled.floor()).ok()?;
    Some(if *value < Rat::int(0) { -whole } else { whole })
}

/// `%` any run, `_` one character, `\` takes the next literally.
fn like(text: &[char], pattern: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('%', rest)) => (0..=text.len()).any(|skip| like(&text[skip..], rest)),
        Some(('_', rest)) => !text.is_empty() && like(&text[1..], rest),
        Some(('\\', rest)) if !rest.is_empty() => {
            text.first() == rest.first() && like(&text[1..], &rest[1..])
        }
        Some((c, rest)) => text.first() == Some(c) && like(&text[1..], rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::sql::parse;

    fn row() -> BTreeMap<String, Val> {
        let item = |quantity: Val, price: i128| {
            Val::Obj(vec![("quantity".into(), quantity), ("price".into(), Val::Dec(price, 2))])
        };
        BTreeMap::from([
            ("amount".into(), Val::Dec(12345, 2)),
            ("n".into(), Val::Int(7)),
            ("big".into(), Val::Int(i64::MAX)),
            ("f".into(), Val::Float(0.5)),
            ("s".into(), Val::Text("Straße".into())),
            ("nothing".into(), Val::Null),
            ("t".into(), Val::Ts(3_600_000_000)),
            ("start".into(), Val::Ts(0)),
            (
                "items".into(),
                Val::List(vec![item(Val::Int(2), 150), item(Val::Null, 999), item(Val::Int(1), 25)]),
            ),
            ("address".into(), Val::Obj(vec![("city".into(), Val::Text("Riga".into()))])),
        ])
    }

    #[track_caller]
    fn check(sql: &str, wanted: &str) {
        let cols = row();
        let parts = BTreeMap::from([("row".to_string(), Val::Obj(cols.clone().into_iter().collect()))]);
        let got = match (Env { cols: &cols, parts: &parts }).eval(&parse(sql)) {
            Ok(value) => value.to_string(),
            Err(fail) => format!("{fail:?}"),
        };
        assert_eq!(got, wanted, "{sql}");
    }

    #[test]
    fn arithmetic_is_exact() {
        check("1 + 2 * 3 - -4", "11");
        check("(1 + 2) * 3", "9");
        check("amount + 0.005", "123.455");
        check("amount * amount", "15239.9025");
        check("amount * 2", "246.90");
        check("row.amount - 1", "122.45");
        check("7 / 2", "3");
        check("-7 / 2", "-3");
        check("-7 % 4", "-3");
        check("n / 0", "Zero");
        check("f / 0", "Zero");
        check("amount / 0.00", "Zero");
        check("big + 1", "Overflow");
        check("big * 1.0", "9223372036854775807.0");
        check("f * 3", "1.5");
        check("nothing + 1", "null");
        check("abs(-n)", "7");
        check("abs(1.50 - amount)", "121.95");
    }

    #[test]
    fn logic_has_three_values() {
        check("nothing = 1 AND false", "false");
        check("nothing = 1 AND true", "null");
        check("nothing = 1 OR true", "true");
        check("NOT nothing = 1", "null");
        check("n IN (1, 7)", "true");
        check("n IN (1, NULL)", "null");
        check("n NOT IN (1, NULL)", "null");
        check("n NOT IN (1, 2)", "true");
        check("nothing IS NULL AND n IS NOT NULL", "true");
        check("n BETWEEN 7 AND 8", "true");
        check("n NOT BETWEEN 7 AND 8", "false");
        check("n <> 0 AND 10 / n > 0", "true");
        check("n = 0 AND 10 / 0 > 0", "false");
        check("0.50 = f", "true");
        check("amount >= 123.450", "true");
    }

    #[test]
    fn texts_and_times() {
        check("upper(s)", "\"STRASSE\"");
        check("lower(s) || '!'", "\"straße!\"");
        check("length(s)", "6");
        check("s LIKE 'Str%'", "true");
        check("s LIKE '_traß_'", "true");
        check("s NOT LIKE '%x%'", "true");
        check("'50%' LIKE '50\\%'", "true");
        check("t - start", "3600000000us");
        check("t - start <= INTERVAL '1 hour'", "true");
        check("t + INTERVAL '30 minutes' > t", "true");
        check("address['city']", "\"Riga\"");
        check("'it''s'", "\"it's\"");
    }

    #[test]
    fn case_and_coalesce_are_lazy() {
        check("CASE WHEN n > 100 THEN 1 / 0 WHEN n > 5 THEN 2 ELSE 3 END", "2");
        check("CASE n WHEN 1 THEN 'a' WHEN 7 THEN 'b' END", "\"b\"");
        check("CASE WHEN nothing = 1 THEN 1 END", "null");
        check("coalesce(nothing, n, 1 / 0)", "7");
        check("nullif(n, 7)", "null");
    }

    #[test]
    fn lists() {
        check("sum_of(items, quantity * price)", "3.25");
        check("count_of(items)", "3");
        check("count_of(items, quantity)", "2");
        check("max_of(items, price)", "9.99");
        check("any_of(items, quantity > 1)", "true");
        check("all_of(items, quantity > 1)", "false");
        check("sum_of(nothing, quantity)", "0");
        check("min_of(nothing, price)", "null");
    }
}
