//! Decides whether a failed batch is retried or becomes a dead letter.

use carga_common::error::ErrorKind;
use carga_common::queue::{Delivery, RetryTier};

/// What the worker does with a batch that it could not store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Retry(RetryTier),
    /// A further attempt would fail as well.
    DeadLetter,
}

impl Outcome {
    /// Chooses the outcome from the kind of error and the attempt's number. `Unavailable`,
    /// `Misconfigured` and `Full` never get here, because the worker retries those itself.
    pub(crate) fn of(kind: ErrorKind, attempt: u32) -> Self {
        match kind {
            ErrorKind::Invalid | ErrorKind::NotFound => Self::DeadLetter,
            ErrorKind::Internal
            | ErrorKind::Conflict
            | ErrorKind::Unavailable
            | ErrorKind::Misconfigured
            | ErrorKind::Full => RetryTier::after(attempt).map_or(Self::DeadLetter, Self::Retry),
        }
    }
}

/// Retries or dead-letters a delivery. If the broker is away, the delivery returns to the queue.
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
            "a failed batch was not settled; it returns to the queue"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_batch_is_dead_lettered_at_once_and_any_other_after_three_retries() {
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
}
