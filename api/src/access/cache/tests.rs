use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use async_trait::async_trait;
use carga_common::access::{ApiKey, NewKey, Scopes};
use carga_common::error::{PortError, PortResult};
use carga_common::store::KeyPosition;
use carga_common::tenant::Tenant;
use carga_intake::refusal::RefusalKind;
use futures::future::join_all;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::*;
use crate::access::entries::LIFETIME;

/// Keys in memory, behind a gate.
#[derive(Debug)]
struct Gated {
    keys: Mutex<HashMap<KeyId, KeyRecord>>,
    calls: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    answers: Semaphore,
    /// How long each answer takes.
    delay: Duration,
    is_away: AtomicBool,
}

impl Gated {
    /// A store that answers this many calls.
    fn new(answers: usize) -> Arc<Self> {
        Self::with_delay(answers, Duration::ZERO)
    }

    /// Like `new`, with a delay of each answer.
    fn with_delay(answers: usize, delay: Duration) -> Arc<Self> {
        Arc::new(Self {
            keys: Mutex::default(),
            calls: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            answers: Semaphore::new(answers),
            delay,
            is_away: AtomicBool::new(false),
        })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn add_key(&self) -> KeyId {
        let key = ApiKey::generate().unwrap();
        let new = NewKey {
            tenant: Tenant::default(),
            scopes: Scopes::admin(),
            dataset: None,
            name: None,
            expires_at: None,
        };
        let record = new.record(&key, None, Timestamp::now()).unwrap();
        lock(&self.keys).insert(key.id().clone(), record);
        key.id().clone()
    }
}

#[async_trait]
impl KeyStore for Gated {
    async fn create_key(&self, _key: &KeyRecord, _digest: &KeyDigest) -> PortResult<()> {
        Ok(())
    }

    async fn key(&self, id: &KeyId) -> PortResult<Option<(KeyRecord, KeyDigest)>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        // A slow answer has what was stored when the question came.
        let found = lock(&self.keys).get(id).cloned();
        if let Ok(answer) = self.answers.acquire().await {
            answer.forget();
        }
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) {
            return Err(PortError::unavailable("store.key", "away"));
        }
        Ok(found.map(|record| (record, KeyDigest::of("any"))))
    }

    async fn keys(
        &self,
        _tenant: Option<&Tenant>,
        _after: Option<&KeyPosition>,
        _limit: u32,
    ) -> PortResult<Vec<KeyRecord>> {
        Ok(Vec::new())
    }

    async fn revoke_key(&self, id: &KeyId, _tenant: Option<&Tenant>) -> PortResult<bool> {
        let mut keys = lock(&self.keys);
        let found = keys.get_mut(id);
        Ok(found
            .map(|key| key.revoked_at = Some(Timestamp::now()))
            .is_some())
    }
}

fn unknown_id() -> KeyId {
    ApiKey::generate().unwrap().id().clone()
}

async fn is_revoked(cache: &Arc<KeyCache>, id: &KeyId) -> bool {
    let found = cache.key(id).await.unwrap().unwrap();
    found.0.revoked_at.is_some()
}

#[tokio::test(start_paused = true)]
async fn a_key_and_an_unknown_id_are_looked_up_once_in_two_seconds() {
    let store = Gated::new(usize::MAX >> 4);
    let cache = KeyCache::new(store.clone());
    let ids = [store.add_key(), unknown_id()];
    for (number, id) in ids.iter().enumerate() {
        for _ in 0..3 {
            assert_eq!(cache.key(id).await.unwrap().is_some(), number == 0);
        }
    }
    assert_eq!(store.calls(), 2);
    tokio::time::advance(LIFETIME).await;
    for id in &ids {
        cache.key(id).await.unwrap();
    }
    assert_eq!(store.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_takes_effect_within_two_seconds_and_at_once_where_it_was_made() {
    let store = Gated::new(usize::MAX >> 4);
    let (here, elsewhere) = (KeyCache::new(store.clone()), KeyCache::new(store.clone()));
    let id = store.add_key();
    for cache in [&here, &elsewhere] {
        assert!(!is_revoked(cache, &id).await);
    }
    assert!(store.revoke_key(&id, None).await.unwrap());
    here.forget(&id);
    assert!(is_revoked(&here, &id).await);
    assert!(!is_revoked(&elsewhere, &id).await);
    tokio::time::advance(LIFETIME).await;
    assert!(is_revoked(&elsewhere, &id).await);
}

#[tokio::test(start_paused = true)]
async fn the_lifetime_of_an_answer_begins_with_the_question() {
    let store = Gated::new(0);
    let cache = KeyCache::new(store.clone());
    let id = store.add_key();
    let asking = tokio::spawn({
        let (cache, id) = (Arc::clone(&cache), id.clone());
        async move { cache.key(&id).await.map(|found| found.is_some()) }
    });
    while store.calls() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(LIFETIME).await;
    store.answers.add_permits(2);
    assert!(asking.await.unwrap().unwrap());
    cache.key(&id).await.unwrap();
    assert_eq!(store.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_ids_takes_few_connections_and_removes_no_key() {
    let store = Gated::new(usize::MAX >> 4);
    let cache = KeyCache::new(store.clone());
    let id = store.add_key();
    cache.key(&id).await.unwrap();
    for _ in 0..MAX_ENTRIES / MAX_NEW + 1 {
        let ids: Vec<KeyId> = (0..MAX_NEW).map(|_| unknown_id()).collect();
        let flood = ids.iter().map(|id| cache.key(id));
        for answer in join_all(flood).await {
            assert!(answer.unwrap().is_none());
        }
    }
    assert!(store.most_at_once.load(Ordering::SeqCst) <= LOOKUPS);
    assert_eq!(lock(&cache.unknown).sizes(), (MAX_ENTRIES, MAX_ENTRIES));
    let calls = store.calls();
    cache.key(&id).await.unwrap();
    assert_eq!(store.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_found_before_is_found_at_once_while_10_000_unknown_ids_wait() {
    let delay = Duration::from_millis(10);
    let store = Gated::with_delay(usize::MAX >> 4, delay);
    let cache = KeyCache::new(store.clone());
    let id = store.add_key();
    cache.key(&id).await.unwrap();
    tokio::time::advance(LIFETIME).await;
    let flood: Vec<_> = (0..10_000)
        .map(|_| {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { cache.key(&unknown_id()).await.is_ok() })
        })
        .collect();
    while store.calls() < 1 + LOOKUPS {
        tokio::task::yield_now().await;
    }
    let asked_at = Instant::now();
    assert!(cache.key(&id).await.unwrap().is_some());
    assert!(asked_at.elapsed() <= 2 * delay, "{:?}", asked_at.elapsed());
    assert!(flood.iter().any(|request| !request.is_finished()));
    let answered = join_all(flood).await.into_iter();
    assert_eq!(
        answered
            .filter(|answered| *answered.as_ref().unwrap())
            .count(),
        MAX_NEW
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_is_refused_at_once_while_too_many_others_wait() {
    let store = Gated::new(0);
    let cache = KeyCache::new(store.clone());
    let waiting: Vec<_> = (0..MAX_NEW)
        .map(|_| {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { cache.key(&unknown_id()).await.is_ok() })
        })
        .collect();
    while store.calls() < LOOKUPS {
        tokio::task::yield_now().await;
    }
    let asked_at = Instant::now();
    let refusal = cache.key(&unknown_id()).await.unwrap_err();
    assert_eq!(asked_at.elapsed(), Duration::ZERO);
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    assert_eq!(refusal.failure.code, "key_check_busy");
    assert!(refusal.retry_after_secs.is_some());
    store.answers.add_permits(MAX_NEW + 1);
    assert!(join_all(waiting).await.into_iter().all(Result::unwrap));
    assert!(cache.key(&unknown_id()).await.unwrap().is_none());
}

/// Lets the other tasks run until none can go on.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_after_a_revocation_waits_for_no_lookup_from_before_it() {
    let store = Gated::new(0);
    let cache = KeyCache::new(store.clone());
    let id = store.add_key();
    let ask = || {
        let (cache, id) = (Arc::clone(&cache), id.clone());
        tokio::spawn(async move { is_revoked(&cache, &id).await })
    };
    let before = ask();
    settle().await;
    assert!(store.revoke_key(&id, None).await.unwrap());
    cache.forget(&id);
    let after = ask();
    settle().await;
    store.answers.add_permits(2);
    assert!(!before.await.unwrap());
    assert!(after.await.unwrap());
    assert!(is_revoked(&cache, &id).await);
    assert_eq!(store.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_a_lookup_from_before_a_revocation_is_not_kept() {
    let store = Gated::new(0);
    let cache = KeyCache::new(store.clone());
    let id = store.add_key();
    let before = {
        let (cache, id) = (Arc::clone(&cache), id.clone());
        tokio::spawn(async move { is_revoked(&cache, &id).await })
    };
    settle().await;
    assert!(store.revoke_key(&id, None).await.unwrap());
    cache.forget(&id);
    store.answers.add_permits(2);
    assert!(!before.await.unwrap());
    assert!(is_revoked(&cache, &id).await);
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_with_one_key_share_its_lookup() {
    let store = Gated::new(usize::MAX >> 4);
    let cache = KeyCache::new(store.clone());
    let id = store.add_key();
    let requests = (0..1000).map(|_| cache.key(&id));
    for answer in join_all(requests).await {
        assert!(answer.unwrap().is_some());
    }
    assert_eq!(store.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_refused_while_the_store_is_away_or_silent() {
    let store = Gated::new(1);
    let cache = KeyCache::new(store.clone());
    let id = store.add_key();
    store.is_away.store(true, Ordering::SeqCst);
    // The first call fails at once, and the second one gets no answer.
    for _ in 0..2 {
        let refusal = cache.key(&id).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Unavailable);
        assert_eq!(refusal.failure.code, "dependency_unavailable");
    }
    // A failure is not kept.
    store.is_away.store(false, Ordering::SeqCst);
    store.answers.add_permits(2);
    assert!(cache.key(&id).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_lookup_goes_on_although_its_client_is_gone() {
    let store = Gated::new(0);
    let cache = KeyCache::new(store.clone());
    let id = store.add_key();
    let gone = timeout(Duration::from_millis(10), cache.key(&id)).await;
    assert!(gone.is_err());
    store.answers.add_permits(1);
    while cache.cached(&id).is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.calls(), 1);
}
