//! Polling with a deadline: the only way a test waits.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_millis(25);

/// What a poll may answer: "not yet", or the value that was waited for.
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

/// Asks again every 25 ms until the answer is `true` or `Some`; fails, naming `what`, once `deadline` has passed.
/// A single question may also not outlive the deadline.
///
/// ```no_run
/// # async fn example(job_state: impl AsyncFn() -> String) -> anyhow::Result<()> {
/// use std::time::Duration;
/// carga_testkit::eventually(Duration::from_secs(30), "the job to complete", async || job_state().await == "completed").await?;
/// # Ok(())
/// # }
/// ```
pub async fn eventually<P: Poll>(
    deadline: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> P,
) -> Result<P::Value> {
    let end = Instant::now() + deadline;
    loop {
        match tokio::time::timeout_at(end, ask()).await.map(Poll::value) {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if Instant::now() + INTERVAL < end => tokio::time::sleep(INTERVAL).await,
            _ => bail!("waited {deadline:?} in vain for {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_value_is_returned() {
        let mut asked = 0;
        let third = eventually(Duration::from_secs(5), "the third time", async || {
            asked += 1;
            (asked == 3).then_some(asked)
        })
        .await
        .unwrap();
        assert_eq!(third, 3);
    }

    #[tokio::test]
    async fn a_missed_deadline_names_what_was_waited_for() {
        let error = eventually(Duration::from_millis(1), "a miracle", async || false)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("a miracle"), "{error}");
    }
}
