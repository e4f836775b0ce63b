//! The names in the head of a form's part (RFC 7578, 4.2). The form's parser also finds a name
//! inside a file name, and finds no file name if `filename*` is there.

use axum::http::{HeaderMap, header};

use crate::header_parameters::{HeaderParameters, latin1};

/// What `Content-Disposition` says about a part.
#[derive(Debug, Default)]
pub(crate) struct Disposition {
    pub(crate) name: Option<String>,
    pub(crate) filename: Option<String>,
}

impl Disposition {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(header::CONTENT_DISPOSITION) else {
            return Self::default();
        };
        let parameters = HeaderParameters::of(value.as_bytes());
        // Browsers never send `filename*`, but other clients do.
        let encoded = parameters.bytes("filename*").and_then(decoded);
        Self {
            name: parameters.text("name"),
            filename: encoded.or_else(|| parameters.text("filename")),
        }
    }
}

/// Decodes `utf-8'en'%e2%82%ac%20rates.csv` (RFC 8187). `None` if it is malformed or in another
/// encoding.
fn decoded(value: &[u8]) -> Option<String> {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = percent_decoded(encoded)?;
    match charset.to_ascii_lowercase().as_slice() {
        b"utf-8" => String::from_utf8(bytes).ok(),
        b"iso-8859-1" => Some(latin1(&bytes)),
        _ => None,
    }
}

fn percent_decoded(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    while let [byte, rest @ ..] = text {
        text = rest;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, rest) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        text = rest;
    }
    Some(bytes)
}
