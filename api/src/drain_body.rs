//! Drains what the handler has left unread of a request's body.
//!
//! A client in the middle of its upload reads no answer before it has sent more. Closing the
//! connection at once would show it a broken pipe instead of the reason. So a part of the rest
//! is read and thrown away. If more than that is left, the connection is closed after the
//! answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use futures::{Stream, StreamExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// How much of the rest is read, and for how long at most.
const DRAIN_BYTES: usize = 8 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Drains the rest of the body after the handler has answered.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let expects_continue = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let (give_back, unread) = oneshot::channel();
    let body = Body::from_stream(BorrowedBody {
        body: Some(body.into_data_stream()),
        was_polled: false,
        give_back: Some(give_back),
    });
    let mut response = next.run(Request::from_parts(parts, body)).await;

    let until = Instant::now() + DRAIN_TIME;
    let whole = match timeout_at(until, unread).await {
        // The body was read to its end, so it was not given back.
        Ok(Err(_)) => true,
        // A client that sent `Expect: 100-continue` waits for permission to send the body. If
        // nothing was read, it has sent nothing, and reading now would give the permission.
        Ok(Ok(unread)) if expects_continue && !unread.was_polled => false,
        Ok(Ok(unread)) => drain(unread.body, until).await,
        Err(_) => false,
    };
    if !whole {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns true if the body was read to its end.
async fn drain(mut body: BodyDataStream, until: Instant) -> bool {
    let mut drained = 0;
    while drained < DRAIN_BYTES {
        match timeout_at(until, body.next()).await {
            Ok(Some(Ok(piece))) => drained += piece.len(),
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
    false
}

/// A body that is given back when it is dropped before its end.
struct BorrowedBody {
    body: Option<BodyDataStream>,
    was_polled: bool,
    give_back: Option<oneshot::Sender<UnreadBody>>,
}

struct UnreadBody {
    body: BodyDataStream,
    was_polled: bool,
}

impl Stream for BorrowedBody {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.was_polled = true;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let piece = body.poll_next_unpin(cx);
        if matches!(piece, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        piece
    }
}

impl Drop for BorrowedBody {
    fn drop(&mut self) {
        if let (Some(body), Some(give_back)) = (self.body.take(), self.give_back.take()) {
            let was_polled = self.was_polled;
            // Sending fails only if the request was dropped, and then no layer waits.
            let _ = give_back.send(UnreadBody { body, was_polled });
        }
    }
}
