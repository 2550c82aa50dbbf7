//! `streamgauge tap EVENT`: the admitted events of a running server, as they come.
//!
//! *In*: an event type, a key. *Out*: a line per admitted event. *Never*: events left out in silence: what a
//! slow terminal missed is said.

use std::io::Read;

use serde_json::Value;

use super::client::{Client, Server};
use super::exit::{Exit, Failure, Outcome};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  streamgauge tap order.created\n  streamgauge tap --key ORD-20260401-1001 --json\n  streamgauge tap order.created --count 10"
)]
pub struct Args {
    /// Event type; default: all
    event: Option<String>,
    /// Only events of this key
    #[arg(long)]
    key: Option<String>,
    /// Stop after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print each event as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Watches until interrupted or `--count` is reached.
pub fn run(args: Args) -> Outcome {
    let client = Client::new(&args.server);
    let mut query = Vec::new();
    query.extend(args.event.map(|event| ("type", event)));
    query.extend(args.key.map(|key| ("key", key)));
    let mut stream = Stream::new(client.stream("/v1/stream/events", &query)?);
    let mut seen = 0;
    while args.count.is_none_or(|count| seen < count) {
        let Some(message) = stream.message()? else { break };
        if message.event == "drain" || message.data.is_empty() {
            continue;
        }
        let Ok(data) = serde_json::from_str::<Value>(&message.data) else { continue };
        if message.event == "missed" {
            eprintln!("notice: {}", message.data);
            continue;
        }
        seen += 1;
        if args.json {
            crate::say!("{data}");
        } else {
            crate::say!("{}", line(&data));
        }
    }
    Ok(Exit::Ok)
}

fn line(data: &Value) -> String {
    let first = |names: &[&str]| {
        names.iter().find_map(|n| data.get(*n)).map(super::out::cell).unwrap_or_else(|| "-".into())
    };
    let body = data.get("data").or_else(|| data.get("event")).unwrap_or(data);
    format!("{}  {}  {}", first(&["time", "timestamp"]), first(&["type", "event_type"]), body)
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `event:`, `message` where absent.
    pub event: String,
    /// `data:` lines joined.
    pub data: String,
}

/// Cuts a byte stream into server-sent events (WHATWG HTML, 9.2).
pub struct Stream<R> {
    from: R,
    buffer: Vec<u8>,
}

impl<R: Read> Stream<R> {
    /// Reads from `from`.
    pub fn new(from: R) -> Self {
        Self { from, buffer: Vec::new() }
    }

    /// The next event; `None` when the stream has ended. Comments (heartbeats) are passed over.
    pub fn message(&mut self) -> Result<Option<Message>, Failure> {
        const MOST: usize = 64 << 20;
        loop {
            if let Some(end) = find(&self.buffer, b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(message) = parse(&String::from_utf8_lossy(&block)) {
                    return Ok(Some(message));
                }
                continue;
            }
            if self.buffer.len() > MOST {
                return Err(Failure::new(Exit::Failed, "the server sent an event longer than 64 MiB"));
            }
            let mut chunk = [0; 16 << 10];
            match self.from.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(n) => self.buffer.extend(chunk[..n].iter().filter(|b| **b != b'\r')),
                Err(error) => {
                    return Err(Failure::new(Exit::Unreachable, format!("the stream ended: {error}")));
                }
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn parse(block: &str) -> Option<Message> {
    let mut message = Message { event: "message".into(), data: String::new() };
    let mut any = false;
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => message.event = value.to_owned(),
            "data" => {
                if any {
                    message.data.push('\n');
                }
                any = true;
                message.data.push_str(value);
            }
            _ => {}
        }
    }
    any.then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_wherever_the_bytes_break() {
        struct Slow(Vec<u8>);
        impl Read for Slow {
            fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                let n = self.0.len().min(3);
                into[..n].copy_from_slice(&self.0[..n]);
                self.0.drain(..n);
                Ok(n)
            }
        }
        let text = ": hello\n\nevent: change\r\nid: 1\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata: x\n\n";
        let mut stream = Stream::new(Slow(text.as_bytes().to_vec()));
        let first = stream.message().unwrap().unwrap();
        assert_eq!(first, Message { event: "change".into(), data: "{\"a\":\n1}".into() });
        assert_eq!(stream.message().unwrap().unwrap().data, "x");
        assert!(stream.message().unwrap().is_none());
    }
}
