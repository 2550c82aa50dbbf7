//! Which topics a source means.
//!
//! *In*: names, globs and regular expressions. *Out*: a yes or no per topic. *Never*: Kafka's own
//! topics (`__consumer_offsets`) through a pattern.

use regex::Regex;

use crate::receive::ReceiveError;

/// One entry of `topics`.
#[derive(Debug, Clone)]
pub(super) enum TopicPattern {
    /// Exactly this topic.
    Name(String),
    /// Every topic that matches.
    Pattern(Regex),
}

impl TopicPattern {
    pub(super) fn matches(&self, topic: &str) -> bool {
        match self {
            Self::Name(name) => name == topic,
            Self::Pattern(regex) => !topic.starts_with("__") && regex.is_match(topic),
        }
    }
}

/// Kafka's rule for topic names.
fn is_name(text: &str) -> bool {
    (1..=249).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

pub(super) fn parse(source: &str, topics: &[String]) -> Result<Vec<TopicPattern>, ReceiveError> {
    let wrong = |found: &str, problem: String| ReceiveError::Setting {
        source_name: source.into(),
        setting: "kafka.topics".into(),
        found: found.into(),
        problem,
    };
    if topics.is_empty() {
        return Err(wrong("[]", "name at least one topic".into()));
    }
    let parse_one = |text: &String| {
        if is_name(text) {
            return Ok(TopicPattern::Name(text.clone()));
        }
        let (regex, what) = if text.starts_with('^') {
            (text.clone(), "regular expression")
        } else if text.contains(['*', '?', '[']) {
            (glob(text), "glob")
        } else {
            let allowed = "letters, digits, `.`, `_` and `-`, at most 249; a glob has `*`, `?` or `[..]`; \
                           a regular expression starts with `^`";
            return Err(wrong(text, format!("not a topic name: {allowed}")));
        };
        let regex = Regex::new(&regex).map_err(|e| wrong(text, format!("not a {what}: {e}")))?;
        Ok(TopicPattern::Pattern(regex))
    };
    topics.iter().map(parse_one).collect()
}

fn glob(text: &str) -> String {
    let mut regex = String::from("^");
    let mut in_class = false;
    for c in text.chars() {
        match c {
            '*' if !in_class => regex.push_str(".*"),
            '?' if !in_class => regex.push('.'),
            '[' => {
                in_class = true;
                regex.push('[');
            }
            ']' => {
                in_class = false;
                regex.push(']');
            }
            '!' if in_class && regex.ends_with('[') => regex.push('^'),
            c if in_class => regex.push(c),
            c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    regex.push('$');
    regex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(pattern: &str, topics: &[&str]) -> Vec<String> {
        let parsed = parse("s", &[pattern.into()]).unwrap();
        topics.iter().filter(|t| parsed[0].matches(t)).map(|t| (*t).into()).collect()
    }

    #[test]
    fn names_globs_and_regular_expressions() {
        let all = ["shop.orders", "shop.orders2", "shopXorders", "shop.users", "__consumer_offsets"];
        assert_eq!(hits("shop.orders", &all), ["shop.orders"]);
        assert_eq!(hits("shop.*", &all), ["shop.orders", "shop.orders2", "shop.users"]);
        assert_eq!(hits("shop?orders", &all), ["shop.orders", "shopXorders"]);
        assert_eq!(hits("shop.[ou]*s", &all), ["shop.orders", "shop.users"]);
        assert_eq!(hits("shop.[!o]*", &all), ["shop.users"]);
        assert_eq!(hits("^shop\\.(orders|users)$", &all), ["shop.orders", "shop.users"]);
        assert_eq!(hits("*", &all).len(), 4, "a pattern never takes Kafka's own topics");
    }

    #[test]
    fn a_wrong_topic_says_what_is_allowed() {
        let message = |topics: &[&str]| {
            let topics: Vec<String> = topics.iter().map(|t| (*t).into()).collect();
            parse("shop", &topics).unwrap_err().to_string()
        };
        assert_eq!(message(&[]), "source `shop`: kafka.topics: found `[]`: name at least one topic");
        assert!(message(&["a b"]).contains("found `a b`: not a topic name: letters, digits"));
        assert!(message(&["^(a"]).contains("not a regular expression"), "{}", message(&["^(a"]));
    }
}
