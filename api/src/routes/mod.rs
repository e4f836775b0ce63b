//! One file per group of routes: extract, call, answer.

pub(crate) mod health;
pub(crate) mod preview;
pub(crate) mod read;
pub(crate) mod rejected;
pub(crate) mod reverse;
pub(crate) mod send;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::StatusCode;
use carga_common::upload::UploadId;

use crate::intake::options::unknown;
use crate::problem::{ApiError, Refusal};

/// The id in the path.
fn upload_id(path: Result<Path<String>, PathRejection>) -> Result<UploadId, Refusal> {
    let refuse = |what: &str| Refusal::bad_request("malformed_id", format!("`{what}` is no UUID"));
    let Path(text) = path.map_err(|_| refuse("what is in the path"))?;
    text.parse().map_err(|_| refuse(&text))
}

/// For calls that take none.
fn no_options(query: &[(String, String)]) -> Result<(), Refusal> {
    match query.first() {
        Some((name, _)) => Err(unknown(name, &[])),
        None => Ok(()),
    }
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
