//! Decides whether a batch that was not stored is retried, is postponed or becomes a dead letter.

use carga_common::batch::DecodeError;
use carga_common::error::{ErrorKind, PortResult};
use carga_common::queue::{Delivery, POSTPONEMENT, RetryTier};

use crate::metrics::BatchCounters;

/// How often a batch is postponed before it becomes a dead letter. This takes about an hour.
const MAX_POSTPONEMENTS: u32 = 120;

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
pub(crate) async fn settle_failed(
    delivery: Delivery,
    kind: ErrorKind,
    reason: &str,
    counters: &BatchCounters,
) {
    let attempt = delivery.attempt;
    let outcome = Outcome::of(kind, attempt);
    tracing::warn!(batch = ?delivery.id, attempt, reason, ?outcome, "a batch failed");
    let settled = match outcome {
        Outcome::Retry(tier) => {
            let retried = delivery.retry(tier).await;
            if retried.is_ok() {
                counters.retried(tier);
            }
            retried
        }
        Outcome::DeadLetter => delivery.dead_letter(reason).await,
    };
    log_unsettled(settled);
}

/// The reason why a batch cannot be stored yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    cause: String,
    awaited: &'static str,
}

impl Wait {
    /// An upload may be missing for a while, such as after a failover of the database.
    pub(crate) fn for_upload() -> Self {
        Self {
            cause: "no such upload in the database".to_owned(),
            awaited: "the upload to appear",
        }
    }

    /// A newer build wrote the status of the upload.
    pub(crate) fn for_status() -> Self {
        Self {
            cause: "this build does not know the status of the upload".to_owned(),
            awaited: "a worker of the build that wrote it",
        }
    }

    /// The message cannot be decoded because of its version.
    pub(crate) fn for_version(error: &DecodeError) -> Self {
        Self {
            cause: error.to_string(),
            awaited: "a worker that reads this version",
        }
    }

    /// The reason of the dead letter, once the batch was postponed often enough.
    fn dead_letter_reason(&self, postponed: u32) -> Option<String> {
        let Self { cause, awaited } = self;
        let minutes = u64::from(postponed) * POSTPONEMENT.as_secs() / 60;
        (postponed >= MAX_POSTPONEMENTS)
            .then(|| format!("{cause}; the batch waited {minutes} min for {awaited}"))
    }
}

/// Postpones a batch, or makes it a dead letter if it was postponed too often.
pub(crate) async fn postpone(delivery: Delivery, wait: &Wait, counters: &BatchCounters) {
    let (id, postponed, cause) = (delivery.id, delivery.postponed, &wait.cause);
    if let Some(reason) = wait.dead_letter_reason(postponed) {
        tracing::warn!(batch = ?id, reason, "a batch has waited too long");
        return log_unsettled(delivery.dead_letter(&reason).await);
    }
    // One line at WARN per batch is enough, because the batch returns twice a minute.
    if postponed == 0 {
        tracing::warn!(batch = ?id, cause, awaits = wait.awaited, "a batch is postponed");
    } else {
        tracing::debug!(batch = ?id, cause, postponed, "a batch is postponed again");
    }
    settle_postponed(delivery, counters).await;
}

/// Postpones a batch without a limit, because the reason is not in the batch itself.
pub(crate) async fn postpone_without_limit(
    delivery: Delivery,
    cause: &'static str,
    counters: &BatchCounters,
) {
    tracing::debug!(batch = ?delivery.id, cause, "a batch is postponed without a limit");
    settle_postponed(delivery, counters).await;
}

async fn settle_postponed(delivery: Delivery, counters: &BatchCounters) {
    let postponed = delivery.postpone().await;
    if postponed.is_ok() {
        counters.postponed.increment(1);
    }
    log_unsettled(postponed);
}

fn log_unsettled(settled: PortResult<()>) {
    if let Err(error) = settled {
        tracing::warn!(
            error = error.chain(),
            "could not settle a batch that was not stored; it returns to the queue"
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

    #[test]
    fn a_batch_waits_an_hour_before_it_becomes_a_dead_letter_with_the_reason() {
        let wait = Wait::for_version(&DecodeError::UnknownVersion(7));
        assert_eq!(wait.dead_letter_reason(0), None);
        assert_eq!(wait.dead_letter_reason(MAX_POSTPONEMENTS - 1), None);
        let reason = wait.dead_letter_reason(MAX_POSTPONEMENTS).unwrap();
        assert!(reason.contains("message version 7"), "{reason}");
        assert!(
            reason.ends_with("the batch waited 60 min for a worker that reads this version"),
            "{reason}"
        );
    }
}
