//! What an error means for a delivery.

use carga_common::error::ErrorKind;
use carga_common::queue::{Delivery, RetryTier};

/// What becomes of a batch that was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Once more, after a while.
    Retry(RetryTier),
    /// It will not get better.
    DeadLetter,
}

impl Outcome {
    /// Decides by kind and by how often the batch has been tried. What is passing never comes here: it is waited for
    /// in place.
    pub(crate) fn of(kind: ErrorKind, attempt: u32) -> Self {
        match kind {
            ErrorKind::Invalid | ErrorKind::NotFound => Self::DeadLetter,
            ErrorKind::Internal
            | ErrorKind::Conflict
            | ErrorKind::Unavailable
            | ErrorKind::Full => RetryTier::after(attempt).map_or(Self::DeadLetter, Self::Retry),
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
}
