//! Recognizes preflight requests.

use axum::extract::Request;
use axum::http::{Method, header};

/// Whether a browser asks if a page may send a request, be it a page of an allowed origin or not.
pub(crate) fn asks_for_permission(request: &Request) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}
