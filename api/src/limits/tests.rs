mod lookups;
mod repeats;
mod senders;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::any;
use carga_common::access::{KeyDigest, KeyRecord};
use carga_common::error::PortResult;
use carga_common::idempotency::{IdempotentRequest, fingerprint};
use carga_common::limiter::LocalLimiter;
use carga_common::metrics::local::LocalRecorder;
use carga_common::settings::{Mode, Settings};
use carga_common::store::{FirstAnswer, FirstUpload};
use futures::stream;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::*;

/// A store in which the first request with the `Idempotency-Key` `held` was answered. It counts its
/// calls.
#[derive(Debug, Default)]
struct Held(AtomicU32);

#[async_trait]
impl IdempotencyStore for Held {
    async fn first_upload(&self, _key: &IdempotencyKey) -> PortResult<Option<FirstUpload>> {
        Ok(None)
    }

    async fn create_key_once(
        &self,
        _key: &KeyRecord,
        _digest: &KeyDigest,
        _request: &IdempotentRequest,
        _answer: &str,
    ) -> PortResult<bool> {
        Ok(false)
    }

    async fn first_answer(&self, key: &IdempotencyKey) -> PortResult<Option<FirstAnswer>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let answer = FirstAnswer {
            fingerprint: fingerprint([]),
            body: String::new(),
        };
        Ok((key.text.as_str() == "held").then_some(answer))
    }

    async fn forget_requests(&self) -> PortResult<u64> {
        Ok(0)
    }
}

/// The limits with these settings, where requests need keys.
fn limits(settings: &[(&str, &str)]) -> Limits {
    limits_with("on", settings)
}

fn limits_with(auth: &str, settings: &[(&str, &str)]) -> Limits {
    limits_of(auth, settings, Arc::default())
}

fn limits_of(auth: &str, settings: &[(&str, &str)], store: Arc<Held>) -> Limits {
    let settings = Settings::read(Mode::Embedded, &|name| {
        let value = match name {
            "CARGA_AUTH" => Some(auth),
            _ => settings
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value),
        };
        value.map(str::to_owned)
    });
    let settings = settings.unwrap();
    let authentication = settings.authentication().unwrap();
    Limits::new(&settings.limits, &authentication, None, store)
}

/// A router behind both layers. The key is the value of `x-api-key`: an id, `admin`, or `wrong`,
/// which is refused.
fn router(limits: Limits) -> Router {
    let check = async |mut request: Request, next: Next| {
        let key = request.headers().get("x-api-key").cloned();
        let mut caller = Caller::unlimited();
        match key.as_ref().and_then(|key| key.to_str().ok()) {
            None => return next.run(request).await,
            Some("wrong") => return StatusCode::UNAUTHORIZED.into_response(),
            Some("admin") => {}
            Some(id) => caller.key = Some(id.parse().unwrap()),
        }
        request.extensions_mut().insert(caller);
        next.run(request).await
    };
    Router::new()
        .route("/", any(async || "ok"))
        .route("/keys", any(async || "ok"))
        .route(paths::LIVE, any(async || "ok"))
        .route(paths::METRICS, any(async || "ok"))
        .layer(from_fn_with_state(limits.clone(), layer))
        .layer(from_fn(check))
        .layer(from_fn_with_state(limits, refused_layer))
}

async fn answer(router: &Router, address: &str, key: Option<&str>, body: Body) -> Response {
    let mut request = Request::builder();
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    send(router, address, request.body(body).unwrap()).await
}

async fn send(router: &Router, address: &str, mut request: Request) -> Response {
    let peer = SocketAddr::new(address.parse().unwrap(), 4711);
    request.extensions_mut().insert(ConnectInfo(peer));
    let service = TowerToHyperService::new(router.clone());
    service.call(request).await.unwrap()
}

async fn status(router: &Router, address: &str, key: Option<&str>) -> u16 {
    let answer = answer(router, address, key, Body::empty()).await;
    answer.status().as_u16()
}

/// How many of many requests are not refused by a limit.
async fn admitted(router: &Router, address: &str, key: Option<&str>) -> u32 {
    let mut admitted = 0;
    for _ in 0..30 {
        admitted += u32::from(status(router, address, key).await != 429);
    }
    admitted
}

const ONE: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.2";
const KEY: &str = "0123456789ab";
const OFF: (&str, &str) = ("CARGA_LIMIT_BURST", "off");
const ONLY_BURST: [(&str, &str); 2] = [("CARGA_LIMIT_ADDRESS", "off"), ("CARGA_LIMIT_KEY", "off")];

#[tokio::test]
async fn each_key_has_its_own_limit_from_any_address() {
    let router = router(limits(&[("CARGA_LIMIT_KEY", "5"), OFF]));
    assert_eq!(admitted(&router, ONE, Some(KEY)).await, 5);
    assert_eq!(admitted(&router, OTHER, Some(KEY)).await, 0);
    assert_eq!(admitted(&router, ONE, Some("zzzzzzzzzzzz")).await, 5);
    assert_eq!(admitted(&router, ONE, Some("admin")).await, 5);
}

#[tokio::test]
async fn each_address_has_its_own_limit_with_any_key() {
    let settings = [
        ("CARGA_LIMIT_ADDRESS", "6"),
        ("CARGA_LIMIT_KEY", "off"),
        OFF,
    ];
    let router = router(limits(&settings));
    assert_eq!(admitted(&router, "2001:db8::1", Some(KEY)).await, 6);
    assert_eq!(admitted(&router, "2001:db8::2", Some("admin")).await, 0);
    assert_eq!(admitted(&router, "2001:db8:0:1::1", Some(KEY)).await, 6);
    assert_eq!(admitted(&router, ONE, None).await, 6);
}

#[test]
fn a_burst_is_limited_per_key_or_per_address_without_a_key() {
    let (clock, second_us) = (LocalLimiter::new(), 1_000_000);
    let limiter = limits(&[ONLY_BURST.as_slice(), &[("CARGA_LIMIT_BURST", "3")]].concat());
    let limiter = limiter.0.unwrap();
    let (admin, one) = (Caller::unlimited(), ONE.parse().unwrap());
    let mut holder = Caller::unlimited();
    holder.key = Some(KEY.parse().unwrap());
    let admitted = |now_us: u64, address: IpAddr, caller: Option<&Caller>| {
        let applied = limiter.applied(address, caller);
        let admitted = (0..30).filter(|_| clock.take_at(now_us, &applied.buckets).admitted);
        admitted.count()
    };
    for now_us in [0, 2 * second_us] {
        for caller in [Some(&holder), None, Some(&admin)] {
            assert_eq!(admitted(now_us, one, caller), 3);
        }
        // The address makes no difference to a key.
        assert_eq!(admitted(now_us, OTHER.parse().unwrap(), Some(&holder)), 0);
    }
    assert_eq!(admitted(second_us * 5 / 2, one, Some(&holder)), 1);
}

#[tokio::test]
async fn every_request_counts_in_its_second() {
    let router = router(limits(
        &[ONLY_BURST.as_slice(), &[("CARGA_LIMIT_BURST", "3")]].concat(),
    ));
    for key in [Some(KEY), None, Some("wrong")] {
        let answer = answer(&router, ONE, key, Body::empty()).await;
        let policy = &answer.headers()["ratelimit-policy"];
        assert_eq!(policy, "\"burst\";q=3;w=1", "{key:?}");
    }
}

#[tokio::test]
async fn without_keys_every_request_counts_for_its_address_alone() {
    let router_without_limits = router(limits_with("off", &[]));
    assert_eq!(
        admitted(&router_without_limits, ONE, Some("admin")).await,
        30
    );
    let settings = [("CARGA_LIMIT_KEY", "1"), ("CARGA_LIMIT_ADDRESS", "4")];
    let router = router(limits_with("off", &settings));
    assert_eq!(admitted(&router, ONE, Some("admin")).await, 4);
    assert_eq!(admitted(&router, OTHER, Some("admin")).await, 4);
}

#[tokio::test]
async fn without_keys_scrapes_are_counted_and_health_checks_are_not() {
    let router = router(limits_with("off", &[("CARGA_LIMIT_ADDRESS", "3")]));
    let status = async |path: &str| {
        let request = Request::builder().uri(path).body(Body::empty());
        let answer = send(&router, ONE, request.unwrap()).await;
        answer.status().as_u16()
    };
    for expected in [200, 200, 200, 429] {
        assert_eq!(status(paths::METRICS).await, expected);
    }
    assert_eq!(status(paths::LIVE).await, 200);
}

#[tokio::test]
async fn requests_that_are_refused_before_the_limits_count_for_their_address() {
    let settings = [
        ("CARGA_LIMIT_ADDRESS", "4"),
        ("CARGA_LIMIT_KEY", "off"),
        OFF,
    ];
    let router = router(limits(&settings));
    for _ in 0..4 {
        assert_eq!(status(&router, ONE, Some("wrong")).await, 401);
    }
    let answer = answer(&router, ONE, Some("wrong"), Body::empty()).await;
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(answer.extensions().get::<RefusedByLimit>().is_some());
    assert_eq!(status(&router, OTHER, Some("wrong")).await, 401);
}

#[tokio::test]
async fn every_counted_answer_has_the_fields_and_a_refusal_says_when_to_retry() {
    let settings = [("CARGA_LIMIT_KEY", "2"), OFF];
    let router = router(limits(&settings));
    let policy = "\"address\";q=1000;w=60, \"key\";q=2;w=60";
    for (expected, left) in [
        (200, "\"key\";r=1;"),
        (200, "\"key\";r=0;"),
        (429, "\"key\";r=0;"),
    ] {
        let answer = answer(&router, ONE, Some(KEY), Body::empty()).await;
        assert_eq!(answer.status(), expected);
        assert_eq!(answer.headers()["ratelimit-policy"], policy);
        let limit = answer.headers()["ratelimit"].to_str().unwrap();
        assert!(limit.starts_with(left), "{limit}");
        let is_marked = answer.extensions().get::<RefusedByLimit>().is_some();
        assert_eq!(is_marked, expected == 429);
        let retry = answer.headers().get("retry-after");
        let retry = retry.map(|secs| secs.to_str().unwrap().parse::<u32>().unwrap());
        match expected {
            429 => assert!((1..=30).contains(&retry.unwrap()), "{retry:?}"),
            _ => assert_eq!(retry, None),
        }
    }
    let wrong = answer(&router, ONE, Some("wrong"), Body::empty()).await;
    assert_eq!(
        wrong.headers()["ratelimit-policy"],
        "\"address\";q=1000;w=60"
    );
}

#[test]
fn a_refusal_names_the_limit_its_setting_and_the_sender() {
    let limits = limits(&[("CARGA_LIMIT_KEY", "1"), ("CARGA_LIMIT_ADDRESS", "7"), OFF]);
    let limiter = limits.0.unwrap();
    let client: IpAddr = ONE.parse().unwrap();
    let message = |caller: Option<&Caller>, waiting: usize| {
        let applied = limiter.applied(client, caller);
        let standing = Standing {
            remaining: 0,
            full_in: Duration::from_secs(60),
            wait: Duration::from_millis(2100),
        };
        let (policy, bucket) = (&applied.policies[waiting], &applied.buckets[waiting]);
        let refusal = too_many(policy, bucket, &standing, client);
        assert_eq!(refusal.kind, RefusalKind::TooMany);
        assert_eq!(refusal.failure.code, "rate_limited");
        assert_eq!(refusal.retry_after_secs, Some(3));
        refusal.failure.message
    };
    let by_address = message(None, 0);
    let expected = "the limit is 7 requests per minute from address 192.0.2.1 (CARGA_LIMIT_ADDRESS); retry in 3 s";
    assert_eq!(by_address, expected);
    let by_key = message(Some(&Caller::unlimited()), 1);
    let expected = "the limit is 1 request per minute with this key and its tokens (CARGA_LIMIT_KEY); retry in 3 s";
    assert_eq!(by_key, expected);
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_not_read() {
    let router = router(limits(&[("CARGA_LIMIT_KEY", "1"), OFF]));
    assert_eq!(status(&router, ONE, Some(KEY)).await, 200);
    let polls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&polls);
    let body = stream::poll_fn(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::task::Poll::Ready(Some(Ok::<_, std::io::Error>("a,b\n")))
    });
    let answer = answer(&router, ONE, Some(KEY), Body::from_stream(body)).await;
    assert_eq!(answer.status(), 429);
    assert_eq!(polls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn health_checks_and_scrapes_are_not_counted_unless_their_key_is_refused() {
    let settings = [("CARGA_LIMIT_ADDRESS", "3"), ("CARGA_LIMIT_KEY", "3"), OFF];
    let router = router(limits(&settings));
    let status = async |path: &str, key: &str| {
        let request = Request::builder().uri(path).header("x-api-key", key);
        let answer = send(&router, ONE, request.body(Body::empty()).unwrap()).await;
        let is_counted = answer.headers().contains_key("ratelimit");
        (answer.status().as_u16(), is_counted)
    };
    for path in [paths::LIVE, paths::METRICS] {
        for _ in 0..30 {
            assert_eq!(status(path, "admin").await, (200, false));
        }
    }
    for expected in [401, 401, 401, 429, 429] {
        assert_eq!(status(paths::METRICS, "wrong").await, (expected, true));
    }
    assert_eq!(status("/", "admin").await, (429, true));
    assert_eq!(status(paths::METRICS, "admin").await, (200, false));
}

#[tokio::test]
async fn a_refused_request_counts_for_the_limit_that_its_answer_names() {
    let recorder = LocalRecorder::new().unwrap();
    let limits = recorder.run(|| limits(&[("CARGA_LIMIT_KEY", "1"), OFF]));
    let limiter = limits.0.unwrap();
    let client: IpAddr = ONE.parse().unwrap();
    let applied = limiter.applied(client, Some(&Caller::unlimited()));
    assert!(limiter.fallback.take_locally(&applied.buckets).admitted);
    let decision = limiter.fallback.take_locally(&applied.buckets);
    assert_eq!(limiter.refuse(&applied, &decision, client).status(), 429);
    let refused = ["address", "key", "burst"].map(|limit| {
        let series = format!("carga_limit_refusals_total{{limit=\"{limit}\"}}");
        recorder.value(&series)
    });
    assert_eq!(refused, [Some(0.0), Some(1.0), Some(0.0)]);
}
