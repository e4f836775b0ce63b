//! Hides keys, tokens and JWTs in paths for the log.

use std::borrow::Cow;

use super::key::{ID_CHARS, PREFIX, is_base62};

/// The first characters of every JWT, and so of every token: `{"` in base64url.
pub const JWT_START: &str = "eyJ";

/// A segment of a path that begins like a key and has this many bytes may be a part of a key, or
/// `CARGA_ADMIN_KEY`.
const SUSPECT_BYTES: usize = 20;

/// The path of a request for the log. In each segment, `***` stands for everything after
/// `carga_<id>_`, and after `eyJ` if a dot follows. It also stands for everything after `carga_` at
/// the beginning of a segment of 20 or more bytes. All of this also holds for percent-encoded
/// characters. Somebody may have put a key or a token into a path, and the log must not show it.
pub fn without_secrets(path: &str) -> Cow<'_, str> {
    // Most paths have nothing that could be a part of a key, a token or a JWT.
    if !["%", PREFIX, JWT_START]
        .iter()
        .any(|part| path.contains(part))
    {
        return Cow::Borrowed(path);
    }
    if !path.split('/').any(|segment| secret_in(segment).is_some()) {
        return Cow::Borrowed(path);
    }
    let segments: Vec<Cow<'_, str>> = path.split('/').map(masked).collect();
    Cow::Owned(segments.join("/"))
}

fn masked(segment: &str) -> Cow<'_, str> {
    match secret_in(segment) {
        // If the position is inside of a character, nothing of the segment is shown.
        Some(secret) => format!("{}***", segment.get(..secret).unwrap_or_default()).into(),
        None => segment.into(),
    }
}

/// The position at which the secret in a segment begins.
fn secret_in(segment: &str) -> Option<usize> {
    let decoded = decoded(segment);
    let bytes: Vec<u8> = decoded.iter().map(|(byte, _)| *byte).collect();
    let key = (0..bytes.len()).find_map(|start| Some(start + end_of_id(&bytes[start..])?));
    let is_suspect = bytes.len() >= SUSPECT_BYTES && bytes.starts_with(PREFIX.as_bytes());
    let key = key.or_else(|| is_suspect.then_some(PREFIX.len()));
    let jwt = position(&bytes, JWT_START.as_bytes());
    let jwt = jwt.filter(|start| bytes[*start..].contains(&b'.'));
    let jwt = jwt.map(|start| start + JWT_START.len());
    let first = key.into_iter().chain(jwt).min()?;
    decoded.get(first.checked_sub(1)?).map(|(_, end)| *end)
}

fn position(bytes: &[u8], searched: &[u8]) -> Option<usize> {
    let mut windows = bytes.windows(searched.len());
    windows.position(|window| window == searched)
}

/// The length of `carga_<id>_`, if the bytes begin with it.
fn end_of_id(bytes: &[u8]) -> Option<usize> {
    let (id, rest) = bytes
        .strip_prefix(PREFIX.as_bytes())?
        .split_at_checked(ID_CHARS)?;
    let is_id = str::from_utf8(id).is_ok_and(is_base62);
    (is_id && rest.starts_with(b"_")).then_some(PREFIX.len() + ID_CHARS + 1)
}

/// The bytes of a percent-encoded segment, each with the position of its end in the segment.
fn decoded(segment: &str) -> Vec<(u8, usize)> {
    let mut rest = segment.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((first, behind)) = rest.split_first() {
        let byte;
        (byte, rest) = match escaped(rest) {
            Some(byte) => (byte, &rest[3..]),
            None => (*first, behind),
        };
        decoded.push((byte, segment.len() - rest.len()));
    }
    decoded
}

/// The byte that `%XX` at the beginning stands for.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::ApiKey;

    /// A token: its header, its claims and its signature.
    const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";

    #[test]
    fn the_secret_of_a_key_in_a_path_is_masked() {
        let key = ApiKey::generate().unwrap();
        let (key, id) = (key.expose(), key.id());
        for (path, expected) in [
            (format!("/keys/{key}"), format!("/keys/carga_{id}_***")),
            (format!("/keys/{key}x%20"), format!("/keys/carga_{id}_***")),
            (format!("/{key}/a"), format!("/carga_{id}_***/a")),
            (format!("/a={key}"), format!("/a=carga_{id}_***")),
            (format!("/carga_{key}"), format!("/carga_carga_{id}_***")),
            (key[..30].to_owned(), format!("carga_{id}_***")),
            // A part of a key, a mistyped one, and `CARGA_ADMIN_KEY`.
            (key.replacen('_', "_x", 1), "carga_***".to_owned()),
            (
                format!("/{}", key.replacen('_', "_-", 1)),
                "/carga_***".to_owned(),
            ),
            ("/carga_01234567890123".to_owned(), "/carga_***".to_owned()),
            (
                "/keys/carga_admin_key_of_2026/x".to_owned(),
                "/keys/carga_***/x".to_owned(),
            ),
            (
                "/carga%5F01234567890123".to_owned(),
                "/carga%5F***".to_owned(),
            ),
        ] {
            assert_eq!(without_secrets(&path), expected);
        }
    }

    #[test]
    fn a_token_in_a_path_is_masked() {
        for (path, expected) in [
            (format!("/uploads/{TOKEN}"), "/uploads/eyJ***"),
            (format!("/keys/{TOKEN}/a"), "/keys/eyJ***/a"),
            (format!("/a%20={TOKEN}"), "/a%20=eyJ***"),
            (format!("/é{TOKEN}"), "/éeyJ***"),
            // Without its signature, and without its claims.
            (TOKEN[..30].to_owned(), "eyJ***"),
            (TOKEN[..21].to_owned(), "eyJ***"),
        ] {
            assert_eq!(without_secrets(&path), expected);
        }
    }

    #[test]
    fn a_percent_encoded_secret_in_a_path_is_masked() {
        let key = ApiKey::generate().unwrap();
        let encoded = key.expose().replace('_', "%5F");
        let expected = format!("/keys/carga%5F{}%5F***", key.id());
        assert_eq!(without_secrets(&format!("/keys/{encoded}")), expected);
        let lower = key.expose().replacen('c', "%63", 1).replace('_', "%5f");
        let expected = format!("/%63arga%5f{}%5f***", key.id());
        assert_eq!(without_secrets(&format!("/{lower}")), expected);
        for (from, to, expected) in [
            (".", "%2E", "/eyJ***"),
            ("eyJ", "%65y%4A", "/%65y%4A***"),
            ("eyJ", "e%79J", "/e%79J***"),
        ] {
            let path = format!("/{}", TOKEN.replace(from, to));
            assert_eq!(without_secrets(&path), expected);
        }
    }

    #[test]
    fn other_paths_stay_as_they_are() {
        for path in [
            "/uploads",
            "/keys/0123456789ab",
            "/datasets/carga_sales_2026",
            "/datasets/carga_éééé_x",
            "/carga_0123456789abc",
            "/datasets/of_carga_0123456789abcdef",
            "/datasets/eyJ",
            "/datasets/a.eyJobs",
            "/datasets/a.b/eyJobs",
            "/%",
            "/%4",
            "/%zz%C3%A9%FF",
        ] {
            assert_eq!(without_secrets(path), path);
        }
    }
}
