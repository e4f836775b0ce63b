//! Answers a repeated `POST /uploads` as the first request was answered.

use axum::extract::Request;
use axum::http::header;
use axum::response::Response;
use carga_common::sha256::Sha256;
use carga_common::store::FirstUpload;
use carga_intake::options::Options;
use carga_intake::refusal::Refusal;

use super::accepted::accepted;
use crate::caller::Caller;
use crate::form::BodyFormat;
use crate::idempotency::replayed;
use crate::problem::ApiError;
use crate::receive::FileBody;
use crate::state::ApiState;

/// Answers with the upload of the first request, as it is now, if the file and its options are the
/// same. Refuses the request while the first one is running.
pub(crate) async fn replay(
    state: &ApiState,
    caller: &Caller,
    query: &[(String, String)],
    first: FirstUpload,
    request: Request,
) -> Result<Response, ApiError> {
    if first.is_being_received() {
        return Err(Refusal::idempotency_in_progress(Some(&first.upload)).into());
    }
    compare(state, caller, query, &first, request).await?;
    Ok(replayed(accepted(first.upload, state.backends()).await))
}

/// Refuses a request that differs from the first one. The file is not parsed. It is not even read
/// if the client has announced its digest and waits for permission to send the file. Other clients
/// get their answer at the end of the file. They may take an earlier end of the connection for an
/// error, and would send an accepted file again.
async fn compare(
    state: &ApiState,
    caller: &Caller,
    query: &[(String, String)],
    first: &FirstUpload,
    request: Request,
) -> Result<(), Refusal> {
    let mut options = Options::unchecked(query)?;
    let is_waiting = request.headers().contains_key(header::EXPECT);
    // The options of a raw body are known before it is read.
    if BodyFormat::of(request.headers(), &mut options)? == BodyFormat::Raw {
        caller.may_send_to(options.dataset.as_ref())?;
        compare_options(first, &options)?;
        if let Some(announced) = options.sha256 {
            compare_file(first, announced)?;
            if is_waiting {
                return Ok(());
            }
        }
    }
    let mut file = FileBody::open(state, caller, query, request).await?;
    compare_options(first, &file.options)?;
    if let Some(announced) = file.options.sha256 {
        compare_file(first, announced)?;
    }
    let limit = caller.size_limit(state.settings());
    let digest = state.intake.digest(&mut file.pieces, limit).await?;
    file.end().await?;
    compare_file(first, digest)
}

fn compare_options(first: &FirstUpload, options: &Options) -> Result<(), Refusal> {
    match options.fingerprint() == first.fingerprint {
        true => Ok(()),
        false => Err(reused(first, "options")),
    }
}

fn compare_file(first: &FirstUpload, digest: Sha256) -> Result<(), Refusal> {
    match first.upload.sha256 == Some(digest) {
        true => Ok(()),
        false => Err(reused(first, "contents of the files")),
    }
}

fn reused(first: &FirstUpload, differs: &str) -> Refusal {
    Refusal::idempotency_key_reused(differs, Some(first.upload.public_id))
}
