//! One file per group of routes: extract, call, answer.

pub(crate) mod exports;
pub(crate) mod health;
pub(crate) mod preview;
pub(crate) mod read;
pub(crate) mod reverse;
pub(crate) mod send;

use axum::http::StatusCode;
use carga_intake::refusal::{Refusal, RefusalKind};

use crate::problem::ApiError;

/// What no route takes.
pub(crate) async fn not_found() -> ApiError {
    let message = "there is nothing at this address";
    Refusal::new(RefusalKind::NotFound, "not_found", message).into()
}

/// A known address, another method.
pub(crate) async fn method_not_allowed() -> ApiError {
    let message = "this address does not take this method";
    let refusal = Refusal::malformed("method_not_allowed", message);
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, refusal)
}
