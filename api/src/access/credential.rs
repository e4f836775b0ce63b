//! The key that a request carries.

use axum::http::{HeaderMap, HeaderName, header};
use carga_intake::refusal::Refusal;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

const SCHEME: &[u8] = b"bearer";

/// Takes the key out of the headers, so that nothing can show it later.
pub(super) fn take_credential(headers: &mut HeaderMap) -> Result<Option<Vec<u8>>, Refusal> {
    let key = credential(headers).map(|key| key.map(<[u8]>::to_vec));
    headers.remove(API_KEY);
    headers.remove(header::AUTHORIZATION);
    key
}

/// The key of a request: the value of `X-API-Key`, or of `Authorization` with the scheme `Bearer`.
/// Other schemes of `Authorization` are not for Carga. A proxy may use them.
fn credential(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let api_keys = headers.get_all(API_KEY).iter();
    let api_keys = api_keys.map(|value| value.as_bytes().trim_ascii());
    let authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let bearers = authorizations.filter_map(|value| bearer(value.as_bytes()));
    let mut keys = api_keys.chain(bearers);
    let first = keys.next();
    match keys.all(|key| Some(key) == first) {
        true => Ok(first),
        false => Err(Refusal::malformed(
            "malformed_credentials",
            "the request has different keys; send one key, as `X-API-Key` or as `Authorization: Bearer`",
        )),
    }
}

/// The rest of a value after the scheme `Bearer`, whose case is ignored (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let begins_well = scheme.eq_ignore_ascii_case(SCHEME);
    let has_ended = rest.first().is_none_or(u8::is_ascii_whitespace);
    (begins_well && has_ended).then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of a request with these headers, or the code of the refusal.
    fn key(headers: &[(&'static str, &'static str)]) -> Result<Option<String>, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let found = credential(&map).map_err(|refusal| refusal.failure.code)?;
        Ok(found.map(|key| String::from_utf8(key.to_vec()).unwrap()))
    }

    fn expect(headers: &[(&'static str, &'static str)], expected: Option<&str>) {
        assert_eq!(key(headers), Ok(expected.map(str::to_owned)), "{headers:?}");
    }

    #[test]
    fn a_key_is_in_either_header() {
        expect(&[("x-api-key", "k")], Some("k"));
        for value in ["Bearer k", "bearer k", "BEARER  k "] {
            expect(&[("authorization", value)], Some("k"));
        }
        for value in ["Bearer", "Bearer "] {
            expect(&[("authorization", value)], Some(""));
        }
        expect(&[("x-api-key", "")], Some(""));
    }

    #[test]
    fn a_key_is_taken_out_of_the_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-api-key", "k"), ("authorization", "Bearer k")] {
            headers.append(name, value.parse().unwrap());
        }
        headers.append("accept", "*/*".parse().unwrap());
        let key = take_credential(&mut headers).unwrap();
        assert_eq!(key.as_deref(), Some(&b"k"[..]));
        assert_eq!(headers.len(), 1, "{headers:?}");
        headers.append("x-api-key", "k".parse().unwrap());
        headers.append("x-api-key", "l".parse().unwrap());
        assert!(take_credential(&mut headers).is_err());
        assert_eq!(headers.len(), 1, "{headers:?}");
    }

    #[test]
    fn other_schemes_are_no_keys() {
        expect(&[], None);
        for value in ["Basic YTpi", "Bearerk", "Bear", "", "Digest x"] {
            expect(&[("authorization", value)], None);
            expect(&[("authorization", value), ("x-api-key", "k")], Some("k"));
        }
    }

    #[test]
    fn one_key_in_both_headers_is_accepted_and_two_keys_are_refused() {
        let (api_key, other) = (("x-api-key", "k"), ("x-api-key", "l"));
        let bearer = ("authorization", "Bearer k");
        expect(&[api_key, bearer], Some("k"));
        expect(&[api_key, api_key], Some("k"));
        let other_bearer = ("authorization", "Bearer l");
        for headers in [[other, bearer], [api_key, other], [bearer, other_bearer]] {
            assert_eq!(key(&headers), Err("malformed_credentials".to_owned()));
        }
    }
}
