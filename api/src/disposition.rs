//! The names in the head of a form's part (RFC 7578, 4.2). The form's parser also finds a name
//! inside a file name, and finds no file name if `filename*` is there.

use axum::http::{HeaderMap, header};

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
        let parameters = parameters(value.as_bytes());
        let plain = |wanted: &str| {
            let found = parameters.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.as_slice())
        };
        // Browsers never send `filename*`, but other clients do.
        let encoded = plain("filename*").and_then(decoded);
        Self {
            name: plain("name").map(text),
            filename: encoded.or_else(|| plain("filename").map(text)),
        }
    }
}

/// The parameters of a header, with their names in lower case and without quotes.
fn parameters(header: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut parameters = Vec::new();
    let (_, mut rest) = split_before(header, b";");
    while let [b';', parameter @ ..] = rest {
        let (name, after_name) = split_before(parameter, b"=;");
        let (value, after_value) = match after_name {
            [b'=', value @ ..] => unquoted(value.trim_ascii_start()),
            _ => (Vec::new(), after_name),
        };
        let name = text(name.trim_ascii()).to_ascii_lowercase();
        parameters.push((name, value));
        (_, rest) = split_before(after_value, b";");
    }
    parameters
}

/// The value at the beginning of the text, and what follows it.
fn unquoted(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let [b'"', quoted @ ..] = text else {
        let (value, rest) = split_before(text, b";");
        return (value.trim_ascii_end().to_vec(), rest);
    };
    let mut value = Vec::new();
    let mut rest = quoted;
    loop {
        let (byte, after) = match rest {
            // A backslash hides only these two: some clients send the path of a file on Windows.
            [b'\\', byte @ (b'"' | b'\\'), after @ ..] => (*byte, after),
            [b'"', after @ ..] => return (value, after),
            [byte, after @ ..] => (*byte, after),
            [] => return (value, rest),
        };
        value.push(byte);
        rest = after;
    }
}

/// Splits the bytes before the first of `ends`, or at their end.
fn split_before<'a>(bytes: &'a [u8], ends: &[u8]) -> (&'a [u8], &'a [u8]) {
    let end = bytes.iter().position(|byte| ends.contains(byte));
    bytes.split_at(end.unwrap_or(bytes.len()))
}

/// UTF-8, or else Latin-1, which old clients send.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => latin1(bytes),
    }
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
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
