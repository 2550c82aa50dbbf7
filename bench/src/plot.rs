//! Pictures made of characters.
//!
//! *In*: numbers. *Out*: lines of text. *Never*: a width beyond a terminal.

use std::fmt::Write;

use crate::stats::Latency;

const WIDTH: usize = 40;

/// A bar of `value` beside `most`.
pub(crate) fn bar(value: f64, most: f64) -> String {
    let share = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share * WIDTH as f64 * 8.0).round() as usize;
    let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    format!("{}{part}", "█".repeat(eighths / 8))
}

/// How many samples are in each bucket of latency; empty buckets at the ends are left out.
pub(crate) fn buckets(latency: &Latency) -> String {
    let used = |bucket: &(Option<f64>, u64)| bucket.1 > 0;
    let Some(first) = latency.buckets.iter().position(used) else { return String::new() };
    let last = latency.buckets.iter().rposition(used).unwrap_or(first);
    let shown = &latency.buckets[first..=last];
    let most = shown.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let mut text = String::new();
    for (bound, count) in shown {
        let label = bound.map_or_else(|| "more".to_owned(), |ms| format!("<= {ms} ms"));
        let share = *count as f64 / latency.count as f64 * 100.0;
        writeln!(text, "  {label:>12} {share:6.2} % {}", bar(*count as f64, most as f64))
            .expect("writing to memory does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(bar(1.0, 1.0).chars().count(), WIDTH);
        assert_eq!(bar(0.0, 1.0), "");
        assert_eq!(bar(1.0, 0.0), "");
        let latency = Latency {
            count: 4,
            buckets: vec![(Some(0.5), 0), (Some(1.0), 3), (None, 1)],
            ..Latency::default()
        };
        let text = buckets(&latency);
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("       <= 1 ms  75.00 % ████"), "{text}");
    }
}
