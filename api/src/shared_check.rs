//! A check whose answer many requests share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long an answer is used after the end of its check.
const LIFETIME: Duration = Duration::from_secs(1);

/// Runs one check at a time. Requests that come during a check, or within a second after it, get
/// its answer.
#[derive(Debug, Clone)]
pub(crate) struct SharedCheck<T> {
    last: Arc<Mutex<Option<(Instant, T)>>>,
}

impl<T> Default for SharedCheck<T> {
    fn default() -> Self {
        Self {
            last: Arc::default(),
        }
    }
}

impl<T: Clone + Send + 'static> SharedCheck<T> {
    /// The last answer if it is fresh, or that of this check. The check goes on if the client goes
    /// away. Returns `None` if the check panics.
    pub(crate) async fn answer(
        &self,
        check: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some((ended_at, answer)) = last.as_ref()
            && ended_at.elapsed() < LIFETIME
        {
            return Some(answer.clone());
        }
        let checking = tokio::spawn(async move {
            let answer = check.await;
            *last = Some((Instant::now(), answer.clone()));
            answer
        });
        checking.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::time::timeout;

    use super::*;

    /// A check that takes longer than the lifetime of its answer, and returns its number.
    async fn check(count: Arc<AtomicUsize>) -> usize {
        tokio::time::sleep(2 * LIFETIME).await;
        count.fetch_add(1, Ordering::SeqCst) + 1
    }

    #[tokio::test(start_paused = true)]
    async fn requests_share_one_check_for_a_second() {
        let (shared, count) = (SharedCheck::default(), Arc::default());
        let ask = || shared.answer(check(Arc::clone(&count)));
        let answers = join_all((0..1000).map(|_| ask())).await;
        assert!(answers.iter().all(|answer| *answer == Some(1)));
        assert_eq!(ask().await, Some(1));
        tokio::time::advance(LIFETIME).await;
        assert_eq!(ask().await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_goes_on_although_its_client_is_gone() {
        let (shared, count) = (SharedCheck::default(), Arc::default());
        let ask = || shared.answer(check(Arc::clone(&count)));
        assert!(timeout(LIFETIME, ask()).await.is_err());
        assert_eq!(ask().await, Some(1));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}
