//! The layers for what only browsers send and need. [`layer`] refuses requests of foreign pages and
//! answers preflight requests. [`headers_layer`] adds headers to all answers.
//!
//! The rules are in [`origin`], [`cors`] and [`security_headers`]. Each layer applies two of them,
//! because a layer costs every request more than a rule.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use carga_common::settings::IntakeSettings;

use crate::access::Guard;
use crate::problem::ApiError;
use crate::{cors, origin, security_headers};

/// What [`layer`] knows.
#[derive(Debug, Clone)]
pub(crate) struct Browsers {
    pub(crate) settings: Arc<IntakeSettings>,
    pub(crate) guard: Guard,
}

/// Refuses the request of a foreign page before its body is read, and answers the preflight request
/// of an allowed page.
pub(crate) async fn layer(
    State(Browsers { settings, guard }): State<Browsers>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    origin::check(&request, &settings)?;
    match cors::answer_preflight(&request, &settings.allowed_origins, &guard) {
        Some(permission) => Ok(permission),
        None => Ok(next.run(request).await),
    }
}

/// Adds the headers that protect users of a browser, and those with which a page of an allowed
/// origin can read the answer. Refusals get them, too.
pub(crate) async fn headers_layer(
    State(settings): State<Arc<IntakeSettings>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = cors::allowed_origin(request.headers(), &settings.allowed_origins).cloned();
    let hsts_secs = security_headers::hsts_secs(&request, &settings);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if !settings.allowed_origins.is_empty() {
        cors::permit(headers, origin);
    }
    security_headers::protect(headers, hsts_secs);
    response
}
