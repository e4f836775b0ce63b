//! Retries of calls to a server that is away or has no room.

use std::time::Duration;

use crate::error::{ErrorKind, PortError, PortResult};

/// The pause before the second attempt. Each further pause is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Repeats an operation while its server is *unavailable* or *misconfigured*. Returns the last
/// error once `give_up` completes. The operation must be idempotent, because the answer to a
/// success may be lost.
pub async fn retry_while_unavailable<T, F>(
    give_up: impl Future<Output = ()>,
    operation: impl FnMut() -> F,
) -> PortResult<T>
where
    F: Future<Output = PortResult<T>>,
{
    repeat(PortError::is_unavailable, give_up, operation).await
}

/// Like [`retry_while_unavailable`], but also repeats while the server has no room. Use this for
/// accepted data, which can no longer be refused.
pub async fn retry_until_accepted<T, F>(
    give_up: impl Future<Output = ()>,
    operation: impl FnMut() -> F,
) -> PortResult<T>
where
    F: Future<Output = PortResult<T>>,
{
    repeat(PortError::is_passing, give_up, operation).await
}

async fn repeat<T, F>(
    is_retryable: fn(&PortError) -> bool,
    give_up: impl Future<Output = ()>,
    mut operation: impl FnMut() -> F,
) -> PortResult<T>
where
    F: Future<Output = PortResult<T>>,
{
    tokio::pin!(give_up);
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match operation().await {
            Err(error) if is_retryable(&error) => error,
            settled => return settled,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut give_up => return Err(error),
        }
        match error.kind() {
            ErrorKind::Misconfigured => tracing::error!(
                error = error.chain(),
                "retrying after a pause; correct the credentials, the permissions or the setup of this server"
            ),
            _ => tracing::warn!(error = error.chain(), "retrying after a pause"),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    fn away<T>() -> PortResult<T> {
        Err(PortError::unavailable("store.seal", "away"))
    }

    #[tokio::test(start_paused = true)]
    async fn an_unavailable_server_is_retried_until_the_deadline() {
        let mut calls = 0;
        let answered = retry_while_unavailable(std::future::pending(), || {
            calls += 1;
            let answer = if calls < 20 { away() } else { Ok(7) };
            async { answer }
        });
        assert_eq!(answered.await.unwrap(), 7);
        assert_eq!(calls, 20);

        let started = Instant::now();
        let minute = Duration::from_secs(60);
        let given_up = retry_while_unavailable(sleep(minute), || async { away::<()>() }).await;
        assert!(given_up.unwrap_err().is_unavailable());
        assert_eq!(started.elapsed(), minute);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_server_is_retried_only_for_accepted_data() {
        let full =
            || async { Err::<(), _>(PortError::new(ErrorKind::Full, "store.store", "full")) };
        let started = Instant::now();
        assert!(
            retry_while_unavailable(std::future::pending(), full)
                .await
                .is_err()
        );
        assert!(started.elapsed().is_zero());
        let minute = Duration::from_secs(60);
        assert!(retry_until_accepted(sleep(minute), full).await.is_err());
        assert_eq!(started.elapsed(), minute);
    }

    #[tokio::test(start_paused = true)]
    async fn invalid_data_is_not_retried() {
        let started = Instant::now();
        let fault = retry_while_unavailable(std::future::pending(), || async {
            Err::<(), _>(PortError::invalid("store.seal", "bad"))
        });
        assert!(!fault.await.unwrap_err().is_unavailable());
        assert!(started.elapsed().is_zero());
    }
}
