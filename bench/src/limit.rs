//! The program to beat: hand-written, one thread, no engine.
//!
//! *In*: a file of W1. *Out*: its groups. *Never*: more than the work itself: a typed parse of all eleven
//! fields by sonic-rs, two hash maps. Money in floats, as the reference does.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ahash::AHashMap;
use memchr::memchr_iter;
use serde::Deserialize;

use crate::answers::{Cell, Groups};
use crate::error::Error;
use crate::w1::{MINUTE, STATUSES};

/// All fields, borrowed from the line.
#[derive(Deserialize)]
#[allow(dead_code)] // All fields are parsed: that is what makes it the limit of a typed parse.
struct Line<'a> {
    event_id: &'a str,
    event_type: &'a str,
    user_id: &'a str,
    region: &'a str,
    status: &'a str,
    amount: f64,
    currency: &'a str,
    ts: i64,
    created_at: &'a str,
    items: i64,
    source: &'a str,
}

#[derive(Default)]
struct Sums {
    revenue: f64,
    n: u64,
    bad_amount: u64,
    bad_status: u64,
}

#[derive(Default)]
struct State {
    codes: AHashMap<String, u16>,
    cells: AHashMap<(u16, i64), Sums>,
    lines: u64,
}

const BUFFER: usize = 1 << 20;

/// Reads the file and computes the answer.
///
/// # Errors
/// The file cannot be read, or a line is not an event of W1.
pub fn run(path: &Path) -> Result<Groups, Error> {
    let mut file = File::open(path).map_err(Error::file("read", path))?;
    let mut buffer = vec![0; BUFFER];
    let mut state = State::default();
    let mut held = 0;
    loop {
        let read = file.read(&mut buffer[held..]).map_err(Error::file("read", path))?;
        let end = held + read;
        let mut start = 0;
        for newline in memchr_iter(b'\n', &buffer[..end]) {
            state.add(&buffer[start..newline])?;
            start = newline + 1;
        }
        if read == 0 {
            if start < end {
                state.add(&buffer[start..end])?;
            }
            return Ok(state.finish());
        }
        buffer.copy_within(start..end, 0);
        held = end - start;
        if held == BUFFER {
            return Err(Error::Usage(format!("line {}: longer than {BUFFER} bytes", state.lines + 1)));
        }
    }
}

impl State {
    #[inline]
    fn add(&mut self, line: &[u8]) -> Result<(), Error> {
        self.lines += 1;
        let line: Line<'_> = sonic_rs::from_slice(line)
            .map_err(|error| Error::Usage(format!("line {}: {error}", self.lines)))?;
        let code = match self.codes.get(line.region) {
            Some(code) => *code,
            None => {
                let code = self.codes.len() as u16;
                self.codes.insert(line.region.to_owned(), code);
                code
            }
        };
        let sums = self.cells.entry((code, line.ts.div_euclid(MINUTE))).or_default();
        if line.amount <= 0.0 {
            sums.bad_amount += 1;
        } else if !STATUSES.contains(&line.status) {
            sums.bad_status += 1;
        } else {
            sums.revenue += line.amount;
            sums.n += 1;
        }
        Ok(())
    }

    fn finish(self) -> Groups {
        let mut names = vec![String::new(); self.codes.len()];
        for (name, code) in self.codes {
            names[usize::from(code)] = name;
        }
        let cell = |sums: &Sums| Cell {
            revenue: (sums.revenue * 100.0).round() as i64,
            n: sums.n,
            bad_amount: sums.bad_amount,
            bad_status: sums.bad_status,
            avg: None,
        };
        let cells = self.cells.iter();
        Groups(cells.map(|((code, w), sums)| ((names[usize::from(*code)].clone(), *w), cell(sums))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_oracle() {
        let data = crate::w1::make(20_000, None, |_| true).unwrap();
        let found = run(&data.path).unwrap();
        assert_eq!(data.oracle.differences(&found), Vec::<String>::new());
        assert_eq!(found.total().events(), 20_000);
    }

    #[test]
    fn a_broken_line_is_an_error_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "{\"event_id\":1}\n").unwrap();
        assert!(run(&path).unwrap_err().to_string().starts_with("line 1: "));
    }
}
