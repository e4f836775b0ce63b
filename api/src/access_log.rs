//! One line in the log for each request, with the target `carga_api::access_log`. Its level is
//! `info`, and `debug` for health checks, preflight requests and requests that a limit has refused.
//!
//! The line is written when the answer is sent or abandoned, so its duration covers the whole
//! exchange. Without an answer, because the client has left, it has no status. It has no value of
//! the query and no header, because both may contain secrets. The secret of a key in the path is
//! masked. Without its level, a request costs one more check.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tracing::Level;

use crate::caller::Caller;
use crate::marks::RefusedByLimit;
use crate::paths::is_health_check;
use crate::preflight::asks_for_permission;

/// The target of the lines.
const TARGET: &str = "carga_api::access_log";

/// The line of a request that is being answered. Dropping it writes it.
#[derive(Debug)]
pub(crate) struct AccessLine {
    began: Instant,
    method: Method,
    route: Option<MatchedPath>,
    path: String,
    request_id: String,
    trace_id: String,
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    /// `None` before there is an answer.
    status: Option<u16>,
    is_routine: bool,
    sender: Option<String>,
    tenant: Option<String>,
}

impl AccessLine {
    /// Begins the line of a request; `None` if no filter selects it. `path` is that of the request,
    /// without secrets.
    pub(crate) fn begin(request: &Request, path: &str, request_id: &str) -> Option<Self> {
        // Probes send health checks every few seconds, and browsers a preflight request before many
        // requests.
        let is_routine = is_health_check(path) || asks_for_permission(request);
        let is_wanted = match is_routine {
            true => tracing::event_enabled!(target: TARGET, Level::DEBUG),
            false => tracing::event_enabled!(target: TARGET, Level::INFO),
        };
        is_wanted.then(|| Self {
            began: Instant::now(),
            method: request.method().clone(),
            route: request.extensions().get::<MatchedPath>().cloned(),
            path: path.to_owned(),
            request_id: request_id.to_owned(),
            trace_id: String::new(),
            received: Arc::default(),
            sent: Arc::default(),
            status: None,
            is_routine,
            sender: None,
            tenant: None,
        })
    }

    /// Adds the id of the trace, and counts the bytes of the body from here on.
    pub(crate) fn follow(&mut self, request: Request, trace_id: &str) -> Request {
        trace_id.clone_into(&mut self.trace_id);
        let bytes = Arc::clone(&self.received);
        request.map(|body| {
            Body::new(CountedBody {
                body,
                bytes,
                _line: None,
            })
        })
    }

    /// Writes the line once the answer is sent.
    pub(crate) fn end_with(mut self, response: Response) -> Response {
        self.status = Some(response.status().as_u16());
        self.is_routine |= response.extensions().get::<RefusedByLimit>().is_some();
        if let Some(caller) = response.extensions().get::<Caller>() {
            self.sender = caller.key_id().map(str::to_owned);
            self.tenant = Some(caller.tenant().to_string());
        }
        response.map(|body| {
            Body::new(CountedBody {
                body,
                bytes: Arc::clone(&self.sent),
                _line: Some(self),
            })
        })
    }

    fn write(&self) {
        macro_rules! write_at {
            ($level:ident) => {
                tracing::$level!(
                    target: TARGET,
                    // The line names everything itself, so that it can be read alone.
                    parent: None,
                    method = %self.method,
                    route = self.route.as_ref().map(MatchedPath::as_str),
                    path = self.path,
                    status = self.status,
                    duration_ms = self.began.elapsed().as_micros() as f64 / 1000.0,
                    bytes_in = self.received.load(Ordering::Relaxed),
                    bytes_out = self.sent.load(Ordering::Relaxed),
                    request.id = self.request_id,
                    sender = self.sender,
                    tenant = self.tenant,
                    trace.id = self.trace_id,
                    "request"
                )
            };
        }
        match self.is_routine {
            true => write_at!(debug),
            false => write_at!(info),
        }
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        self.write();
    }
}

/// A body whose bytes are counted.
struct CountedBody {
    body: Body,
    bytes: Arc<AtomicU64>,
    /// The line of the request that this body answers. It is written when the body is dropped.
    _line: Option<AccessLine>,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
