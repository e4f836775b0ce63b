use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::any;
use carga_common::access::ApiKey;
use carga_common::limiter::Quota;
use carga_common::metrics::local::LocalRecorder;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::keys::tests::{ADMIN, Fixed};
use super::*;

/// A router with one listed path and one that is not in the list. Its handlers take every method
/// and answer with the tenant of the caller and with whether it may use only its own uploads.
fn router(store: Fixed) -> Router {
    let mut requirements = Requirements::default();
    requirements.add("/listed/{id}", Method::GET, Requirement::READ);
    requirements.add("/listed/{id}", Method::POST, Requirement::SEND);
    requirements.add("/headers", Method::GET, Requirement::READ);
    requirements.add("/open", Method::GET, Requirement::Open);
    let guard = Guard {
        access: Access::WithKey(Arc::new(store.keys())),
        requirements: Arc::new(requirements),
    };
    let handler = async |caller: Caller| format!("{} {}", caller.tenant, caller.only_own);
    Router::new()
        .route("/listed/{id}", any(handler))
        .route("/not-listed", any(handler))
        .route(
            "/headers",
            any(async |headers: HeaderMap| format!("{headers:?}")),
        )
        .route("/open", any(async || "open"))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(from_fn_with_state(guard, layer))
}

async fn answer(router: &Router, method: Method, path: &str, key: Option<&ApiKey>) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    request = request.header("accept", "*/*");
    if let Some(key) = key {
        let bearer = format!("Bearer {}", key.expose());
        request = request.header("x-api-key", key.expose());
        request = request.header("authorization", bearer);
    }
    let request = request.body(Body::empty()).unwrap();
    let service = TowerToHyperService::new(router.clone());
    service.call(request).await.unwrap()
}

/// The status of the answer to a request from an address with these lookups left.
async fn status_with(allowance: &LookupAllowance, router: &Router, key: &str) -> u16 {
    let request = Request::builder().uri("/listed/1").header("x-api-key", key);
    let request = request.extension(allowance.clone()).body(Body::empty());
    let service = TowerToHyperService::new(router.clone());
    let answer = service.call(request.unwrap()).await;
    answer.unwrap().status().as_u16()
}

/// An allowance of this many lookups. A lookup that is taken does not come back by itself.
fn allowance(lookups: u32) -> LookupAllowance {
    let lookups = NonZeroU32::new(lookups).unwrap();
    let quota = Quota::new(lookups, Duration::from_secs(3600));
    LookupAllowance::new(Arc::default(), Ipv4Addr::LOCALHOST.into(), quota)
}

async fn status(router: &Router, method: Method, path: &str, key: Option<&ApiKey>) -> u16 {
    answer(router, method, path, key).await.status().as_u16()
}

#[tokio::test]
async fn each_check_is_counted_by_its_outcome() {
    let mut store = Fixed::default();
    let read = with_scopes(&mut store, "read");
    let recorder = LocalRecorder::new().unwrap();
    let router = recorder.run(|| router(store));
    let unknown = ApiKey::generate().unwrap();
    for (method, path, key) in [
        (Method::GET, "/listed/1", Some(&read)),
        (Method::GET, "/missing", Some(&read)),
        (Method::POST, "/listed/1", Some(&read)),
        (Method::GET, "/listed/1", None),
        (Method::GET, "/listed/1", Some(&unknown)),
        // No key is checked here.
        (Method::GET, "/open", None),
    ] {
        status(&router, method, path, key).await;
    }
    let outcomes = ["accepted", "missing", "invalid", "forbidden", "unavailable"];
    let counts = outcomes.map(|outcome| {
        let series = format!("carga_authentications_total{{outcome=\"{outcome}\"}}");
        recorder.value(&series).unwrap()
    });
    assert_eq!(counts, [2.0, 1.0, 1.0, 1.0, 0.0]);
    let lookups = ["cache", "store"].map(|source| {
        let series = format!("carga_key_lookups_total{{source=\"{source}\"}}");
        recorder.value(&series).unwrap()
    });
    assert_eq!(lookups, [2.0, 2.0]);
}

#[test]
fn a_key_that_could_not_be_checked_counts_as_unavailable_and_several_keys_as_invalid() {
    let recorder = LocalRecorder::new().unwrap();
    let counters = recorder.run(metrics::CheckCounters::new);
    let unavailable = Refusal::unavailable("dependency_unavailable", "the store is away");
    for refusal in [
        unavailable,
        Refusal::internal(),
        Refusal::malformed("malformed_credentials", "two keys"),
    ] {
        counters.count::<()>(&Err(refusal));
    }
    let value = |outcome: &str| {
        recorder.value(&format!(
            "carga_authentications_total{{outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!(value("unavailable"), Some(2.0));
    assert_eq!(value("invalid"), Some(1.0));
}

fn with_scopes(store: &mut Fixed, scopes: &str) -> ApiKey {
    store.add(|record| record.scopes = scopes.parse().unwrap())
}

#[tokio::test]
async fn without_a_key_only_open_routes_answer() {
    let router = router(Fixed::default());
    assert_eq!(status(&router, Method::GET, "/open", None).await, 200);
    for path in ["/listed/1", "/not-listed", "/missing"] {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS] {
            let answer = answer(&router, method, path, None).await;
            assert_eq!(answer.status(), 401, "{path}");
            let challenge = &answer.headers()["www-authenticate"];
            assert_eq!(challenge, "Bearer realm=\"carga\"");
        }
    }
    assert_eq!(status(&router, Method::PUT, "/open", None).await, 401);
}

#[tokio::test]
async fn a_route_outside_the_list_is_closed_to_every_key() {
    let mut store = Fixed::default();
    let admin = with_scopes(&mut store, "admin");
    let router = router(store);
    for method in [Method::GET, Method::POST, Method::PATCH] {
        let status = status(&router, method, "/not-listed", Some(&admin)).await;
        assert_eq!(status, 405);
    }
    let refused = answer(&router, Method::DELETE, "/listed/1", Some(&admin)).await;
    assert_eq!(refused.status(), 405);
    assert_eq!(refused.headers()["allow"], "GET,POST,HEAD");
    let missing = status(&router, Method::GET, "/missing", Some(&admin)).await;
    assert_eq!(missing, 404);
}

async fn body(answer: Response) -> String {
    let bytes = axum::body::to_bytes(answer.into_body(), 1000).await;
    String::from_utf8(bytes.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_handler_knows_its_caller() {
    let mut store = Fixed::default();
    let read = with_scopes(&mut store, "read");
    let upload = with_scopes(&mut store, "upload");
    let router = router(store);
    for (key, expected) in [(&read, "acme false"), (&upload, "acme true")] {
        let answer = answer(&router, Method::GET, "/listed/1", Some(key)).await;
        assert_eq!(body(answer).await, expected);
    }
    let head = status(&router, Method::HEAD, "/listed/1", Some(&read)).await;
    assert_eq!(head, 200);
}

#[tokio::test]
async fn a_handler_does_not_see_the_key() {
    let mut store = Fixed::default();
    let key = with_scopes(&mut store, "read");
    let answer = answer(&router(store), Method::GET, "/headers", Some(&key)).await;
    assert_eq!(answer.status(), 200);
    let headers = body(answer).await;
    assert_eq!(headers, "{\"accept\": \"*/*\"}");
}

#[tokio::test]
async fn a_key_without_the_scope_and_an_unknown_key_get_their_challenges() {
    let mut store = Fixed::default();
    let read = with_scopes(&mut store, "read");
    let router = router(store);
    let unknown = ApiKey::generate().unwrap();
    for (key, status, error) in [
        (&read, 403, "insufficient_scope"),
        (&unknown, 401, "invalid_token"),
    ] {
        let refused = answer(&router, Method::POST, "/listed/1", Some(key)).await;
        assert_eq!(refused.status(), status);
        let challenge = &refused.headers()["www-authenticate"];
        let expected = format!("Bearer realm=\"carga\", error=\"{error}\"");
        assert_eq!(challenge, expected.as_str());
    }
}

#[tokio::test]
async fn a_key_for_one_dataset_is_refused_by_the_query_before_the_body_is_read() {
    let mut store = Fixed::default();
    let key = store.add(|record| {
        record.scopes = "upload".parse().unwrap();
        record.dataset = "my sales".parse().ok();
    });
    let router = router(store);
    for (query, expected) in [
        ("?dataset=my%20sales", 200),
        ("?dataset=my+sales&delimiter=,", 200),
        // The form may have the option.
        ("", 200),
        ("?dataset=stock", 403),
        ("?dataset=my+sales&dataset=stock", 403),
    ] {
        let path = format!("/listed/1{query}");
        let status = status(&router, Method::POST, &path, Some(&key)).await;
        assert_eq!(status, expected, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_allowance_only_a_key_that_was_found_before_is_accepted() {
    let mut store = Fixed::default();
    let (known, new) = (
        with_scopes(&mut store, "read"),
        with_scopes(&mut store, "read"),
    );
    let lookups = store.lookups();
    let router = router(store);
    let unknown = ApiKey::generate().unwrap();
    for (key, expected) in [(&known, 200), (&unknown, 401)] {
        let status = status(&router, Method::GET, "/listed/1", Some(key)).await;
        assert_eq!(status, expected);
    }
    assert_eq!(lookups.load(Ordering::SeqCst), 2);
    let used_up = allowance(1);
    assert!(used_up.take());
    let invented: Vec<ApiKey> = (0..20).map(|_| ApiKey::generate().unwrap()).collect();
    for key in invented.iter().chain([&new]) {
        assert_eq!(status_with(&used_up, &router, key.expose()).await, 503);
    }
    // These need no lookup, or are not keys.
    for (key, expected) in [(known.expose(), 200), (ADMIN, 200), ("wrong", 401)] {
        assert_eq!(status_with(&used_up, &router, key).await, expected, "{key}");
    }
    // The store was asked for this one a moment ago.
    assert_eq!(status_with(&used_up, &router, unknown.expose()).await, 401);
    assert_eq!(lookups.load(Ordering::SeqCst), 2);
    used_up.give_back();
    assert_eq!(status_with(&used_up, &router, new.expose()).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_valid_key_gives_its_lookup_back_and_an_invented_one_does_not() {
    let mut store = Fixed::default();
    let valid: Vec<ApiKey> = ["read", "manage"]
        .into_iter()
        .cycle()
        .take(8)
        .map(|scopes| with_scopes(&mut store, scopes))
        .collect();
    let router = router(store);
    let two = allowance(2);
    for (key, expected) in valid.iter().zip([200, 403].into_iter().cycle()) {
        assert_eq!(status_with(&two, &router, key.expose()).await, expected);
    }
    for expected in [401, 401, 503, 503] {
        let invented = ApiKey::generate().unwrap();
        let status = status_with(&two, &router, invented.expose()).await;
        assert_eq!(status, expected);
    }
}
