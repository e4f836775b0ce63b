//! The request's body, on its own task.
//!
//! The task reads on beside the parser, and it keeps reading for a while after the parser has given up, so that a client
//! in the middle of its upload sees the answer rather than a broken pipe. The channel between them is small: a slow
//! parser slows the client down.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::problem::Refusal;

/// Pieces between the socket and the parser. hyper hands over at most about 400 KiB at a time.
const PIECES: usize = 2;

/// After a refusal this much is still read, for at most this long.
const DRAIN_BYTES: usize = 8 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// A body on its way in.
#[derive(Debug)]
pub(crate) struct IncomingBody {
    pieces: mpsc::Receiver<Result<Bytes, Refusal>>,
    reading: JoinHandle<()>,
}

impl IncomingBody {
    /// Starts reading. A client that is silent for `idle` has gone; `out_of_time` cuts everybody off.
    pub(crate) fn start(body: Body, idle: Duration, out_of_time: CancellationToken) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        let reading = tokio::spawn(read(body, sender, idle, out_of_time));
        Self { pieces, reading }
    }

    /// The pieces, and a handle to wait until the rest has been drained.
    pub(crate) fn split(
        self,
    ) -> (
        impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
        Drained,
    ) {
        let Self { pieces, reading } = self;
        let pieces = Box::pin(stream::unfold(pieces, async |mut pieces| {
            Some((pieces.recv().await?, pieces))
        }));
        (pieces, Drained(reading))
    }
}

/// Ends when nothing of the body is read any more.
#[derive(Debug)]
pub(crate) struct Drained(JoinHandle<()>);

impl Drained {
    /// Drop the pieces first.
    pub(crate) async fn wait(self) {
        // A panic in there is in the log; there is nothing left to read either way.
        let _ = self.0.await;
    }
}

async fn read(
    body: Body,
    sender: mpsc::Sender<Result<Bytes, Refusal>>,
    idle: Duration,
    out_of_time: CancellationToken,
) {
    let mut body = body.into_data_stream();
    loop {
        let piece = tokio::select! {
            piece = tokio::time::timeout(idle, body.next()) => piece,
            () = sender.closed() => return drain(&mut body).await,
            () = out_of_time.cancelled() => {
                let _ = sender.send(Err(stopping())).await;
                return;
            }
        };
        let piece = match piece {
            Ok(Some(Ok(piece))) => Ok(piece),
            Ok(Some(Err(error))) => Err(incomplete(&error.to_string())),
            Ok(None) => return,
            Err(_) => Err(silent(idle)),
        };
        let failed = piece.is_err();
        if sender.send(piece).await.is_err() {
            return drain(&mut body).await;
        }
        if failed {
            return;
        }
    }
}

async fn drain(body: &mut (impl Stream<Item = Result<Bytes, axum::Error>> + Unpin)) {
    let until = Instant::now() + DRAIN_TIME;
    let mut drained = 0;
    while drained < DRAIN_BYTES {
        match tokio::time::timeout_at(until.into(), body.next()).await {
            Ok(Some(Ok(piece))) => drained += piece.len(),
            _ => return,
        }
    }
}

/// The body ended early: a missing byte, closing boundary or length.
pub(crate) fn incomplete(cause: &str) -> Refusal {
    let message =
        format!("the body ended before the file was complete ({cause}); nothing of it is kept");
    Refusal::unprocessable("incomplete_body", message)
}

fn silent(idle: Duration) -> Refusal {
    let seconds = idle.as_secs();
    let message =
        format!("no byte came for {seconds} s (CARGA_BODY_IDLE_SECS); nothing of the file is kept");
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
}

fn stopping() -> Refusal {
    let message =
        "this server is stopping and the upload did not finish in time; send the file again";
    Refusal::unavailable("interrupted", message)
}
