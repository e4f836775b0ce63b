//! Lets the scripts of allowed pages send every request and read its answer (CORS, in the Fetch
//! standard: <https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! [`origin`](crate::origin) refuses the requests of all other pages; this module only tells the
//! browser that an allowed page may read. Answers name the origin of the page and never `*`, and do
//! not allow credentials, because a key is a header and not a cookie.
//!
//! `CorsLayer` of tower-http does not fit: it answers every `OPTIONS` itself, with the same methods
//! for all paths, and would be one more crate in every build.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use carga_common::settings::AllowedOrigins;

use crate::access::Guard;
use crate::marks::CountsForAddressOnly;
use crate::preflight::asks_for_permission;

/// The headers that the API reads, besides those that need no permission.
pub(crate) const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-encoding, content-type, idempotency-key, if-none-match, traceparent, tracestate, x-api-key, x-request-id",
);

/// The headers that the API sends, besides those that scripts may read without permission.
pub(crate) const ANSWER_HEADERS: HeaderValue = HeaderValue::from_static(
    "accept-encoding, allow, carga-upload-status, content-disposition, etag, idempotency-replayed, location, ratelimit, ratelimit-policy, retry-after, www-authenticate, x-request-id",
);

/// The methods of a path that no route has, so that a page can read the 404.
const EVERY_METHOD: &str = "GET,HEAD,POST,PUT,PATCH,DELETE";

/// The seconds for which a browser may remember the answer to a preflight request.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Adds the headers with which a page of an allowed origin can read the answer. Without an allowed
/// origin, adds only that the answer depends on it.
pub(crate) fn permit(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    // A cache must not give the answer for one origin to a page of another one.
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_HEADERS);
    }
}

/// The value of `Origin`, if it is one of the allowed origins.
pub(crate) fn allowed_origin<'a>(
    headers: &'a HeaderMap,
    allowed: &AllowedOrigins,
) -> Option<&'a HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let is_allowed = origin.to_str().is_ok_and(|text| allowed.contains(text));
    is_allowed.then_some(origin)
}

/// The answer to the preflight request of an allowed page: it asks before the real request, without
/// a key, which methods and headers that request may have. `None` for every other request.
pub(crate) fn answer_preflight(
    request: &Request,
    allowed: &AllowedOrigins,
    guard: &Guard,
) -> Option<Response> {
    if !is_preflight(request, allowed) {
        return None;
    }
    let path = request.extensions().get::<MatchedPath>();
    let methods = path.map(|path| guard.methods(path.as_str()));
    Some(permission(methods.as_deref().unwrap_or(EVERY_METHOD)))
}

fn is_preflight(request: &Request, allowed: &AllowedOrigins) -> bool {
    asks_for_permission(request) && allowed_origin(request.headers(), allowed).is_some()
}

/// The answer to a preflight request; [`permit`] adds the origin.
fn permission(methods: &str) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(CountsForAddressOnly);
    let headers = response.headers_mut();
    if let Ok(methods) = HeaderValue::from_str(methods) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Method;

    use super::*;

    const PAGE: &str = "https://app.example.org";

    fn allowed() -> AllowedOrigins {
        PAGE.parse().unwrap()
    }

    fn request(method: Method, headers: &[(&str, &str)]) -> Request {
        let request = Request::builder().method(method);
        let add = |request: axum::http::request::Builder, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        let request = headers.iter().fold(request, add);
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn only_an_options_request_of_an_allowed_page_for_a_method_is_a_preflight() {
        let method = ("access-control-request-method", "PUT");
        let page = ("origin", PAGE);
        let is_preflight =
            |method, headers: &[(&str, &str)]| is_preflight(&request(method, headers), &allowed());
        assert!(is_preflight(Method::OPTIONS, &[page, method]));
        assert!(!is_preflight(Method::PUT, &[page, method]));
        assert!(!is_preflight(Method::OPTIONS, &[page]));
        assert!(!is_preflight(Method::OPTIONS, &[method]));
        for origin in ["https://evil.example", "null", ""] {
            let other = ("origin", origin);
            assert!(!is_preflight(Method::OPTIONS, &[other, method]), "{origin}");
        }
    }

    #[test]
    fn a_preflight_is_answered_with_methods_and_headers_and_without_credentials() {
        let response = permission("GET,HEAD");
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert!(
            response
                .extensions()
                .get::<CountsForAddressOnly>()
                .is_some()
        );
        let headers = response.headers();
        assert_eq!(headers["access-control-allow-methods"], "GET,HEAD");
        assert_eq!(headers["access-control-max-age"], "600");
        let names = headers["access-control-allow-headers"].to_str().unwrap();
        let names: Vec<&str> = names.split(", ").collect();
        for name in ["authorization", "x-api-key", "content-type"] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(!headers.contains_key("access-control-allow-credentials"));
    }

    #[test]
    fn an_answer_names_the_origin_of_an_allowed_page_only() {
        let mut headers = HeaderMap::new();
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        let sent = request(Method::GET, &[("origin", PAGE)]);
        let origin = allowed_origin(sent.headers(), &allowed()).cloned();
        permit(&mut headers, origin);
        assert_eq!(headers["access-control-allow-origin"], PAGE);
        assert!(headers.contains_key("access-control-expose-headers"));
        let vary: Vec<_> = headers.get_all(header::VARY).iter().collect();
        assert_eq!(vary, ["accept", "origin"]);

        let mut headers = HeaderMap::new();
        let sent = request(Method::GET, &[("origin", "https://evil.example")]);
        let origin = allowed_origin(sent.headers(), &allowed()).cloned();
        permit(&mut headers, origin);
        assert_eq!(headers["vary"], "origin");
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn every_listed_header_has_a_valid_name_and_is_listed_once() {
        for list in [REQUEST_HEADERS, ANSWER_HEADERS] {
            let names = list.to_str().unwrap().split(", ");
            let mut names: Vec<_> = names
                .map(|name| name.parse::<header::HeaderName>().unwrap().to_string())
                .collect();
            let listed = names.clone();
            names.sort();
            names.dedup();
            assert_eq!(listed, names);
        }
    }
}
