//! `POST /tokens`.

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use carga_common::access::{KeyFault, Scope, Scopes, TokenId, check_dataset_limit};
use carga_common::audit::Action;
use carga_common::dataset::DatasetName;
use carga_common::tenant::Tenant;
use carga_intake::refusal::{Refusal, RefusalKind};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::keys::field;
use crate::access::{Access, TokenRequest};
use crate::caller::Caller;
use crate::json_body::{JsonBody, MAX_FIELDS_BYTES};
use crate::problem::ApiError;
use crate::query::no_options;
use crate::state::SharedState;

const FIELDS: JsonBody = JsonBody {
    content: "fields",
    max_bytes: MAX_FIELDS_BYTES,
    too_large: "token_request_too_large",
};

/// The lifetime in seconds without the field `expires_in`, and the longest one.
const DEFAULT_LIFETIME: u32 = 15 * 60;
pub(crate) const MAX_LIFETIME: u32 = 24 * 60 * 60;

/// The largest values of the fields `max_uploads` and `max_bytes`. That of `max_bytes` is also the
/// largest value of `CARGA_MAX_UPLOAD_BYTES`.
pub(crate) const MAX_UPLOADS: u64 = 1 << 40;
pub(crate) const MAX_BYTES: u64 = 1 << 50;

/// A new token. No other answer has it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = CreatedToken))]
pub(crate) struct Created<'a> {
    /// The whole token, as requests send it. No other answer has it.
    token: &'a str,
    /// The id of the token in the log.
    id: &'a TokenId,
    /// When the token ends.
    expires_at: Timestamp,
    /// The tenant to which the holder belongs.
    tenant: &'a Tenant,
    /// What the holder may do.
    scopes: Scopes,
    /// The only dataset to which the holder may send files; `None` for no such limit.
    dataset: Option<&'a DatasetName>,
    /// How many uploads may be sent with the token; `None` for no such limit.
    max_uploads: Option<u64>,
    /// The size of the largest file in bytes; `None` for no such limit.
    max_bytes: Option<u64>,
}

/// Makes a token with at most the rights of the caller.
pub(crate) async fn post(
    State(state): State<SharedState>,
    caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, ApiError> {
    no_options(&query)?;
    let Access::WithKey(keys) = &state.access else {
        let message = "the server requires no key (CARGA_AUTH), so a token would restrict nothing; send requests without one";
        return Err(Refusal::conflict("authentication_off", message).into());
    };
    caller.may_make_tokens()?;
    let (parts, body) = request.into_parts();
    FIELDS.check_headers(&parts.headers)?;
    let body = FIELDS.read(body, state.settings().body_idle).await?;
    let granted = grant(&body, &caller, Timestamp::now())?;
    let (token, text) = keys.make_token(granted, &caller).await?;
    let limits = &token.limits;
    // No table has the token, so only the audit log records it. Without the entry, the caller gets
    // no token.
    let store = state.backends().store.as_ref();
    let recorded = store.record_audit(&token.tenant, Action::CreateToken, limits.id.as_str());
    recorded.await?;
    tracing::info!(
        token.id = %limits.id,
        tenant = %token.tenant,
        scopes = %token.scopes,
        expires_at = %limits.expires_at,
        created_by = %caller,
        "made a token"
    );
    let created = Created {
        token: text.expose(),
        id: &limits.id,
        expires_at: limits.expires_at,
        tenant: &token.tenant,
        scopes: token.scopes,
        dataset: token.dataset.as_ref(),
        max_uploads: limits.max_uploads,
        max_bytes: limits.max_bytes,
    };
    let head = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, head, Json(created)).into_response())
}

/// The fields of a request for a token. Names are strings, so that a fault can name its field.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = TokenRequest))]
#[serde(deny_unknown_fields)]
pub(crate) struct Fields {
    /// What the holder may do: scopes of the key; all of them if the field is missing.
    scopes: Option<Vec<String>>,
    /// The only dataset to which the holder may send files. With it, the scopes must contain
    /// `upload` and not `admin`.
    dataset: Option<String>,
    /// After how many seconds the token expires; 900 if the field is missing. A token never
    /// outlives its key.
    expires_in: Option<u64>,
    /// How many uploads may be sent with the token. It needs the scope `upload`.
    max_uploads: Option<u64>,
    /// The size of the largest file in bytes. It needs the scope `upload`.
    max_bytes: Option<u64>,
}

/// What the token of this request allows. It never allows more than its caller may do, and never
/// outlives the key of the caller.
fn grant(body: &[u8], caller: &Caller, now: Timestamp) -> Result<TokenRequest, Refusal> {
    let fields = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    let asked = asked(fields, now).map_err(|fault| malformed(fault.to_string()))?;
    let scopes = asked.scopes.unwrap_or(caller.scopes);
    if let Some(scope) = scopes.iter().find(|scope| !caller.has(*scope)) {
        return Err(missing_scope(scope));
    }
    if asked.dataset.is_some() {
        // The key may be limited to another dataset.
        caller.may_send_to(asked.dataset.as_ref())?;
        check_dataset_limit(scopes).map_err(|fault| malformed(fault.to_string()))?;
    }
    let limits = [
        ("max_uploads", asked.max_uploads),
        ("max_bytes", asked.max_bytes),
    ];
    let limit = limits.iter().find(|(_, limit)| limit.is_some());
    if let Some((name, _)) = limit.filter(|_| !scopes.allow(Scope::Upload)) {
        let reason = "only scope `upload` sends files; add `upload`, or leave the limit out";
        return Err(malformed(KeyFault::new(name, reason).to_string()));
    }
    let end_of_key = caller.expires_at.unwrap_or(Timestamp::MAX);
    Ok(TokenRequest {
        scopes,
        dataset: asked.dataset.or_else(|| caller.dataset.clone()),
        issued_at: now,
        expires_at: asked.expires_at.min(end_of_key),
        max_uploads: asked.max_uploads,
        max_bytes: asked.max_bytes,
    })
}

/// The fields that are given, each valid by itself.
#[derive(Debug)]
struct Asked {
    scopes: Option<Scopes>,
    dataset: Option<DatasetName>,
    expires_at: Timestamp,
    max_uploads: Option<u64>,
    max_bytes: Option<u64>,
}

fn asked(fields: Fields, now: Timestamp) -> Result<Asked, KeyFault> {
    let scopes = fields.scopes.map(|names| {
        let scopes: Result<Vec<Scope>, _> = names.iter().map(|name| name.parse()).collect();
        scopes.and_then(Scopes::new)
    });
    let scopes = scopes.transpose();
    let longest = u64::from(MAX_LIFETIME);
    let lifetime = number("expires_in", fields.expires_in, longest)?;
    let lifetime = lifetime.unwrap_or(u64::from(DEFAULT_LIFETIME));
    let lifetime = SignedDuration::from_secs(i64::try_from(lifetime).unwrap_or_default());
    Ok(Asked {
        scopes: scopes.map_err(|fault| KeyFault::new("scopes", fault.to_string()))?,
        dataset: field("dataset", fields.dataset)?,
        expires_at: now.saturating_add(lifetime).unwrap_or(now),
        max_uploads: number("max_uploads", fields.max_uploads, MAX_UPLOADS)?,
        max_bytes: number("max_bytes", fields.max_bytes, MAX_BYTES)?,
    })
}

fn number(name: &'static str, value: Option<u64>, most: u64) -> Result<Option<u64>, KeyFault> {
    match value {
        Some(value) if !(1..=most).contains(&value) => {
            let reason = format!("{value} is not a number from 1 to {most}");
            Err(KeyFault::new(name, reason))
        }
        value => Ok(value),
    }
}

fn malformed(message: String) -> Refusal {
    Refusal::unprocessable("malformed_token_request", message)
}

fn missing_scope(scope: Scope) -> Refusal {
    let message = format!(
        "the key of the request does not have scope `{scope}`, so its token cannot have it; leave the scope out, or use another key"
    );
    Refusal::new(RefusalKind::Forbidden, "missing_scope", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn caller(scopes: &str) -> Caller {
        Caller {
            scopes: scopes.parse().unwrap(),
            ..Caller::unlimited()
        }
    }

    fn limited() -> Caller {
        Caller {
            dataset: "sales".parse().ok(),
            ..caller("upload")
        }
    }

    fn refused(body: &str, caller: &Caller, code: &str) -> String {
        let refusal = grant(body.as_bytes(), caller, NOW).unwrap_err();
        assert_eq!(refusal.failure.code, code, "{body}");
        refusal.failure.message
    }

    fn seconds(granted: &TokenRequest) -> i64 {
        granted.expires_at.as_second() - NOW.as_second()
    }

    #[test]
    fn a_token_without_fields_has_the_rights_of_its_key_for_15_minutes() {
        let granted = grant(b"{}", &limited(), NOW).unwrap();
        assert_eq!(granted.scopes, "upload".parse().unwrap());
        assert_eq!(granted.dataset, "sales".parse().ok());
        assert_eq!(seconds(&granted), 900);
        assert_eq!((granted.max_uploads, granted.max_bytes), (None, None));
    }

    #[test]
    fn every_field_of_a_token_is_read() {
        let body = r#"{ "scopes": ["upload"], "dataset": "Sales é", "expires_in": 86400,
            "max_uploads": 3, "max_bytes": 1000 }"#;
        let granted = grant(body.as_bytes(), &caller("admin"), NOW).unwrap();
        assert_eq!(granted.scopes, "upload".parse().unwrap());
        assert_eq!(granted.dataset, "Sales é".parse().ok());
        assert_eq!(seconds(&granted), 86_400);
        assert_eq!(
            (granted.max_uploads, granted.max_bytes),
            (Some(3), Some(1000))
        );
    }

    #[test]
    fn a_token_has_no_scope_that_its_key_lacks() {
        for scope in ["admin", "manage", "read"] {
            let body = format!(r#"{{ "scopes": ["upload", "{scope}"] }}"#);
            let message = refused(&body, &caller("upload"), "missing_scope");
            assert!(message.contains(&format!("`{scope}`")), "{message}");
        }
        assert!(grant(br#"{ "scopes": ["read"] }"#, &caller("read upload"), NOW).is_ok());
    }

    #[test]
    fn a_token_of_a_key_for_one_dataset_is_for_this_dataset() {
        let same = grant(br#"{ "dataset": "sales" }"#, &limited(), NOW).unwrap();
        assert_eq!(same.dataset, "sales".parse().ok());
        let message = refused(r#"{ "dataset": "stock" }"#, &limited(), "wrong_dataset");
        assert!(message.contains("`sales`"), "{message}");
        let reader = Caller {
            scopes: "upload read".parse().unwrap(),
            ..limited()
        };
        let read = grant(br#"{ "scopes": ["read"] }"#, &reader, NOW).unwrap();
        assert_eq!(read.dataset, "sales".parse().ok());
    }

    #[test]
    fn a_token_does_not_outlive_its_key() {
        let ending = |seconds: i64| Caller {
            expires_at: Some(NOW + SignedDuration::from_secs(seconds)),
            ..caller("read")
        };
        for (key, expected) in [(60, 60), (5000, 900)] {
            let granted = grant(b"{}", &ending(key), NOW).unwrap();
            assert_eq!(seconds(&granted), expected);
        }
    }

    #[test]
    fn a_faulty_field_is_named() {
        for (body, field) in [
            (r#"{ "scopes": [] }"#, "scopes"),
            (r#"{ "scopes": ["write"] }"#, "scopes"),
            (r#"{ "dataset": "a/b" }"#, "dataset"),
            (r#"{ "dataset": "sales" }"#, "dataset"),
            (r#"{ "scopes": ["read"], "dataset": "sales" }"#, "dataset"),
            (r#"{ "expires_in": 0 }"#, "expires_in"),
            (r#"{ "expires_in": 86401 }"#, "expires_in"),
            (r#"{ "max_uploads": 0 }"#, "max_uploads"),
            (r#"{ "max_bytes": 0 }"#, "max_bytes"),
            (r#"{ "max_bytes": 1125899906842625 }"#, "max_bytes"),
            (r#"{ "scopes": ["read"], "max_uploads": 1 }"#, "max_uploads"),
            (r#"{ "scopes": ["read"], "max_bytes": 1 }"#, "max_bytes"),
            (r#"{ "tenant": "acme" }"#, "tenant"),
        ] {
            let fault = refused(body, &caller("admin"), "malformed_token_request");
            assert!(fault.contains(&format!("`{field}`")), "{fault}");
        }
        for body in [
            "",
            "[]",
            r#"{ "scopes": "read" }"#,
            r#"{ "expires_in": "1" }"#,
        ] {
            refused(body, &caller("admin"), "malformed_token_request");
        }
        refused(
            r#"{ "expires_in": -1 }"#,
            &caller("admin"),
            "malformed_token_request",
        );
    }
}
