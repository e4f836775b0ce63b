//! The content type of a body or a part, and what it says about the file (RFC 4180, 3).

use axum::http::{HeaderMap, header};
use carga_intake::csv::Charset;
use carga_intake::options::Options;
use carga_intake::refusal::{Refusal, RefusalKind};

use crate::header_parameters::HeaderParameters;

/// The media type in lower case, and its parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> (String, HeaderParameters) {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    let media_type = value.split(';').next().unwrap_or_default();
    (
        media_type.trim().to_ascii_lowercase(),
        HeaderParameters::of(value.as_bytes()),
    )
}

/// Uses the parameters of the content type where no option is given.
pub(crate) fn set_defaults(
    options: &mut Options,
    parameters: &HeaderParameters,
) -> Result<(), Refusal> {
    options.default_encoding(charset(parameters)?);
    options.default_header(has_header(parameters)?);
    Ok(())
}

/// The same for the content type of a part. Only that of a text has these parameters: some clients
/// label binary files `charset=binary`.
pub(crate) fn set_part_defaults(options: &mut Options, headers: &HeaderMap) -> Result<(), Refusal> {
    let (media_type, parameters) = content_type(headers);
    match media_type.starts_with("text/") {
        true => set_defaults(options, &parameters),
        false => Ok(()),
    }
}

/// The encoding that the parameter `charset` names.
fn charset(parameters: &HeaderParameters) -> Result<Option<Charset>, Refusal> {
    let Some(label) = parameters.text("charset") else {
        return Ok(None);
    };
    let encoding = Charset::for_label(&label).ok_or_else(|| {
        let message =
            format!("unknown charset `{label}`; use a WHATWG label such as utf-8 or windows-1252");
        Refusal::new(RefusalKind::Unsupported, "unsupported_charset", message)
    })?;
    Ok(Some(encoding))
}

/// Whether the file has a header, if the parameter `header` says so.
fn has_header(parameters: &HeaderParameters) -> Result<Option<bool>, Refusal> {
    let Some(value) = parameters.text("header") else {
        return Ok(None);
    };
    match value.to_ascii_lowercase().as_str() {
        "present" => Ok(Some(true)),
        "absent" => Ok(Some(false)),
        _ => {
            let message = format!("header={value} in the content type: use `present` or `absent`");
            Err(Refusal::malformed("malformed_option", message))
        }
    }
}

pub(crate) fn unsupported_media_type(media_type: &str) -> Refusal {
    let compressed = match media_type {
        "application/octet-stream"
        | "application/gzip"
        | "application/x-gzip"
        | "application/zstd" => {
            "; CSV compressed with gzip or zstd may be sent as text/csv or as a form"
        }
        _ => "",
    };
    let message = format!(
        "content type `{media_type}` is not supported; send text/csv, or multipart/form-data with a part named `file`{compressed}"
    );
    Refusal::new(RefusalKind::Unsupported, "unsupported_media_type", message)
}
