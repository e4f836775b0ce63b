use std::collections::BTreeSet;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use carga_common::access::Scope;
use carga_common::backends::{self, Backends};
use carga_common::settings::{Mode, Settings};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::routes;
use crate::state::ApiState;

const ADMIN: &str = "an-admin-key-of-more-than-32-characters";

/// The page that may use the API.
const PAGE: &str = "https://app.example.org";

/// An API on files in this directory, which requires keys, listens on loopback and allows [`PAGE`].
async fn state(directory: &TempDir) -> SharedState {
    let data = directory.path().to_str().unwrap();
    let settings = Settings::read(Mode::Embedded, &|name| match name {
        "CARGA_AUTH" => Some("on".to_owned()),
        "CARGA_ADMIN_KEY" => Some(ADMIN.to_owned()),
        "CARGA_ALLOWED_ORIGINS" => Some(PAGE.to_owned()),
        "CARGA_DATA_DIR" => Some(data.to_owned()),
        _ => None,
    });
    let settings = settings.unwrap();
    let authentication = settings.authentication().unwrap();
    let access = backends::Access::Exclusive;
    let backends = Backends::connect(&settings.ports, "test", access).await;
    let stop = CancellationToken::new();
    Arc::new(ApiState::new(
        backends.unwrap(),
        settings.intake,
        &authentication,
        None,
        stop,
    ))
}

/// The head of a request for this host.
fn request(method: &Method, path: &str, host: &str, key: Option<&str>) -> Request {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", host);
    let request = match key {
        Some(key) => request.header("x-api-key", key),
        None => request,
    };
    request.body(Body::empty()).unwrap()
}

async fn answer(service: &RouterIntoService<Body>, request: Request) -> Response {
    let service = TowerToHyperService::new(service.clone());
    service.call(request).await.unwrap()
}

/// The paths that need no key.
const PUBLIC: [&str; 4] = [paths::LIVE, paths::READY, openapi::DOCUMENT, openapi::PAGE];

const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::DELETE,
    Method::PATCH,
    Method::OPTIONS,
    Method::TRACE,
];

#[tokio::test]
async fn every_method_of_every_path_but_the_public_ones_needs_a_key() {
    let directory = TempDir::new().unwrap();
    let service = service(state(&directory).await);
    for path in ["/", "/missing", "/uploads", "/keys/000000000000", "/livez/"] {
        for method in METHODS {
            for key in [None, Some("x")] {
                let request = request(&method, path, "localhost", key);
                let status = answer(&service, request).await.status();
                assert_eq!(status, 401, "{method} {path}");
            }
        }
    }
    for path in PUBLIC {
        for method in METHODS {
            let is_open = matches!(method, Method::GET | Method::HEAD);
            let request = request(&method, path, "localhost", None);
            let status = answer(&service, request).await.status();
            assert_eq!(status, if is_open { 200 } else { 401 }, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_method_outside_the_list_is_refused_with_every_key() {
    let directory = TempDir::new().unwrap();
    let service = service(state(&directory).await);
    for (method, expected) in [
        (Method::GET, 200),
        (Method::HEAD, 200),
        (Method::OPTIONS, 405),
        (Method::TRACE, 405),
        (Method::PATCH, 405),
    ] {
        let request = request(&method, "/uploads", "localhost", Some(ADMIN));
        let answer = answer(&service, request).await;
        assert_eq!(answer.status(), expected, "{method}");
        let allow = answer.headers().get("allow");
        assert_eq!(allow.is_some(), expected == 405, "{method}");
        assert!(
            allow.is_none_or(|allow| allow == "GET,POST,HEAD"),
            "{allow:?}"
        );
    }
}

/// The problem of the answer to a `GET` with this query.
async fn problem_of(
    service: &RouterIntoService<Body>,
    path: &str,
    query: &str,
) -> serde_json::Value {
    let path = path.replace("{id}", "00000000-0000-4000-8000-000000000000");
    let path = format!("{path}?{query}");
    let request = request(&Method::GET, &path, "localhost", Some(ADMIN));
    let body = answer(service, request).await.into_body();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    serde_json::from_slice(&body).unwrap_or_default()
}

#[tokio::test]
async fn every_parser_of_a_list_knows_exactly_the_options_that_it_lists() {
    let directory = TempDir::new().unwrap();
    let service = service(state(&directory).await);
    for (path, options) in [
        ("/audit", audit::LIST_OPTIONS.as_slice()),
        ("/datasets", &datasets::LIST_OPTIONS),
        ("/events", &events::LIST_OPTIONS),
        ("/keys", &keys::LIST_OPTIONS),
        ("/uploads", &read::LIST_OPTIONS),
        ("/uploads/{id}/rejected", &exports::REJECTED_OPTIONS),
        ("/uploads/{id}/rows", &exports::ROWS_OPTIONS),
    ] {
        for option in options {
            let query = format!("{option}=%20");
            let problem = problem_of(&service, path, &query).await;
            assert_eq!(problem["code"], "malformed_option", "{path}?{query}");
        }
        let problem = problem_of(&service, path, "other=1").await;
        assert_eq!(problem["code"], "unknown_option", "{path}");
        let detail = problem["detail"].as_str().unwrap();
        let (_, known) = detail.split_once("known options: ").unwrap();
        let known: Vec<&str> = known.split(", ").collect();
        assert_eq!(known, options, "{path}");
    }
}

#[tokio::test]
async fn a_handler_that_is_not_in_the_list_is_closed() {
    let directory = TempDir::new().unwrap();
    let handlers = Router::new().route("/extra", any(async || "open"));
    let router = with_layers(handlers, state(&directory).await);
    let service = router.into_service();
    for method in METHODS {
        for (key, expected) in [(None, 401), (Some(ADMIN), 405)] {
            let request = request(&method, "/extra", "localhost", key);
            let status = answer(&service, request).await.status();
            assert_eq!(status, expected, "{method}");
        }
    }
}

#[test]
fn exactly_the_routes_without_a_key_are_open_to_every_page_and_host() {
    for route in routes() {
        let is_open = route.requirement == Requirement::Open;
        assert_eq!(is_open, routes::is_public(route.path), "{}", route.path);
    }
}

#[tokio::test]
async fn only_public_paths_accept_every_host() {
    let directory = TempDir::new().unwrap();
    let service = service(state(&directory).await);
    let public = PUBLIC.map(|path| (path, None, 200));
    // The host is checked before the key.
    let others = [
        ("/uploads", None, 421),
        ("/uploads", Some(ADMIN), 421),
        ("/missing", Some(ADMIN), 421),
    ];
    for (path, key, expected) in public.into_iter().chain(others) {
        let request = request(&Method::GET, path, "evil.example", key);
        let status = answer(&service, request).await.status();
        assert_eq!(status, expected, "{path}");
    }
}

#[tokio::test]
async fn the_document_and_its_page_may_be_requested_from_any_site_and_keep_their_own_headers() {
    let directory = TempDir::new().unwrap();
    let service = service(state(&directory).await);
    for (path, policy) in [
        (
            openapi::DOCUMENT,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (openapi::PAGE, crate::openapi::POLICY.as_str()),
    ] {
        for origin in [PAGE, "https://evil.example", "null"] {
            let mut request = request(&Method::GET, path, "localhost", None);
            let headers = request.headers_mut();
            headers.insert("origin", origin.parse().unwrap());
            headers.insert("sec-fetch-site", "cross-site".parse().unwrap());
            let answer = answer(&service, request).await;
            assert_eq!(answer.status(), 200, "{path} {origin}");
            let headers = answer.headers();
            let policies = headers.get_all("content-security-policy").iter();
            assert!(policies.eq([policy]), "{path}");
            assert!(headers.get_all("cache-control").iter().eq(["no-cache"]));
            assert_eq!(headers["x-content-type-options"], "nosniff");
            let permitted = headers.get("access-control-allow-origin");
            assert_eq!(permitted.is_some(), origin == PAGE, "{path} {origin}");
        }
    }
}

#[tokio::test]
async fn a_preflight_of_an_allowed_page_is_answered_without_a_key_and_no_other_one() {
    let directory = TempDir::new().unwrap();
    let service = service(state(&directory).await);
    let other = "https://evil.example";
    for (path, origin, expected, methods) in [
        ("/uploads", PAGE, 204, Some("GET,POST,HEAD")),
        ("/metrics", PAGE, 204, Some("GET,HEAD")),
        (paths::LIVE, PAGE, 204, Some("GET,HEAD")),
        (
            "/missing",
            PAGE,
            204,
            Some("GET,HEAD,POST,PUT,PATCH,DELETE"),
        ),
        ("/uploads", other, 403, None),
        (paths::LIVE, other, 401, None),
    ] {
        let mut preflight = request(&Method::OPTIONS, path, "localhost", None);
        let headers = preflight.headers_mut();
        headers.insert("origin", origin.parse().unwrap());
        headers.insert("access-control-request-method", "GET".parse().unwrap());
        let answer = answer(&service, preflight).await;
        assert_eq!(answer.status(), expected, "{path} {origin}");
        let allowed = answer.headers().get("access-control-allow-methods");
        let allowed = allowed.map(|methods| methods.to_str().unwrap());
        assert_eq!(allowed, methods, "{path} {origin}");
    }
}

#[tokio::test]
async fn every_answer_is_protected_and_readable_for_an_allowed_page() {
    let directory = TempDir::new().unwrap();
    let service = service(state(&directory).await);
    for (path, host, key, expected) in [
        (paths::LIVE, "localhost", None, 200),
        ("/uploads", "localhost", Some(ADMIN), 200),
        ("/uploads", "localhost", None, 401),
        ("/missing", "localhost", Some(ADMIN), 404),
        ("/uploads/preview", "localhost", Some(ADMIN), 405),
        ("/uploads", "evil.example", Some(ADMIN), 421),
    ] {
        let mut request = request(&Method::GET, path, host, key);
        request
            .headers_mut()
            .insert("origin", PAGE.parse().unwrap());
        let answer = answer(&service, request).await;
        assert_eq!(answer.status(), expected, "{path}");
        let headers = answer.headers();
        assert_eq!(headers["access-control-allow-origin"], PAGE, "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["cache-control"], "no-store", "{path}");
    }
}

#[test]
fn every_route_is_listed_once_and_keys_logs_audit_and_metrics_are_for_admins() {
    let mut listed = BTreeSet::new();
    for (method, path, requirement) in requirements() {
        assert!(listed.insert(format!("{method} {path}")), "{method} {path}");
        let is_open = requirement == Requirement::Open;
        assert_eq!(is_open, PUBLIC.contains(&path), "{path}");
        let is_restricted = matches!(
            path,
            "/admin/log" | "/audit" | "/keys" | "/keys/{id}" | "/metrics"
        );
        let is_for_admins = requirement == Requirement::AnyOf(&[Scope::Admin]);
        assert_eq!(is_restricted, is_for_admins, "{path}");
    }
    assert!(listed.contains("PUT /uploads/{id}"), "{listed:?}");
}
