//! Checks the codings of a body and of a form's parts. No coding is applied here: the intake
//! detects gzip and zstd by the content of a file.

use axum::http::{HeaderMap, HeaderName, header};
use carga_intake::refusal::{Refusal, RefusalKind};

/// Refuses a `Content-Encoding` that the intake does not decompress.
pub(crate) fn check_content_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let remedy = "send the file as it is, or compressed once with gzip or zstd";
    let known = ["identity", "gzip", "zstd"];
    check(headers, &header::CONTENT_ENCODING, &known, remedy)
}

/// Refuses every `Content-Encoding`, for a body that is read as it is sent.
pub(crate) fn check_not_encoded(headers: &HeaderMap) -> Result<(), Refusal> {
    let remedy = "send the body as it is";
    let checked = check(headers, &header::CONTENT_ENCODING, &["identity"], remedy);
    checked.map_err(|refusal| Refusal {
        // The answer to a refusal of another kind proposes gzip and zstd.
        kind: RefusalKind::Unsupported,
        ..refusal
    })
}

/// Refuses a part whose `Content-Transfer-Encoding` changes its bytes.
pub(crate) fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let name = HeaderName::from_static("content-transfer-encoding");
    let remedy = "send each part as 7bit, 8bit or binary";
    check(headers, &name, &["7bit", "8bit", "binary"], remedy)
}

fn check(
    headers: &HeaderMap,
    name: &HeaderName,
    known: &[&str],
    remedy: &str,
) -> Result<(), Refusal> {
    let values: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    let coding = values.join(", ");
    let is_known = known
        .iter()
        .any(|known| coding.trim().eq_ignore_ascii_case(known));
    if values.is_empty() || is_known {
        return Ok(());
    }
    let message = format!("{name} `{coding}` is not supported; {remedy}");
    let kind = RefusalKind::UnsupportedCoding;
    Err(Refusal::new(kind, "unsupported_encoding", message))
}
