//! `POST /keys`, `GET /keys` and `DELETE /keys/{id}`.

use std::str::FromStr;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use carga_common::access::{ApiKey, KeyFault, KeyId, KeyRecord, NewKey, NotAKeyId, Scope, Scopes};
use carga_common::idempotency::{IdempotentRequest, IdempotentRoute};
use carga_common::store::{KeyPosition, Store};
use carga_common::tenant::Tenant;
use carga_intake::refusal::{Refusal, RefusalKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::caller::Caller;
use crate::idempotency::{idempotency_key, repeated_answer};
use crate::json_body::{JsonBody, MAX_FIELDS_BYTES};
use crate::problem::ApiError;
use crate::query::{DEFAULT_LIMIT, cut_to_page, limit, no_options, tenant, unknown_cursor};
use crate::state::SharedState;

const FIELDS: JsonBody = JsonBody {
    content: "fields",
    max_bytes: MAX_FIELDS_BYTES,
    too_large: "key_request_too_large",
};

/// A new key. No other answer has its secret.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct Created<'a> {
    /// The whole key. No other answer has it. In the answer to a repeated request, it is `null`.
    key: Option<&'a str>,
    #[serde(flatten)]
    record: &'a KeyRecord,
}

/// Makes a key.
pub(crate) async fn post(
    State(state): State<SharedState>,
    caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, ApiError> {
    no_options(&query)?;
    if let Access::Open = &state.access {
        return Err(authentication_off().into());
    }
    caller.may_make_keys()?;
    let (parts, body) = request.into_parts();
    FIELDS.check_headers(&parts.headers)?;
    let once = idempotency_key(&parts.headers, &caller, IdempotentRoute::PostKeys)?;
    let body = FIELDS.read(body, state.settings().body_idle).await?;
    let new = parse(&body)?;
    let once = once.map(|key| IdempotentRequest {
        key,
        fingerprint: new.fingerprint(),
    });
    let store = state.backends().store.as_ref();
    // Before `expires_at` is compared with the time, because the first request may be hours old.
    if let Some(answer) = repeated_answer(store, once.as_ref()).await? {
        return Ok(answer);
    }
    let key = ApiKey::generate().map_err(|error| {
        tracing::error!(%error, "cannot make a key");
        Refusal::internal()
    })?;
    let record = new.record(&key, caller.key.clone(), Timestamp::now());
    let record = record.map_err(|fault| malformed(fault.to_string()))?;
    if !create(store, &key, &record, once.as_ref()).await? {
        // Another request with this `Idempotency-Key` has made its key meanwhile.
        let answer = repeated_answer(store, once.as_ref()).await?;
        return answer.ok_or_else(|| Refusal::idempotency_in_progress(None).into());
    }
    tracing::info!(
        key.id = %record.id,
        tenant = %record.tenant,
        scopes = %record.scopes,
        created_by = %caller,
        "made an API key"
    );
    let created = Created {
        key: Some(key.expose()),
        record: &record,
    };
    let head = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, head, Json(created)).into_response())
}

/// Stores a key. Returns false if an earlier request had the same `Idempotency-Key`.
async fn create(
    store: &dyn Store,
    key: &ApiKey,
    record: &KeyRecord,
    once: Option<&IdempotentRequest>,
) -> Result<bool, Refusal> {
    let Some(once) = once else {
        store.create_key(record, &key.digest()).await?;
        return Ok(true);
    };
    let answer = serde_json::to_string(&Created { key: None, record });
    let answer = answer.map_err(|error| {
        tracing::error!(%error, "cannot write the answer about a key");
        Refusal::internal()
    })?;
    let digest = key.digest();
    let created = store.create_key_once(record, &digest, once, &answer);
    Ok(created.await?)
}

/// Revokes a key.
pub(crate) async fn delete(
    State(state): State<SharedState>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<KeyRecord>, ApiError> {
    let id = key_id(id)?;
    no_options(&query)?;
    let store = state.backends().store.as_ref();
    let is_found = store.revoke_key(&id, None).await?;
    if let Access::WithKey(keys) = &state.access {
        keys.forget(&id);
    }
    let found = store.key(&id).await?.filter(|_| is_found);
    let (record, _) = found.ok_or_else(|| no_such_key(&id))?;
    tracing::info!(key.id = %id, revoked_by = %caller, "revoked an API key");
    Ok(Json(record))
}

/// A page of keys.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = KeyPage))]
pub(crate) struct Page {
    /// The keys, the oldest first.
    keys: Vec<KeyRecord>,
    /// The option `cursor` of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

pub(crate) async fn list(
    State(state): State<SharedState>,
    _caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Page>, ApiError> {
    let Listing {
        tenant,
        after,
        limit,
    } = listing(&query)?;
    let store = state.backends().store.as_ref();
    // One key more than requested shows whether there is a next page.
    let listed = store.keys(tenant.as_ref(), after.as_ref(), limit + 1);
    let mut keys = listed.await?;
    let has_next = cut_to_page(&mut keys, limit);
    let last = keys.last().filter(|_| has_next);
    let next_cursor = last.map(encode_cursor);
    Ok(Json(Page { keys, next_cursor }))
}

/// Which keys are listed.
#[derive(Debug)]
struct Listing {
    tenant: Option<Tenant>,
    after: Option<KeyPosition>,
    limit: u32,
}

/// The options of the list.
pub(crate) const LIST_OPTIONS: [&str; 3] = ["tenant", "limit", "cursor"];

fn listing(query: &[(String, String)]) -> Result<Listing, Refusal> {
    let (mut owner, mut after, mut most) = (None, None, None);
    for (name, value) in query {
        let is_repeated = match name.as_str() {
            "tenant" => owner.replace(tenant(value)?).is_some(),
            "limit" => most.replace(limit(value)?).is_some(),
            "cursor" => {
                let last = decode_cursor(value).ok_or_else(unknown_cursor)?;
                after.replace(last).is_some()
            }
            _ => return Err(Refusal::unknown_option(name, &LIST_OPTIONS)),
        };
        if is_repeated {
            return Err(Refusal::repeated_option(name));
        }
    }
    Ok(Listing {
        tenant: owner,
        after,
        limit: most.unwrap_or(DEFAULT_LIMIT),
    })
}

/// The end of a page, as a cursor. It is opaque to clients, so that its format may change.
fn encode_cursor(last: &KeyRecord) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{} {}", last.created_at.as_microsecond(), last.id))
}

fn decode_cursor(cursor: &str) -> Option<KeyPosition> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (time, id) = text.split_once(' ')?;
    Some(KeyPosition {
        created_at: Timestamp::from_microsecond(time.parse().ok()?).ok()?,
        id: id.parse().ok()?,
    })
}

/// A person may name a key by its id or by the whole key.
fn key_id(path: Result<Path<String>, PathRejection>) -> Result<KeyId, Refusal> {
    let refuse = |message: String| Refusal::malformed("malformed_id", message);
    let Path(text) = path.map_err(|_| refuse(NotAKeyId.to_string()))?;
    KeyId::named_by(&text).map_err(|fault| refuse(fault.to_string()))
}

/// Without authentication, a new key would not be checked, and its holder might rely on it.
fn authentication_off() -> Refusal {
    let message = "authentication is off, so requests need no key; set CARGA_AUTH=on and repeat the request, or make a key with `carga keys create`";
    Refusal::conflict("authentication_off", message)
}

fn no_such_key(id: &KeyId) -> Refusal {
    let message = format!("key {id} does not exist; `GET /keys` lists the keys");
    Refusal::new(RefusalKind::NotFound, "key_not_found", message)
}

/// The fields of a request for a key, as strings, so that a fault can name its field.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Fields {
    /// The tenant to which the holder belongs; `default` if the field is missing.
    tenant: Option<String>,
    /// What the holder may do.
    scopes: Vec<String>,
    /// The only dataset to which the holder may send files. With it, the scopes must contain
    /// `upload` and not `admin`.
    dataset: Option<String>,
    /// A name for people.
    name: Option<String>,
    /// When the key expires, as a time in the future.
    expires_at: Option<String>,
}

fn parse(body: &[u8]) -> Result<NewKey, Refusal> {
    let fields = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    new_key(fields).map_err(|fault| malformed(fault.to_string()))
}

fn new_key(fields: Fields) -> Result<NewKey, KeyFault> {
    let scopes: Result<Vec<Scope>, _> = fields.scopes.iter().map(|name| name.parse()).collect();
    let scopes = scopes.and_then(Scopes::new);
    Ok(NewKey {
        tenant: field("tenant", fields.tenant)?.unwrap_or_default(),
        scopes: scopes.map_err(|fault| KeyFault::new("scopes", fault.to_string()))?,
        dataset: field("dataset", fields.dataset)?,
        name: fields.name,
        expires_at: field("expires_at", fields.expires_at)?,
    })
}

pub(super) fn field<T: FromStr<Err: ToString>>(
    name: &'static str,
    text: Option<String>,
) -> Result<Option<T>, KeyFault> {
    let parsed = text.map(|text| text.parse()).transpose();
    parsed.map_err(|error: T::Err| KeyFault::new(name, error.to_string()))
}

fn malformed(message: String) -> Refusal {
    Refusal::unprocessable("malformed_key_request", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &str) -> String {
        let refusal = parse(body.as_bytes()).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Unprocessable, "{body}");
        assert_eq!(refusal.failure.code, "malformed_key_request", "{body}");
        refusal.failure.message
    }

    #[test]
    fn scopes_alone_make_a_key_of_the_default_tenant() {
        let new = parse(br#"{ "scopes": ["read", "upload"] }"#).unwrap();
        assert!(new.tenant.is_default());
        assert_eq!(new.scopes, "read upload".parse().unwrap());
        assert_eq!((new.dataset, new.name, new.expires_at), (None, None, None));
    }

    #[test]
    fn every_field_of_a_key_is_read() {
        let body = r#"{ "tenant": "acme", "scopes": ["upload"], "dataset": "Sales é",
            "name": "till 4", "expires_at": "2126-11-26T06:00:00+01:00" }"#;
        let new = parse(body.as_bytes()).unwrap();
        assert_eq!(new.tenant.as_str(), "acme");
        assert_eq!(new.dataset, "Sales é".parse().ok());
        assert_eq!(new.name.as_deref(), Some("till 4"));
        assert_eq!(new.expires_at.unwrap().to_string(), "2126-11-26T05:00:00Z");
    }

    #[test]
    fn a_faulty_field_is_named() {
        for (body, field) in [
            (r#"{ "scopes": ["read"], "tenant": "A" }"#, "tenant"),
            (r#"{ "scopes": [] }"#, "scopes"),
            (r#"{ "scopes": ["write"] }"#, "scopes"),
            (r#"{ "scopes": ["upload"], "dataset": "a/b" }"#, "dataset"),
            (
                r#"{ "scopes": ["read"], "expires_at": "soon" }"#,
                "expires_at",
            ),
            (r#"{ "scopes": ["read"], "scope": "read" }"#, "scope"),
            ("{}", "scopes"),
        ] {
            let fault = fault(body);
            assert!(fault.contains(&format!("`{field}`")), "{fault}");
        }
        fault("");
        fault("[]");
        fault(r#"{ "scopes": "read" }"#);
    }

    #[test]
    fn a_cursor_is_read_back_and_other_texts_are_no_cursors() {
        let new = parse(br#"{ "scopes": ["read"] }"#).unwrap();
        let key = ApiKey::generate().unwrap();
        let record = new.record(&key, None, Timestamp::now()).unwrap();
        let cursor = encode_cursor(&record);
        assert_eq!(decode_cursor(&cursor), Some(KeyPosition::from(&record)));
        for text in ["", "x", "NDU2", &cursor[1..]] {
            assert_eq!(decode_cursor(text), None, "{text}");
        }
    }
}
