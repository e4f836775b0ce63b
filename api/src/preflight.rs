//! Recognizes preflight requests.

use axum::extract::Request;
use axum::http::{Method, header};

/// Whether a browser asks if a page may send a request. The page may be of any origin.
pub(crate) fn asks_for_permission(request: &Request) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}
