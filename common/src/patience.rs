//! Waiting for a server that is away, or for room.

use std::time::Duration;

use crate::error::{PortError, PortResult};

/// Waits between attempts start here and double up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Repeats an operation while its server is *unavailable*, until `give_up` is over: then the last error is returned. The
/// operation must bear being done twice, since its answer may be what was lost.
pub async fn patiently<T, F>(
    give_up: impl Future<Output = ()>,
    operation: impl FnMut() -> F,
) -> PortResult<T>
where
    F: Future<Output = PortResult<T>>,
{
    repeat(PortError::is_unavailable, give_up, operation).await
}

/// The same for what has been accepted and cannot be refused any more: it also waits for room.
pub async fn persistently<T, F>(
    give_up: impl Future<Output = ()>,
    operation: impl FnMut() -> F,
) -> PortResult<T>
where
    F: Future<Output = PortResult<T>>,
{
    repeat(PortError::is_passing, give_up, operation).await
}

async fn repeat<T, F>(
    is_worth_it: fn(&PortError) -> bool,
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
            Err(error) if is_worth_it(&error) => error,
            settled => return settled,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut give_up => return Err(error),
        }
        tracing::warn!(error = error.chain(), "waited, trying again");
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::error::ErrorKind;

    fn away<T>() -> PortResult<T> {
        Err(PortError::unavailable("store.seal", "away"))
    }

    #[tokio::test(start_paused = true)]
    async fn an_absent_server_is_waited_for_and_no_longer_than_told() {
        let mut calls = 0;
        let answered = patiently(std::future::pending(), || {
            calls += 1;
            let answer = if calls < 20 { away() } else { Ok(7) };
            async { answer }
        });
        assert_eq!(answered.await.unwrap(), 7);
        assert_eq!(calls, 20);

        let started = Instant::now();
        let minute = Duration::from_secs(60);
        let given_up = patiently(sleep(minute), || async { away::<()>() }).await;
        assert!(given_up.unwrap_err().is_unavailable());
        assert_eq!(started.elapsed(), minute);
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_waited_for_only_where_nothing_can_be_refused_any_more() {
        let full =
            || async { Err::<(), _>(PortError::new(ErrorKind::Full, "store.store", "full")) };
        let started = Instant::now();
        assert!(patiently(std::future::pending(), full).await.is_err());
        assert!(started.elapsed().is_zero());
        let minute = Duration::from_secs(60);
        assert!(persistently(sleep(minute), full).await.is_err());
        assert_eq!(started.elapsed(), minute);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_is_not_repeated() {
        let started = Instant::now();
        let fault = patiently(std::future::pending(), || async {
            Err::<(), _>(PortError::invalid("store.seal", "bad"))
        });
        assert!(!fault.await.unwrap_err().is_unavailable());
        assert!(started.elapsed().is_zero());
    }
}
