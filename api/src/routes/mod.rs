//! One file per group of routes: extract, call, answer.

pub(crate) mod health;
pub(crate) mod read;
pub(crate) mod send;

use axum::http::StatusCode;
use carga_common::upload::UploadId;

use crate::problem::{ApiError, Refusal};

/// The id in the path.
fn upload_id(text: &str) -> Result<UploadId, Refusal> {
    text.parse()
        .map_err(|_| Refusal::bad_request("malformed_id", format!("`{text}` is no UUID")))
}

/// What no route takes.
pub(crate) async fn not_found() -> ApiError {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing at this address",
    )
    .into()
}

/// A known address, another method.
pub(crate) async fn method_not_allowed() -> ApiError {
    let message = "this address does not take this method";
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
    .into()
}
