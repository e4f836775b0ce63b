//! Counts in Redis together with the other APIs, or alone while Redis does not answer.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carga_common::error::PortError;
use carga_common::limiter::{Bucket, Decision, LocalLimiter, Quota, RateLimiter};
use carga_common::sync::lock;
use tokio::time::Instant;

/// How long Redis is not asked again after it has not answered.
const PAUSE: Duration = Duration::from_secs(1);

/// The limiter of this process, and the one that all APIs share.
#[derive(Debug)]
pub(super) struct Fallback {
    local: Arc<LocalLimiter>,
    shared: Option<Shared>,
}

#[derive(Debug)]
struct Shared {
    limiter: Arc<dyn RateLimiter>,
    /// When to ask again; `None` unless there is an outage.
    ask_again_at: Mutex<Option<Instant>>,
}

impl Fallback {
    pub(super) fn new(shared: Option<Arc<dyn RateLimiter>>) -> Self {
        let shared = shared.map(|limiter| Shared {
            limiter,
            ask_again_at: Mutex::default(),
        });
        Self {
            local: Arc::new(LocalLimiter::new()),
            shared,
        }
    }

    /// Takes from the shared buckets. If they do not answer, takes from those of this process.
    pub(super) async fn take(&self, buckets: &[Bucket]) -> Decision {
        let shared = match &self.shared {
            Some(shared) if !buckets.is_empty() => shared.take(buckets).await,
            _ => None,
        };
        match shared {
            Some(decision) => {
                // This process counts along, so that an outage does not begin with full buckets.
                if decision.admitted {
                    self.local.take_now(buckets);
                }
                decision
            }
            None => self.local.take_now(buckets),
        }
    }

    /// Takes from the buckets of this process only.
    pub(super) fn take_locally(&self, buckets: &[Bucket]) -> Decision {
        self.local.take_now(buckets)
    }

    /// The limiter of this process.
    pub(super) fn local(&self) -> Arc<LocalLimiter> {
        Arc::clone(&self.local)
    }

    /// Whether requests are taken from the shared buckets; `None` if there are none.
    pub(super) async fn is_shared(&self) -> Option<bool> {
        let shared = self.shared.as_ref()?;
        Some(shared.take(&[probe()]).await.is_some())
    }
}

/// The bucket of the health check. Taking from it writes, because a Redis that is full, or that is
/// a replica, answers to reads alone. Its quota is never used up: a refused request writes nothing.
fn probe() -> Bucket {
    Bucket {
        name: "probe".to_owned(),
        quota: Quota::new(NonZeroU32::MAX, Duration::from_secs(1)),
    }
}

impl Shared {
    /// Returns `None` if the limiter does not answer.
    async fn take(&self, buckets: &[Bucket]) -> Option<Decision> {
        let is_probe = self.turn()?;
        match self.limiter.take(buckets).await {
            Ok(decision) => {
                // Earlier requests may be answered at the beginning of an outage.
                if is_probe {
                    self.end_outage();
                }
                Some(decision)
            }
            Err(error) => {
                self.begin_outage(&error);
                None
            }
        }
    }

    /// Whether a request that asks now is the probe of an outage; `None` if it should not ask.
    fn turn(&self) -> Option<bool> {
        let mut ask_again_at = lock(&self.ask_again_at);
        let now = Instant::now();
        match *ask_again_at {
            None => Some(false),
            Some(at) if at <= now => {
                // One request in each pause waits for Redis, and all others are decided at once.
                *ask_again_at = Some(now + PAUSE);
                Some(true)
            }
            Some(_) => None,
        }
    }

    fn begin_outage(&self, error: &PortError) {
        let before = lock(&self.ask_again_at).replace(Instant::now() + PAUSE);
        if before.is_none() {
            tracing::warn!(
                error = error.chain(),
                "Redis does not answer, so this process counts requests for rate limits alone"
            );
        }
    }

    fn end_outage(&self) {
        if lock(&self.ask_again_at).take().is_some() {
            tracing::info!("Redis answers again, so all APIs count requests together");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use async_trait::async_trait;
    use carga_common::error::PortResult;
    use carga_common::limiter::Quota;

    use super::*;

    /// A limiter of another process that may be away.
    #[derive(Debug, Default)]
    struct Remote {
        buckets: LocalLimiter,
        is_away: AtomicBool,
        /// Whether it answers only while nothing is written.
        only_reads: AtomicBool,
        calls: AtomicU32,
    }

    #[async_trait]
    impl RateLimiter for Remote {
        async fn take(&self, buckets: &[Bucket]) -> PortResult<Decision> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let refuses_writes = self.only_reads.load(Ordering::Relaxed);
            match self.is_away.load(Ordering::Relaxed) || refuses_writes && !buckets.is_empty() {
                true => Err(PortError::unavailable("limiter.take", "away")),
                false => Ok(self.buckets.take_now(buckets)),
            }
        }
    }

    fn bucket(requests: u32) -> [Bucket; 1] {
        let requests = NonZeroU32::new(requests).unwrap();
        [Bucket {
            name: "key:a".to_owned(),
            quota: Quota::new(requests, Duration::from_secs(3600)),
        }]
    }

    fn with_remote() -> (Arc<Remote>, Fallback) {
        let remote = Arc::new(Remote::default());
        let shared: Arc<dyn RateLimiter> = remote.clone();
        (remote, Fallback::new(Some(shared)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_shared_buckets_decide_while_they_answer() {
        let (remote, fallback) = with_remote();
        let bucket = bucket(2);
        assert!(fallback.take(&bucket).await.admitted);
        // Another process takes the other one.
        assert!(remote.buckets.take_now(&bucket).admitted);
        assert!(!fallback.take(&bucket).await.admitted);
        assert_eq!(fallback.is_shared().await, Some(true));
        assert_eq!(Fallback::new(None).is_shared().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_holds_while_the_shared_buckets_are_away() {
        let (remote, fallback) = with_remote();
        let bucket = bucket(5);
        for _ in 0..3 {
            assert!(fallback.take(&bucket).await.admitted);
        }
        remote.is_away.store(true, Ordering::Relaxed);
        // What was admitted before the outage counts.
        assert!(fallback.take(&bucket).await.admitted);
        assert!(fallback.take(&bucket).await.admitted);
        for _ in 0..100 {
            assert!(!fallback.take(&bucket).await.admitted);
        }
        assert_eq!(fallback.is_shared().await, Some(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_redis_that_only_reads_is_not_shared() {
        let (remote, fallback) = with_remote();
        let bucket = bucket(5);
        remote.only_reads.store(true, Ordering::Relaxed);
        assert_eq!(fallback.is_shared().await, Some(false));
        tokio::time::advance(PAUSE).await;
        assert!(fallback.take(&bucket).await.admitted);
        tokio::time::advance(PAUSE).await;
        assert_eq!(fallback.is_shared().await, Some(false));
        remote.only_reads.store(false, Ordering::Relaxed);
        tokio::time::advance(PAUSE).await;
        assert_eq!(fallback.is_shared().await, Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_health_check_takes_from_no_bucket_of_a_client_and_never_empties_its_own() {
        let (remote, fallback) = with_remote();
        let bucket = bucket(1);
        for _ in 0..1000 {
            assert_eq!(fallback.is_shared().await, Some(true));
        }
        assert!(remote.buckets.take_now(&[probe()]).admitted);
        assert!(fallback.take(&bucket).await.admitted);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_costs_one_call_per_second_until_it_ends() {
        let (remote, fallback) = with_remote();
        let bucket = bucket(1000);
        remote.is_away.store(true, Ordering::Relaxed);
        for _ in 0..100 {
            fallback.take(&bucket).await;
        }
        assert_eq!(remote.calls.load(Ordering::Relaxed), 1);
        tokio::time::advance(PAUSE).await;
        for _ in 0..100 {
            fallback.take(&bucket).await;
        }
        assert_eq!(remote.calls.load(Ordering::Relaxed), 2);
        remote.is_away.store(false, Ordering::Relaxed);
        tokio::time::advance(PAUSE).await;
        for _ in 0..10 {
            fallback.take(&bucket).await;
        }
        assert_eq!(remote.calls.load(Ordering::Relaxed), 12);
        assert_eq!(fallback.is_shared().await, Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn refused_requests_never_reach_the_shared_buckets() {
        let (remote, fallback) = with_remote();
        let bucket = bucket(3);
        let admitted = (0..10).filter(|_| fallback.take_locally(&bucket).admitted);
        assert_eq!(admitted.count(), 3);
        assert_eq!(remote.calls.load(Ordering::Relaxed), 0);
    }
}
