//! Reads a body or a local file on its own task, in parallel with the parser.
//!
//! The channel between the two is small, so a slow parser slows the client down.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::refusal::Refusal;

/// The number of pieces that wait between the socket and the parser. hyper delivers at most
/// about 400 KiB at a time.
const PIECES: usize = 2;

/// Starts reading `body` and yields its pieces. A body that is silent for `idle` is refused,
/// and so is every body once `abort` is cancelled. Dropping the stream stops the reading.
pub fn pieces(
    body: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send + 'static,
    idle: Duration,
    abort: CancellationToken,
) -> impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send + 'static {
    let (sender, pieces) = mpsc::channel(PIECES);
    tokio::spawn(read(body, sender, idle, abort));
    Box::pin(stream::unfold(pieces, async |mut pieces| {
        Some((pieces.recv().await?, pieces))
    }))
}

async fn read(
    mut body: impl Stream<Item = Result<Bytes, Refusal>> + Unpin,
    sender: mpsc::Sender<Result<Bytes, Refusal>>,
    idle: Duration,
    abort: CancellationToken,
) {
    loop {
        let piece = tokio::select! {
            piece = tokio::time::timeout(idle, body.next()) => piece,
            () = sender.closed() => return,
            () = abort.cancelled() => {
                let _ = sender.send(Err(interrupted())).await;
                return;
            }
        };
        let piece = match piece {
            Ok(Some(piece)) => piece,
            Ok(None) => return,
            Err(_) => Err(body_timeout(idle)),
        };
        let failed = piece.is_err();
        if sender.send(piece).await.is_err() || failed {
            return;
        }
    }
}

/// The refusal of a body that ended early: a byte, the closing boundary or the declared length
/// is missing.
pub fn incomplete(cause: &str) -> Refusal {
    let message =
        format!("the body ended before the file was complete ({cause}); none of its rows are kept");
    Refusal::unprocessable("incomplete_body", message)
}

fn body_timeout(idle: Duration) -> Refusal {
    let seconds = idle.as_secs();
    let message = format!(
        "no bytes arrived for {seconds} s (CARGA_BODY_IDLE_SECS); none of the file's rows are kept"
    );
    Refusal::unprocessable("body_timeout", message)
}

fn interrupted() -> Refusal {
    let message = "the server stopped before the upload was complete; send the file again";
    Refusal::unavailable("interrupted", message)
}
