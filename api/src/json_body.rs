//! Reads a small JSON document from the body of a request.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use carga_intake::refusal::{Refusal, RefusalKind};
use futures::StreamExt;
use tokio::time::timeout;

use crate::coding::check_not_encoded;
use crate::content_type::content_type;
use crate::receive::content_length;

/// The largest document. The fields of a key or a token need far less.
const MAX_BYTES: u64 = 16 << 10;

/// Checks everything that needs no body, so that a refusal is sent at once. `too_large` is the code
/// of the refusal of a document that is too large.
pub(crate) fn check_headers(headers: &HeaderMap, too_large: &str) -> Result<(), Refusal> {
    check_not_encoded(headers)?;
    let (media_type, _) = content_type(headers);
    if media_type != "application/json" {
        let message = format!(
            "content type `{media_type}` is not supported; send the fields as application/json"
        );
        let kind = RefusalKind::Unsupported;
        return Err(Refusal::new(kind, "unsupported_media_type", message));
    }
    match content_length(headers) {
        Some(length) if length > MAX_BYTES => Err(refuse(too_large, length)),
        _ => Ok(()),
    }
}

/// Reads the whole body. `longest` is `CARGA_BODY_IDLE_SECS`.
pub(crate) async fn read(
    body: Body,
    longest: Duration,
    too_large: &str,
) -> Result<Vec<u8>, Refusal> {
    let reading = timeout(longest, read_bounded(body, too_large)).await;
    reading.unwrap_or_else(|_| {
        let message = format!(
            "the fields did not arrive within {} s (CARGA_BODY_IDLE_SECS)",
            longest.as_secs()
        );
        Err(Refusal::unprocessable("body_timeout", message))
    })
}

async fn read_bounded(body: Body, too_large: &str) -> Result<Vec<u8>, Refusal> {
    let mut pieces = body.into_data_stream();
    let mut fields = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            let message = format!("the body ended before the fields were complete ({error})");
            Refusal::unprocessable("incomplete_body", message)
        })?;
        fields.extend_from_slice(&piece);
        if fields.len() as u64 > MAX_BYTES {
            return Err(refuse(too_large, fields.len() as u64));
        }
    }
    Ok(fields)
}

fn refuse(code: &str, actual: u64) -> Refusal {
    let message = format!("the body has at least {actual} bytes; the limit is {MAX_BYTES}");
    Refusal::new(RefusalKind::TooLarge, code, message).exceeding(MAX_BYTES, actual)
}
