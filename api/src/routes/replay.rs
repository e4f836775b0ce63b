//! Answers a repeated `POST /uploads` as the first request was answered.

use axum::extract::Request;
use axum::http::{HeaderMap, header};
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
use crate::receive::{FileBody, content_length};
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

/// The largest body that need not be read. The layer `drain_body` reads even more after an early
/// answer.
const SMALL_BODY_BYTES: u64 = 1 << 20;

/// Refuses a request that differs from the first one. The file is not parsed. It is not even read
/// if the client has announced its digest and will receive an early answer.
async fn compare(
    state: &ApiState,
    caller: &Caller,
    query: &[(String, String)],
    first: &FirstUpload,
    request: Request,
) -> Result<(), Refusal> {
    let mut options = Options::unchecked(query)?;
    // The options of a raw body are known before it is read.
    if BodyFormat::of(request.headers(), &mut options)? == BodyFormat::Raw {
        caller.may_send_to(options.dataset.as_ref())?;
        compare_options(first, &options)?;
        if let Some(announced) = options.sha256 {
            compare_file(first, announced)?;
            if receives_early_answer(request.headers()) {
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

/// Whether the client receives an answer before it has sent its body: it waits for permission to
/// send the body, or the body is small. Other clients, such as a browser, may take the end of the
/// connection for an error, and would send an accepted file again.
fn receives_early_answer(headers: &HeaderMap) -> bool {
    let is_small = content_length(headers).is_some_and(|length| length <= SMALL_BODY_BYTES);
    headers.contains_key(header::EXPECT) || is_small
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

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_a_client_that_waits_or_sends_little_gets_an_early_answer() {
        let small = SMALL_BODY_BYTES.to_string();
        let large = (SMALL_BODY_BYTES + 1).to_string();
        let receives = |headers: &[(HeaderName, &str)]| {
            let headers = headers.iter();
            let headers =
                headers.map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
            receives_early_answer(&headers.collect())
        };
        let (length, expect) = (header::CONTENT_LENGTH, header::EXPECT);
        assert!(receives(&[(length.clone(), &small)]));
        assert!(!receives(&[(length.clone(), &large)]));
        assert!(receives(&[(length, &large), (expect, "100-continue")]));
        // A body of chunks declares no length.
        assert!(!receives(&[]));
    }
}
