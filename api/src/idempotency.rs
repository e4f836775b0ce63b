//! The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), and the mark of a
//! repeated answer.
//!
//! A handler whose route takes the header does four things. It reads the key with
//! [`idempotency_key`], looks in the store for the first request with this key, stores the key
//! together with the new upload or API key, and marks a repeated answer with [`replayed`]. All
//! other routes ignore the header. The layer of [`limits`](crate::limits) looks for the first
//! request, too.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use carga_common::error::PortResult;
use carga_common::idempotency::{
    IdempotencyKey, IdempotentRequest, IdempotentRoute, MAX_REQUEST_KEY_BYTES, RequestKey,
};
use carga_common::store::{IdempotencyStore, Store};
use carga_intake::refusal::Refusal;

use crate::caller::{Caller, Credential};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key of a request, if it has one. It belongs to the tenant and to the sender: the API key,
/// the token or the subject of the JWT. Senders of JWTs without a subject cannot be told apart, and
/// one could find the upload of another, so their keys are refused.
pub(crate) fn idempotency_key(
    headers: &HeaderMap,
    caller: &Caller,
    route: IdempotentRoute,
) -> Result<Option<IdempotencyKey>, Refusal> {
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(malformed(
            "is there more than once; send it once".to_owned(),
        ));
    }
    if let Credential::Jwt { sender: None } = &caller.credential {
        return Err(malformed(
            "belongs to one sender, and the JWT of the request has no `sub`; leave the header out, or use a JWT with `sub`"
                .to_owned(),
        ));
    }
    let text = request_key(value.as_bytes().trim_ascii()).ok_or_else(|| {
        malformed(format!(
            "takes 1 to {MAX_REQUEST_KEY_BYTES} visible ASCII characters, in double quotes or without"
        ))
    })?;
    Ok(Some(IdempotencyKey {
        tenant: caller.tenant.clone(),
        sender: caller.key_id().map(str::to_owned),
        route,
        text,
    }))
}

/// The key of a request whose route takes one. `None` without a key, and for a key that its handler
/// will refuse.
pub(crate) fn key_of_request(request: &Request, caller: &Caller) -> Option<IdempotencyKey> {
    let headers = request.headers();
    if !headers.contains_key(KEY) {
        return None;
    }
    let path = request.extensions().get::<MatchedPath>()?;
    let name = format!("{} {}", request.method(), path.as_str());
    let mut routes = [IdempotentRoute::PostUploads, IdempotentRoute::PostKeys].into_iter();
    let route = routes.find(|route| route.name() == name)?;
    idempotency_key(headers, caller, route).ok().flatten()
}

/// Whether an earlier request has this key.
pub(crate) async fn is_held(
    store: &dyn IdempotencyStore,
    key: &IdempotencyKey,
) -> PortResult<bool> {
    Ok(match key.route {
        IdempotentRoute::PostUploads => store.first_upload(key).await?.is_some(),
        IdempotentRoute::PostKeys => store.first_answer(key).await?.is_some(),
    })
}

/// A string of RFC 9651 in double quotes, as the draft has it, or the bare text, as most clients
/// send it.
fn request_key(value: &[u8]) -> Option<RequestKey> {
    let text = match value {
        [b'"', quoted @ ..] => unquoted(quoted)?,
        bare => bare.to_vec(),
    };
    String::from_utf8(text).ok()?.parse().ok()
}

/// The text of a string whose first quote is read. Its last quote must end the value.
fn unquoted(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut bytes = quoted.iter().copied();
    loop {
        match bytes.next()? {
            b'"' => return bytes.next().is_none().then_some(text),
            b'\\' => text.push(bytes.next().filter(|byte| matches!(byte, b'"' | b'\\'))?),
            byte => text.push(byte),
        }
    }
}

fn malformed(fault: String) -> Refusal {
    let message = format!("the header `Idempotency-Key` {fault}");
    Refusal::malformed("malformed_idempotency_key", message)
}

/// The answer to the first request with the same key, for a route whose answer is a short JSON
/// document with 201. `None` if this is the first request, or if it has no key. A request that
/// differs from the first one is refused.
pub(crate) async fn repeated_answer(
    store: &dyn Store,
    request: Option<&IdempotentRequest>,
) -> Result<Option<Response>, Refusal> {
    let Some(request) = request else {
        return Ok(None);
    };
    let Some(first) = store.first_answer(&request.key).await? else {
        return Ok(None);
    };
    if first.fingerprint != request.fingerprint {
        return Err(Refusal::idempotency_key_reused("fields", None));
    }
    let head = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_TYPE, "application/json"),
    ];
    let answer = (StatusCode::CREATED, head, first.body).into_response();
    Ok(Some(replayed(answer)))
}

/// Marks an answer as that of an earlier request.
pub(crate) fn replayed(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of a request with these headers, or the code of the refusal.
    fn key(values: &[&'static [u8]]) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(KEY, HeaderValue::from_bytes(value).unwrap());
        }
        let caller = Caller::unlimited();
        let key = idempotency_key(&headers, &caller, IdempotentRoute::PostKeys);
        let key = key.map_err(|refusal| refusal.failure.code)?;
        Ok(key.map(|key| key.text.as_str().to_owned()))
    }

    #[test]
    fn a_quoted_key_is_the_same_as_a_bare_one() {
        for (value, expected) in [
            (&b"a-1"[..], "a-1"),
            (b"\"a-1\"", "a-1"),
            (b" \"a-1\" ", "a-1"),
            (b"\"a\\\"b\\\\c\"", "a\"b\\c"),
            (b"a\"b", "a\"b"),
        ] {
            assert_eq!(key(&[value]), Ok(Some(expected.to_owned())), "{value:?}");
        }
        assert_eq!(key(&[]), Ok(None));
    }

    #[test]
    fn a_malformed_or_repeated_key_is_refused() {
        let faulty: [&[&[u8]]; 10] = [
            &[b""],
            &[b"\"\""],
            &[b"\"a"],
            &[b"\"a\"b"],
            &[b"\"a\", \"b\""],
            &[b"\"a\\b\""],
            &[b"a b"],
            &[b"\"a b\""],
            &[b"\xe9"],
            &[b"a", b"a"],
        ];
        for values in faulty {
            let refused = Err("malformed_idempotency_key".to_owned());
            assert_eq!(key(values), refused, "{values:?}");
        }
    }

    #[test]
    fn a_key_belongs_to_the_tenant_and_to_its_sender() {
        let mut headers = HeaderMap::new();
        headers.append(KEY, HeaderValue::from_static("a"));
        let of = |caller: &Caller| {
            let key = idempotency_key(&headers, caller, IdempotentRoute::PostUploads);
            key.unwrap().unwrap()
        };
        let mut caller = Caller::unlimited();
        let anonymous = of(&caller);
        assert_eq!(anonymous.sender(), "-");
        caller.key = Some("0123456789ab".parse().unwrap());
        caller.tenant = "acme".parse().unwrap();
        let own = of(&caller);
        assert_eq!(
            (own.sender(), own.tenant.as_str()),
            ("0123456789ab", "acme")
        );
        // Uploads record the same senders.
        caller.credential = Credential::Jwt {
            sender: Some("jwt:alice".to_owned()),
        };
        assert_eq!(of(&caller).sender(), "jwt:alice");
    }

    #[test]
    fn an_idempotency_key_with_a_jwt_without_a_subject_is_refused() {
        let caller = Caller {
            credential: Credential::Jwt { sender: None },
            ..Caller::unlimited()
        };
        let key = |headers: &HeaderMap| {
            let key = idempotency_key(headers, &caller, IdempotentRoute::PostUploads);
            key.map(|key| key.is_some())
        };
        let mut headers = HeaderMap::new();
        assert!(!key(&headers).unwrap());
        headers.append(KEY, HeaderValue::from_static("a"));
        let refusal = key(&headers).unwrap_err();
        assert_eq!(refusal.failure.code, "malformed_idempotency_key");
        let message = refusal.failure.message;
        assert!(message.contains("`sub`"), "{message}");
    }
}
