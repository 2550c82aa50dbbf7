//! Tokens: "up to here" as text.
//!
//! *In*: partition offsets. *Out*: base64url JSON and the wait until a published state contains
//! them. *Never*: a secret; a token that another server could not read.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contracts::batch::Partition;
use engine::Published;
use serde::{Deserialize, Serialize};

use crate::app::{App, Live};
use crate::error::{Problem, Result};

/// Offsets that an answer contains (answers) or must contain (`after=`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// Format.
    v: u8,
    /// Source, topic, partition number, next offset.
    o: Vec<(Arc<str>, Arc<str>, i32, i64)>,
}

impl Token {
    /// One partition, up to but not including `next`.
    pub(crate) fn single(partition: &Partition, next: i64) -> Token {
        Token { v: 1, o: vec![(partition.source.clone(), partition.topic.clone(), partition.number, next)] }
    }

    /// All a published state contains.
    pub(crate) fn of(published: &Published) -> Token {
        let o = published
            .offsets
            .iter()
            .map(|(p, progress)| (p.source.clone(), p.topic.clone(), p.number, progress.next))
            .collect();
        Token { v: 1, o }
    }

    /// As text.
    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// From text.
    pub(crate) fn decode(text: &str) -> Option<Token> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
        serde_json::from_slice::<Token>(&bytes).ok().filter(|t| t.v == 1)
    }

    fn contained(&self, published: &Published) -> bool {
        self.o.iter().all(|(source, topic, number, next)| {
            let partition = Partition { source: source.clone(), topic: topic.clone(), number: *number };
            published.offsets.get(&partition).is_some_and(|p| p.next >= *next) || *next <= 0
        })
    }
}

/// The newest published state, once it contains `after`; 412 at once without a wait, 504 when the
/// wait is over.
pub(crate) async fn published_after(
    app: &Arc<App>,
    after: Option<&str>,
    wait: Option<Duration>,
) -> Result<(Arc<Live>, Arc<Published>)> {
    let Some(text) = after else {
        return app.published();
    };
    let token = Token::decode(text)
        .ok_or_else(|| Problem::parameter("after", text, "is not a token that this server gave out"))?;
    let deadline = wait.map(|w| tokio::time::Instant::now() + w);
    let mut ticks = app.ticks();
    loop {
        ticks.borrow_and_update();
        // Nothing of a generation is held while waiting.
        let (live, published) = app.published()?;
        if token.contained(&published) {
            return Ok((live, published));
        }
        drop((live, published));
        let Some(deadline) = deadline else {
            return Err(Problem::new(
                StatusCode::PRECONDITION_FAILED,
                "not_contained",
                "The events of this token are not published yet. Add wait=5s to wait for them.",
            ));
        };
        let timed_out = tokio::select! {
            changed = ticks.changed() => changed.is_err(),
            () = tokio::time::sleep_until(deadline) => true,
        };
        if timed_out {
            return Err(Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "not_contained_in_time",
                "The events of this token were not published within the wait. See /readyz?verbose for the lag.",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let partition = Partition { source: "push".into(), topic: "log".into(), number: 0 };
        let token = Token::single(&partition, 42);
        let text = token.encode();
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{text}");
        assert_eq!(Token::decode(&text), Some(token));
        assert_eq!(Token::decode("garbage"), None);
        assert_eq!(Token::decode(""), None);
    }
}
