//! Parameters of requests, except the options of a file.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use carga_common::upload::UploadId;
use carga_intake::refusal::Refusal;

/// Parses the upload's id in the path.
pub(crate) fn upload_id(path: Result<Path<String>, PathRejection>) -> Result<UploadId, Refusal> {
    let refuse = |message: String| Refusal::malformed("malformed_id", message);
    let Path(text) = path.map_err(|_| refuse("the id in the path is not a UUID".to_owned()))?;
    text.parse()
        .map_err(|_| refuse(format!("`{text}` is not a UUID")))
}

/// Refuses any option, for routes that have none.
pub(crate) fn no_options(query: &[(String, String)]) -> Result<(), Refusal> {
    match query.first() {
        Some((name, _)) => Err(Refusal::unknown_option(name, &[])),
        None => Ok(()),
    }
}
