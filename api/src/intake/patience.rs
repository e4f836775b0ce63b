//! Waiting out an outage, for a while.

use std::time::Duration;

use carga_common::error::PortResult;
use tokio::time::Instant;

/// Waits between attempts start here and double up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Repeats an operation while its server is away, for at most `deadline`. The operation must bear being done twice: its
/// answer may be what was lost.
pub(super) async fn wait_out<T, F>(
    deadline: Duration,
    what: &str,
    mut operation: impl FnMut() -> F,
) -> PortResult<T>
where
    F: Future<Output = PortResult<T>>,
{
    let until = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE;
    loop {
        match operation().await {
            Err(error) if error.is_unavailable() && Instant::now() + pause < until => {
                tracing::warn!(error = error.chain(), "{what}");
            }
            settled => return settled,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use carga_common::error::PortError;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_out_until_the_deadline_and_a_fault_is_not() {
        let minute = Duration::from_secs(60);
        let mut calls = 0;
        let answered = wait_out(minute, "again", || {
            calls += 1;
            let away = calls < 10;
            async move {
                if away {
                    Err(PortError::unavailable("queue.publish", "away"))
                } else {
                    Ok(())
                }
            }
        });
        assert!(answered.await.is_ok());

        let started = Instant::now();
        let away = wait_out(minute, "again", || async {
            Err::<(), _>(PortError::unavailable("queue.publish", "away"))
        });
        assert!(away.await.is_err());
        assert!(started.elapsed() > Duration::from_secs(55) && started.elapsed() <= minute);

        let started = Instant::now();
        let fault = wait_out(minute, "again", || async {
            Err::<(), _>(PortError::invalid("queue.publish", "bad"))
        });
        assert!(fault.await.is_err());
        assert!(started.elapsed().is_zero());
    }
}
