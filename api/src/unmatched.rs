//! Answers requests that no route matches.

use axum::http::{StatusCode, Uri};
use carga_intake::refusal::{Refusal, RefusalKind};

use crate::problem::ApiError;

/// Answers a request that no route matches.
pub(crate) async fn not_found() -> ApiError {
    let message = "no such resource";
    Refusal::new(RefusalKind::NotFound, "not_found", message).into()
}

/// Answers a request for a known path with an unsupported method. For datasets the message names
/// `PUT`, because a client may have sent a definition with `POST`, like a file.
pub(crate) async fn method_not_allowed(uri: Uri) -> ApiError {
    let message = match uri.path().starts_with("/datasets") {
        true => {
            "this resource does not support this method; to declare a dataset, send its definition with `PUT /datasets/{name}`"
        }
        false => "this resource does not support this method",
    };
    let refusal = Refusal::malformed("method_not_allowed", message);
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, refusal)
}
