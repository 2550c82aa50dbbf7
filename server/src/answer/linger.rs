//! What becomes of the rest of a body whose request is answered early (413, 422, 503).
//!
//! *In*: a request. *Out*: the same; what is not read of its body is read and thrown away for a while, as nginx does with
//! `lingering_close`. *Never*: a connection closed below a client that still sends, which would see a broken pipe in place
//! of the answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header;
use futures::{Stream, StreamExt};

/// Longest pause of a client that is still read from.
const IDLE: Duration = Duration::from_secs(1);

/// Longest time a client is read from after its answer.
const LONGEST: Duration = Duration::from_secs(10);

/// A client that waits for `100 Continue` sends nothing after an early answer: its body stays as it is.
pub(super) fn linger(request: Request) -> Request {
    if request.body().is_end_stream() || request.headers().contains_key(header::EXPECT) {
        return request;
    }
    request.map(|body| Body::from_stream(Lingering { body: Some(body.into_data_stream()) }))
}

/// A body that is read to its end even when it is dropped before.
struct Lingering {
    /// None once the end was seen.
    body: Option<BodyDataStream>,
}

impl Stream for Lingering {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let next = body.poll_next_unpin(context);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        next
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let (Some(body), Ok(runtime)) = (self.body.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(tokio::time::timeout(LONGEST, read_off(body)));
    }
}

/// Ends with the body, with its first error, or when nothing came for [`IDLE`].
async fn read_off(mut body: BodyDataStream) {
    while let Ok(Some(Ok(_))) = tokio::time::timeout(IDLE, body.next()).await {}
}
