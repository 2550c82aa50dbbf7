//! Random expressions: each that type-checks has a physical plan, never panics, and says the same of a
//! row whatever batch it is in.

use super::*;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn number(&mut self, depth: usize) -> String {
        let leaf = depth == 0;
        match if leaf { self.below(2) } else { self.below(16) } {
            0 => self.pick(&["total", "count", "score"]).to_owned(),
            1 => self.pick(&["0", "1", "2", "0.5", "100.25", "9223372036854775807", "1e3", "-3"]).to_owned(),
            2..=6 => {
                let op = self.pick(&["+", "-", "*", "/", "%"]);
                format!("({} {op} {})", self.number(depth - 1), self.number(depth - 1))
            }
            7 => format!("abs({})", self.number(depth - 1)),
            8 => format!("round({}, {})", self.number(depth - 1), self.below(4)),
            9 => format!("coalesce({}, {})", self.number(depth - 1), self.number(depth - 1)),
            10 => format!("nullif({}, {})", self.number(depth - 1), self.number(depth - 1)),
            11 => format!(
                "CASE WHEN {} THEN {} ELSE {} END",
                self.condition(depth - 1),
                self.number(depth - 1),
                self.number(depth - 1)
            ),
            12 => format!("length({})", self.text(depth - 1)),
            13 => format!(
                "CAST({} AS {})",
                self.number(depth - 1),
                self.pick(&["INT", "DOUBLE", "DECIMAL(12,3)"])
            ),
            14 => self
                .pick(&[
                    "sum_of(items, quantity)",
                    "sum_of(items, quantity / (quantity - 1))",
                    "avg_of(items, unit_price)",
                    "max_of(items, unit_price * quantity)",
                    "count_of(items, quantity > 1)",
                    "distinct_of(tags, item)",
                ])
                .to_owned(),
            _ => format!("-({})", self.number(depth - 1)),
        }
    }

    fn text(&mut self, depth: usize) -> String {
        match if depth == 0 { self.below(2) } else { self.below(7) } {
            0 => self.pick(&["id", "status", "url"]).to_owned(),
            1 => self.pick(&["'paid'", "''", "'/'", "'é'"]).to_owned(),
            2 => format!("upper({})", self.text(depth - 1)),
            3 => format!("({} || {})", self.text(depth - 1), self.text(depth - 1)),
            4 => format!("coalesce({}, {})", self.text(depth - 1), self.text(depth - 1)),
            5 => format!("substr({}, {})", self.text(depth - 1), self.below(4)),
            _ => format!("CASE WHEN {} THEN {} END", self.condition(depth - 1), self.text(depth - 1)),
        }
    }

    fn condition(&mut self, depth: usize) -> String {
        let comparison = self.pick(&["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM"]);
        match if depth == 0 { self.below(3) } else { self.below(9) } {
            0 => "paid".to_owned(),
            1 => format!("{} {comparison} {}", self.number(0), self.number(0)),
            2 => format!("{} {comparison} {}", self.text(0), self.text(0)),
            3 => {
                let op = self.pick(&["AND", "OR"]);
                format!("({} {op} {})", self.condition(depth - 1), self.condition(depth - 1))
            }
            4 => format!("NOT ({})", self.condition(depth - 1)),
            5 => format!("{} {comparison} {}", self.number(depth - 1), self.number(depth - 1)),
            6 => format!("{} IN ({}, {})", self.text(depth - 1), self.text(0), self.text(0)),
            7 => format!("{} LIKE '%a%'", self.text(depth - 1)),
            _ => format!("({}) IS NULL", self.number(depth - 1)),
        }
    }
}

#[test]
fn random_expressions_say_the_same_of_a_row_in_any_batch() {
    let (batch, mut random, mut compiled) = (orders(), Random(11), 0);
    for round in 0..1_500 {
        let depth = 1 + round % 3;
        let sql = match round % 3 {
            0 => random.number(depth),
            1 => random.condition(depth),
            _ => random.text(depth),
        };
        let Ok(typed) = compile(&sql, &Scope::new(batch.schema())) else { continue };
        compiled += 1;
        let plan = Compiled::new(&typed).unwrap_or_else(|error| panic!("{error}"));
        let whole = plan.evaluate(&batch);
        assert_eq!(whole.values.data_type(), &typed.data_type(), "{sql}");
        for row in 0..ROWS {
            let alone = plan.evaluate(&batch.slice(row, 1));
            assert_eq!(shown(&alone)[0], shown(&whole)[row], "{sql} row {row}");
        }
    }
    assert!(compiled > 900, "{compiled}");
}
