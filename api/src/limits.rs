//! Limits how many requests a client may send: per address, per key, and in a second.
//!
//! One of two layers counts each request. [`layer`] is behind the check of the key and before the
//! handlers, so it knows the key and has not read the body. [`refused_layer`] is before the check
//! of the key. It counts what [`layer`] does not see, because another layer has refused the
//! request: above all, requests with a wrong key. Those take from the buckets of their address in
//! this process only, so that a flood of them costs no call to Redis.
//!
//! A wrong key is counted after its answer, so a flood could still reach the store. The lookups of
//! keys that the store has not found before are therefore counted before they begin, by the
//! [`LookupAllowance`] of their address.
//!
//! A token counts for the key that made it, and a JWT for its sender. A preflight request of a page
//! has neither, and counts for its address alone.
//!
//! The limit of the key never refuses a request that repeats an earlier one with its
//! `Idempotency-Key`. Such a request counts like any other one while the key has requests left.
//! After that, it counts for its address and in its second, because it reads the store and perhaps
//! a file.
//!
//! Health checks are not counted, and neither are scrapes of the metrics whose key is checked, so
//! that a busy client cannot hide a server from those who watch it.

mod address;
mod fallback;
mod fields;
mod metrics;
mod report;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use carga_common::idempotency::IdempotencyKey;
use carga_common::limiter::{Bucket, Decision, Quota, RateLimiter, Standing};
use carga_common::settings::{Authentication, LimitSettings, TrustedProxies};
use carga_common::store::IdempotencyStore;
use carga_intake::refusal::{Refusal, RefusalKind};

pub(crate) use self::address::client_address;
use self::address::network;
use self::fallback::Fallback;
use self::metrics::RefusalCounters;
use self::report::RefusalReport;
use crate::caller::Caller;
use crate::idempotency::{is_held, key_of_request};
use crate::marks::{CountsForAddressOnly, LookupAllowance, RefusedByLimit};
use crate::paths;
use crate::problem::ApiError;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// In how many seconds lookups may all come at once.
const AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

/// The names of the limits.
const ADDRESS: &str = "address";
const KEY: &str = "key";
const BURST: &str = "burst";

/// The limits of this process; `None` if requests are not limited.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits(Option<Arc<Limiter>>);

/// A limit on the requests with one key or from one address.
#[derive(Debug, Clone, Copy)]
struct Policy {
    /// The name in the fields of the answer and in the names of buckets.
    name: &'static str,
    setting: &'static str,
    quota: Quota,
}

#[derive(Debug)]
struct Limiter {
    address: Option<Policy>,
    key: Option<Policy>,
    burst: Option<Policy>,
    /// How many keys from one address may be looked up that the store has not found before.
    lookups: Option<Quota>,
    /// Whether every request has a key. Otherwise, no request counts for a key.
    needs_key: bool,
    proxies: TrustedProxies,
    fallback: Fallback,
    /// Knows the requests that others repeat.
    store: Arc<dyn IdempotencyStore>,
    refused: RefusalCounters,
    report: RefusalReport,
}

/// The limits that apply to a request, each with its bucket.
#[derive(Debug, Clone, Default)]
struct Applied {
    policies: Vec<Policy>,
    buckets: Vec<Bucket>,
}

impl Applied {
    fn add(&mut self, policy: Option<Policy>, sender: &str) {
        if let Some(policy) = policy {
            self.policies.push(policy);
            self.buckets.push(Bucket {
                name: [policy.name, ":", sender].concat(),
                quota: policy.quota,
            });
        }
    }

    /// Whether the limit with this name is the only one that refuses the request.
    fn is_refused_only_by(&self, name: &str, decision: &Decision) -> bool {
        let mut limits = self.policies.iter().zip(&decision.standings);
        !decision.admitted
            && limits.all(|(policy, standing)| (policy.name == name) != standing.wait.is_zero())
    }

    /// Separates the limit with this name from the others, which come second.
    fn split(self, name: &str) -> (Self, Self) {
        let (mut named, mut others) = (Self::default(), Self::default());
        for (policy, bucket) in self.policies.into_iter().zip(self.buckets) {
            let part = match policy.name == name {
                true => &mut named,
                false => &mut others,
            };
            part.policies.push(policy);
            part.buckets.push(bucket);
        }
        (named, others)
    }
}

/// An answer to a request that has passed [`layer`].
#[derive(Debug, Clone, Copy)]
struct Counted;

impl Limits {
    /// `shared` is the limiter that all APIs share, if there are several. `store` has the requests
    /// that a client may repeat.
    pub(crate) fn new(
        settings: &LimitSettings,
        authentication: &Authentication,
        shared: Option<Arc<dyn RateLimiter>>,
        store: Arc<dyn IdempotencyStore>,
    ) -> Self {
        let policy = |name, setting, limit: Option<NonZeroU32>, window| {
            limit.map(|limit| Policy {
                name,
                setting,
                quota: Quota::new(limit, window),
            })
        };
        if !settings.limits_requests() {
            return Self(None);
        }
        Self(Some(Arc::new(Limiter {
            address: policy(ADDRESS, "CARGA_LIMIT_ADDRESS", settings.address, MINUTE),
            key: policy(KEY, "CARGA_LIMIT_KEY", settings.key, MINUTE),
            burst: policy(BURST, "CARGA_LIMIT_BURST", settings.burst, SECOND),
            lookups: lookup_quota(settings),
            needs_key: matches!(authentication, Authentication::On(_)),
            proxies: settings.trusted_proxies.clone(),
            fallback: Fallback::new(shared),
            store,
            refused: RefusalCounters::new(),
            report: RefusalReport::default(),
        })))
    }

    /// Whether Redis decides with the other APIs; `None` if requests are not limited, or if this
    /// process is the only API.
    pub(crate) async fn are_shared(&self) -> Option<bool> {
        self.0.as_ref()?.fallback.is_shared().await
    }
}

impl Limiter {
    /// The limits of a request of this caller, or of one without a valid key.
    fn applied(&self, address: IpAddr, caller: Option<&Caller>) -> Applied {
        let address = sender_at(address);
        let key = caller.filter(|_| self.needs_key).map(Caller::counted_for);
        let mut applied = Applied::default();
        applied.add(self.address, &address);
        if let Some(key) = &key {
            applied.add(self.key, key);
        }
        applied.add(self.burst, key.as_deref().unwrap_or(&address));
        applied
    }

    /// The lookups of keys that this address has left; `None` if they are not limited.
    fn lookup_allowance(&self, address: IpAddr) -> Option<LookupAllowance> {
        let limiter = self.fallback.local();
        Some(LookupAllowance::new(
            limiter,
            network(address),
            self.lookups?,
        ))
    }

    fn client(&self, request: &Request) -> IpAddr {
        client_address(request, &self.proxies)
    }

    /// Counts a request, and answers it.
    async fn run(&self, request: Request, next: Next) -> Response {
        let client = self.client(&request);
        let caller = request.extensions().get::<Caller>();
        let applied = self.applied(client, caller);
        let caller = caller.filter(|_| self.needs_key && self.key.is_some());
        let idempotency_key = caller.and_then(|caller| key_of_request(&request, caller));
        let (applied, decision) = self.take(applied, idempotency_key).await;
        let mut response = match decision.admitted {
            true => next.run(request).await,
            false => self.refuse(&applied, &decision, client),
        };
        fields::add(&mut response, &applied.policies, &decision);
        response
    }

    /// Takes from the buckets of a request. Returns the limits from whose buckets it has taken, or
    /// which refuse the request. If only the limit of the key refuses a request with an
    /// `Idempotency-Key`, the request takes from the other buckets, and is admitted if it repeats
    /// an earlier one. It takes before it reads the store, so that such reads are limited, too.
    async fn take(
        &self,
        applied: Applied,
        idempotency_key: Option<IdempotencyKey>,
    ) -> (Applied, Decision) {
        let decision = self.fallback.take(&applied.buckets).await;
        let Some(idempotency_key) = idempotency_key else {
            return (applied, decision);
        };
        if !applied.is_refused_only_by(KEY, &decision) {
            return (applied, decision);
        }
        let (_, others) = applied.clone().split(KEY);
        let by_others = self.fallback.take(&others.buckets).await;
        match !by_others.admitted || self.is_repeated(&idempotency_key).await {
            true => (others, by_others),
            false => (applied, decision),
        }
    }

    async fn is_repeated(&self, key: &IdempotencyKey) -> bool {
        // The handler reads the same, and answers with the error of the store.
        is_held(self.store.as_ref(), key).await.unwrap_or_default()
    }

    /// Whether a request is for those who watch the server. A scrape that needs no key may come
    /// from everybody.
    fn is_watching(&self, request: &Request) -> bool {
        let path = request.extensions().get::<MatchedPath>();
        path.map(MatchedPath::as_str).is_some_and(|path| {
            paths::is_health_check(path) || self.needs_key && path == paths::METRICS
        })
    }

    /// The answer to one request too many. It names the limit for which the client waits the
    /// longest.
    fn refuse(&self, applied: &Applied, decision: &Decision, client: IpAddr) -> Response {
        let limits = applied.policies.iter().zip(&applied.buckets);
        let limits = limits.zip(&decision.standings);
        let longest = limits.max_by_key(|(_, standing)| standing.wait);
        let Some(((policy, bucket), standing)) = longest else {
            return ApiError::from(Refusal::internal()).into_response();
        };
        self.refused.count(policy.name);
        self.report.add(policy.name, client);
        let refusal = too_many(policy, bucket, standing, client);
        tracing::debug!(bucket = bucket.name, "refused one request too many");
        let mut response = ApiError::from(refusal).into_response();
        response.extensions_mut().insert(RefusedByLimit);
        response
    }
}

/// How many keys from one address may be looked up: in the long run as many as it may send requests
/// in each second, and at once ten times as many. After a restart, no key is known, and all holders
/// behind one address may come back together.
fn lookup_quota(settings: &LimitSettings) -> Option<Quota> {
    let by_burst = settings.burst.map(|burst| {
        let lookups = burst.saturating_mul(AT_ONCE);
        Quota::new(lookups, SECOND * AT_ONCE.get())
    });
    by_burst.or_else(|| Some(Quota::new(settings.address?, MINUTE)))
}

/// The sender of the requests from an address, in the names of buckets.
fn sender_at(address: IpAddr) -> String {
    format!("address:{}", network(address))
}

/// Counts a request for its address and its key. Refuses it before its body is read, if there are
/// too many.
pub(crate) async fn layer(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let Some(limiter) = limits.0 else {
        return next.run(request).await;
    };
    let mut response = match limiter.is_watching(&request) {
        true => next.run(request).await,
        false => limiter.run(request, next).await,
    };
    response.extensions_mut().insert(Counted);
    response
}

/// Counts a request that was refused before [`layer`], for its address and in this process only.
pub(crate) async fn refused_layer(
    State(limits): State<Limits>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(limiter) = limits.0 else {
        return next.run(request).await;
    };
    let client = limiter.client(&request);
    if let Some(allowance) = limiter.lookup_allowance(client) {
        request.extensions_mut().insert(allowance);
    }
    let mut response = next.run(request).await;
    if response.extensions().get::<Counted>().is_some() {
        return response;
    }
    let mut applied = limiter.applied(client, None);
    if response
        .extensions()
        .get::<CountsForAddressOnly>()
        .is_some()
    {
        (applied, _) = applied.split(ADDRESS);
    }
    let decision = limiter.fallback.take_locally(&applied.buckets);
    if !decision.admitted {
        response = limiter.refuse(&applied, &decision, client);
    }
    fields::add(&mut response, &applied.policies, &decision);
    response
}

fn too_many(policy: &Policy, bucket: &Bucket, standing: &Standing, client: IpAddr) -> Refusal {
    let Policy {
        name,
        setting,
        quota,
    } = policy;
    let sender = match bucket.name.strip_prefix(name) {
        Some(sender) if sender.starts_with(":key:") => "with this key and its tokens".to_owned(),
        Some(sender) if sender.starts_with(":jwt:") => "by the sender of this JWT".to_owned(),
        _ => format!("from address {client}"),
    };
    let window = match quota.window() == SECOND {
        true => "second",
        false => "minute",
    };
    let (requests, retry_secs) = (quota.requests(), fields::whole_secs(standing.wait).max(1));
    let noun = match requests {
        1 => "request",
        _ => "requests",
    };
    let message = format!(
        "the limit is {requests} {noun} per {window} {sender} ({setting}); retry in {retry_secs} s"
    );
    let refusal = Refusal::new(RefusalKind::TooMany, "rate_limited", message);
    let limit = u64::from(requests);
    refusal.exceeding(limit, limit + 1).retry_after(retry_secs)
}

#[cfg(test)]
mod tests;
