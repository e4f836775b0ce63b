//! What an error means for a delivery: one function, and the waiting for what time cures.

use std::time::Duration;

use carga_common::error::{ErrorKind, PortError, PortResult};
use carga_common::queue::{Delivery, RetryTier};
use tokio_util::sync::CancellationToken;

/// Waits between attempts start here and double up to five seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What becomes of a batch that was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Once more, after a while.
    Retry(RetryTier),
    /// It will not get better.
    DeadLetter,
}

impl Outcome {
    /// Decides by kind and by how often the batch has been tried. *Unavailable* never comes here while the worker runs: it
    /// is waited for in place.
    pub(crate) fn of(kind: ErrorKind, attempt: u32) -> Self {
        match kind {
            ErrorKind::Invalid | ErrorKind::NotFound => Self::DeadLetter,
            ErrorKind::Internal | ErrorKind::Conflict | ErrorKind::Unavailable => {
                RetryTier::after(attempt).map_or(Self::DeadLetter, Self::Retry)
            }
        }
    }
}

/// Settles a delivery that failed. If the broker is away, it is dropped, and the broker gives it to somebody again.
pub(crate) async fn settle_failed(delivery: Delivery, kind: ErrorKind, reason: &str) {
    let attempt = delivery.attempt;
    let outcome = Outcome::of(kind, attempt);
    tracing::warn!(batch = ?delivery.id, attempt, reason, ?outcome, "a batch failed");
    let settled = match outcome {
        Outcome::Retry(tier) => delivery.retry(tier).await,
        Outcome::DeadLetter => delivery.dead_letter(reason).await,
    };
    if let Err(error) = settled {
        tracing::warn!(
            error = error.chain(),
            "a failed batch goes back to the queue"
        );
    }
}

/// Repeats an operation for as long as its server is away, without charging the batch for it. None when the worker stops
/// meanwhile.
pub(crate) async fn patiently<T, F>(
    stop: &CancellationToken,
    mut operation: impl FnMut() -> F,
) -> Option<PortResult<T>>
where
    F: Future<Output = PortResult<T>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let error: PortError = match operation().await {
            Err(error) if error.is_unavailable() => error,
            settled => return Some(settled),
        };
        tracing::warn!(
            error = error.chain(),
            pause_ms = pause.as_millis(),
            "waiting for a server"
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = stop.cancelled() => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_invalid_dies_at_once_and_the_rest_after_three_retries() {
        assert_eq!(Outcome::of(ErrorKind::Invalid, 1), Outcome::DeadLetter);
        assert_eq!(Outcome::of(ErrorKind::NotFound, 1), Outcome::DeadLetter);
        for (attempt, outcome) in [
            (1, Outcome::Retry(RetryTier::First)),
            (2, Outcome::Retry(RetryTier::Second)),
            (3, Outcome::Retry(RetryTier::Third)),
            (4, Outcome::DeadLetter),
        ] {
            assert_eq!(Outcome::of(ErrorKind::Internal, attempt), outcome);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_absent_server_is_waited_for_and_a_fault_is_not() {
        let stop = CancellationToken::new();
        let mut calls = 0;
        let settled = patiently(&stop, || {
            calls += 1;
            let away = calls < 20;
            async move {
                if away {
                    Err(PortError::unavailable("store.store", "away"))
                } else {
                    Ok(7)
                }
            }
        });
        assert_eq!(settled.await.unwrap().unwrap(), 7);
        assert_eq!(calls, 20);

        let fault = patiently(&stop, || async {
            Err::<(), _>(PortError::invalid("store.store", "bad"))
        });
        assert_eq!(fault.await.unwrap().unwrap_err().kind(), ErrorKind::Invalid);

        stop.cancel();
        let stopped = patiently(&stop, || async {
            Err::<(), _>(PortError::unavailable("store.store", "away"))
        });
        assert!(stopped.await.is_none());
    }
}
