//! Polling with a deadline, for tests that wait for a result.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_millis(25);

/// The answer of a poll: the awaited value, or none yet.
pub trait Poll {
    type Value;

    fn value(self) -> Option<Self::Value>;
}

impl<T> Poll for Option<T> {
    type Value = T;

    fn value(self) -> Option<T> {
        self
    }
}

impl Poll for bool {
    type Value = ();

    fn value(self) -> Option<()> {
        self.then_some(())
    }
}

/// Polls every 25 ms until the answer is `true` or `Some`, and returns its value.
///
/// Fails with an error that names `what` once `deadline` has passed, even during a poll.
///
/// ```no_run
/// # async fn example(job_state: impl AsyncFn() -> String) -> anyhow::Result<()> {
/// use std::time::Duration;
/// carga_testkit::eventually(Duration::from_secs(30), "the job to complete", async || {
///     job_state().await == "completed"
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
pub async fn eventually<P: Poll>(
    deadline: Duration,
    what: &str,
    mut poll: impl AsyncFnMut() -> P,
) -> Result<P::Value> {
    let end = Instant::now() + deadline;
    loop {
        match tokio::time::timeout_at(end, poll()).await.map(Poll::value) {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if Instant::now() + INTERVAL < end => tokio::time::sleep(INTERVAL).await,
            _ => bail!("timed out after {deadline:?} waiting for {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn polling_ends_with_the_first_value() {
        let mut polls = 0;
        let third = eventually(Duration::from_secs(5), "the third poll", async || {
            polls += 1;
            (polls == 3).then_some(polls)
        })
        .await
        .unwrap();
        assert_eq!(third, 3);
    }

    #[tokio::test]
    async fn the_error_of_a_missed_deadline_names_the_awaited_event() {
        let error = eventually(Duration::from_millis(1), "a miracle", async || false)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("a miracle"), "{error}");
    }
}
