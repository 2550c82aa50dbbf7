//! Standard output of the commands.
//!
//! *In*: lines, tables, JSON. *Out*: standard output; a reader that has gone away (`| head`) ends the
//! command quietly. *Never*: a panic on a closed pipe, colours into a pipe.

use std::io::{IsTerminal, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Prints one line.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => { $crate::cli::out::line(format_args!($($arg)*)) };
}

/// Prints one line; see [`say!`].
pub fn line(text: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // A closed pipe is the reader's wish to end; the next write of the command ends it too.
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        closed();
    }
}

#[allow(clippy::disallowed_methods)] // Nothing to clean up: the reader is gone and only output was left.
fn closed() -> ! {
    std::process::exit(0)
}

/// Prints a value as JSON: indented on a terminal, one line in a pipe.
pub fn json(value: &impl serde::Serialize) {
    let text = if on_terminal() { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    line(format_args!("{}", text.expect("values of ours have text keys")));
}

/// Is standard output a terminal?
pub fn on_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A table: plain columns, right-aligned where a column's name is in `right`.
pub fn table(header: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(if on_terminal() {
        ContentArrangement::Dynamic
    } else {
        ContentArrangement::Disabled
    });
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for index in right {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// A cell of an answer for people: text without quotes, null as a dash.
pub fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".into(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn tables_have_no_trailing_blanks() {
        let text = table(&["a", "b"], vec![vec!["x".into(), "12".into()]], &[1]);
        assert!(text.lines().all(|l| !l.ends_with(' ')), "{text:?}");
        assert!(text.contains('x') && text.contains("12"));
    }
}
