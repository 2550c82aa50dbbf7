//! A JUnit report, as CI systems read it.
//!
//! *In*: verdicts. *Out*: XML. *Never*: text that XML cannot hold.

use super::Verdict;

/// The XML text.
pub fn report(verdicts: &[Verdict]) -> String {
    let failed = verdicts.iter().filter(|v| !v.passed).count();
    let seconds: f64 = verdicts.iter().map(|v| v.seconds).sum();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"streamgauge\" tests=\"{0}\" failures=\"{failed}\" \
         time=\"{seconds:.3}\">\n  <testsuite name=\"contracts\" tests=\"{0}\" failures=\"{failed}\" time=\"{seconds:.3}\">\n",
        verdicts.len()
    );
    for verdict in verdicts {
        xml.push_str(&format!(
            "    <testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\" time=\"{:.3}\"",
            escape(&verdict.metric),
            escape(&verdict.name),
            escape(&verdict.file),
            verdict.line,
            verdict.seconds
        ));
        if verdict.passed {
            xml.push_str("/>\n");
            continue;
        }
        let first = verdict.differences.first().map_or("", String::as_str);
        let all: Vec<&str> = verdict.differences.iter().chain(&verdict.notes).map(String::as_str).collect();
        xml.push_str(&format!(
            ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>\n",
            escape(first),
            escape(&all.join("\n"))
        ));
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// Text that XML 1.0 can hold: markup escaped, control characters left out.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if (c as u32) < 0x20 || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let verdict = Verdict {
            metric: "m".into(),
            name: "a < b & \"c\"".into(),
            file: "f.yaml".into(),
            line: 3,
            passed: false,
            differences: vec!["1h: expected 1, got 2".into()],
            notes: vec![],
            seconds: 0.01,
        };
        let xml = report(&[verdict]);
        assert!(xml.contains("name=\"a &lt; b &amp; &quot;c&quot;\""), "{xml}");
        assert!(xml.contains("failures=\"1\"") && xml.contains("expected 1, got 2"));
    }
}
