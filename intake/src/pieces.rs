//! Reads a body or a local file on its own task, in parallel with the parser.
//!
//! The channel between the two is small, so a slow parser slows the client down.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::crowding::Crowding;
use crate::refusal::Refusal;

/// The number of pieces that wait between the socket and the parser. The API's server delivers at
/// most 64 KiB at a time.
const PIECES: usize = 2;

/// How much of its time a client may have used up when others wait for its slot.
const CROWDED_TIME: Duration = Duration::from_millis(1500);

/// The slowest client that is read to its end.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long a client may send nothing.
    pub idle: Duration,
    /// The bytes per second that make up for the time in which Carga waits for the client; 0 for no
    /// minimum.
    pub min_rate: u64,
}

/// The time that Carga may still wait for a client. Waiting uses it up, and each byte adds the time
/// that the byte may take at the minimum rate. The allowance never exceeds `idle`, which bounds a
/// pause of a client that was fast before.
#[derive(Debug)]
struct Allowance {
    pace: Pace,
    left: Duration,
}

impl Allowance {
    fn new(pace: Pace) -> Self {
        Self {
            pace,
            left: pace.idle,
        }
    }

    /// When the client will have used up [`CROWDED_TIME`], if Carga waits for it from `now` on.
    fn crowded_at(&self, now: Instant) -> Instant {
        let used = self.pace.idle.saturating_sub(self.left);
        now + CROWDED_TIME.saturating_sub(used)
    }

    fn record(&mut self, waited: Duration, bytes: usize) {
        let Pace { idle, min_rate } = self.pace;
        if min_rate > 0 {
            let earned = Duration::from_secs_f64(bytes as f64 / min_rate as f64);
            self.left = self
                .left
                .saturating_sub(waited)
                .saturating_add(earned)
                .min(idle);
        }
    }
}

/// Starts reading `body` and yields its pieces. Dropping the stream stops the reading.
///
/// A body that is slower than `pace` is refused. If a request waits for an upload slot, it is
/// refused earlier. Every body is refused once `abort` is cancelled.
pub fn pieces(
    body: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send + 'static,
    pace: Pace,
    crowding: Crowding,
    abort: CancellationToken,
) -> impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send + 'static {
    let (sender, pieces) = mpsc::channel(PIECES);
    tokio::spawn(read(body, sender, pace, crowding, abort));
    Box::pin(stream::unfold(pieces, async |mut pieces| {
        Some((pieces.recv().await?, pieces))
    }))
}

async fn read(
    mut body: impl Stream<Item = Result<Bytes, Refusal>> + Unpin,
    sender: mpsc::Sender<Result<Bytes, Refusal>>,
    pace: Pace,
    crowding: Crowding,
    abort: CancellationToken,
) {
    let mut allowance = Allowance::new(pace);
    loop {
        let started = Instant::now();
        let crowded_at = allowance.crowded_at(started);
        let piece = tokio::select! {
            piece = tokio::time::timeout(allowance.left, body.next()) => match piece {
                Ok(Some(piece)) => piece,
                Ok(None) => return,
                Err(_) => Err(body_timeout(pace, allowance.left)),
            },
            () = crowding.waits_after(crowded_at), if pace.min_rate > 0 => Err(crowded_out(pace)),
            () = sender.closed() => return,
            () = abort.cancelled() => Err(interrupted()),
        };
        allowance.record(started.elapsed(), piece.as_ref().map_or(0, Bytes::len));
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

/// The refusal after Carga has waited `waited` for the client.
fn body_timeout(pace: Pace, waited: Duration) -> Refusal {
    let Pace { idle, min_rate } = pace;
    let reason = match waited < idle {
        true => format!(
            "the body arrives at less than {min_rate} bytes per second (CARGA_BODY_MIN_RATE)"
        ),
        false => format!(
            "no bytes arrived for {} s (CARGA_BODY_IDLE_SECS)",
            idle.as_secs()
        ),
    };
    let message = format!("{reason}; none of the file's rows are kept");
    Refusal::unprocessable("body_timeout", message)
}

/// The refusal of a body that is almost silent while others wait.
fn crowded_out(pace: Pace) -> Refusal {
    let message = format!(
        "the body arrives at less than {} bytes per second (CARGA_BODY_MIN_RATE), and other uploads wait for its slot (CARGA_MAX_UPLOADS); none of the file's rows are kept",
        pace.min_rate
    );
    Refusal::unprocessable("body_timeout", message)
}

pub(crate) fn interrupted() -> Refusal {
    let message = "the server stopped before the upload was complete; send the file again";
    Refusal::unavailable("interrupted", message)
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use tokio::time::sleep;

    use super::*;

    const PACE: Pace = Pace {
        idle: Duration::from_secs(60),
        min_rate: 1024,
    };

    /// A body of pieces of `bytes` bytes, each after a pause.
    fn body(
        count: usize,
        bytes: usize,
        pause: Duration,
    ) -> impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send + 'static {
        let pieces = stream::iter(0..count).then(move |_| async move {
            sleep(pause).await;
            Ok(Bytes::from(vec![b'x'; bytes]))
        });
        Box::pin(pieces)
    }

    async fn read_all(
        body: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send + 'static,
        parser: Duration,
    ) -> Result<usize, Refusal> {
        read_crowded(body, parser, Crowding::new(1)).await
    }

    async fn read_crowded(
        body: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send + 'static,
        parser: Duration,
        crowding: Crowding,
    ) -> Result<usize, Refusal> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let stop = CancellationToken::new();
        tokio::spawn(read(body, sender, PACE, crowding, stop));
        let pieces = stream::unfold(receiver, async |mut pieces| {
            Some((pieces.recv().await?, pieces))
        });
        let sizes = pieces.and_then(|piece| async move {
            sleep(parser).await;
            Ok(piece.len())
        });
        sizes.try_fold(0, async |sum, size| Ok(sum + size)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_a_byte_a_second_is_refused_after_the_idle_time() {
        let started = Instant::now();
        let outcome = read_all(body(10_000, 1, Duration::from_secs(1)), Duration::ZERO).await;
        let refusal = outcome.unwrap_err();
        assert_eq!(refusal.failure.code, "body_timeout");
        assert!(refusal.failure.message.contains("CARGA_BODY_MIN_RATE"));
        assert!(started.elapsed() < Duration::from_secs(62));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_hardly_sends_loses_its_slot_while_another_waits() {
        let started = Instant::now();
        let crowding = Crowding::new(1);
        let slot = crowding.slot().await;
        let slow = body(10_000, 1, Duration::from_secs(1));
        let reading = read_crowded(slow, Duration::ZERO, crowding.clone());
        let reading = tokio::spawn(async move {
            let outcome = reading.await;
            drop(slot);
            outcome
        });
        let fast = read_crowded(
            body(20, 2048, Duration::from_secs(1)),
            Duration::ZERO,
            crowding.clone(),
        );
        let fast = tokio::spawn(fast);
        assert!(crowding.slot().await.is_some());
        // The bytes that it has sent give it a few milliseconds more.
        assert_eq!(started.elapsed().as_secs(), CROWDED_TIME.as_secs());
        let refusal = reading.await.unwrap().unwrap_err();
        assert!(refusal.failure.message.contains("CARGA_MAX_UPLOADS"));
        assert_eq!(fast.await.unwrap().unwrap(), 40_960);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_at_the_minimum_rate_is_read_to_its_end() {
        let slow = body(1_000, 1024, Duration::from_secs(1));
        assert_eq!(read_all(slow, Duration::ZERO).await.unwrap(), 1_024_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_allowed_until_the_idle_time() {
        let pausing = body(3, 100_000, Duration::from_secs(59));
        assert_eq!(read_all(pausing, Duration::ZERO).await.unwrap(), 300_000);
        let silent = body(3, 100_000, Duration::from_secs(61));
        let refusal = read_all(silent, Duration::ZERO).await.unwrap_err();
        assert!(refusal.failure.message.contains("CARGA_BODY_IDLE_SECS"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_slow_parser_does_not_count() {
        let fast = body(100, 10, Duration::ZERO);
        assert_eq!(
            read_all(fast, Duration::from_secs(30)).await.unwrap(),
            1_000
        );
    }
}
