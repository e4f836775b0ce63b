//! Turns the claims of a JWT into the rights of a caller.

use std::fmt::Write;

use carga_common::access::{Scope, Scopes, check_dataset_limit};
use carga_common::dataset::DatasetName;
use carga_common::settings::JwtSettings;
use carga_common::tenant::Tenant;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::caller::{Caller, Credential};

/// The claims of a JWT by their names.
pub(super) type Claims = Map<String, Value>;

/// The longest subject, in bytes. OpenID Connect allows 255 (Core 1.0, 2).
const MAX_SUBJECT_BYTES: usize = 255;

/// What a sender with a JWT begins with in the records of uploads. No id of a key has a colon.
const SENDER: &str = "jwt:";

/// Which claims say what.
#[derive(Debug)]
pub(super) struct ClaimNames {
    tenant: String,
    scopes: String,
    dataset: Option<String>,
}

/// Why a JWT with a valid signature gives no caller.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClaimFault {
    /// A claim is missing or has an invalid value.
    Invalid(&'static str),
    /// The claim with the scopes has none of those of Carga.
    NoScope,
}

impl ClaimNames {
    pub(super) fn of(settings: &JwtSettings) -> Self {
        Self {
            tenant: settings.tenant_claim.clone(),
            scopes: settings.scopes_claim.clone(),
            dataset: settings.dataset_claim.clone(),
        }
    }

    /// The name of the claim with the scopes.
    pub(super) fn scopes(&self) -> &str {
        &self.scopes
    }

    /// The holder of a JWT with these claims, whose signature and times are valid.
    pub(super) fn caller(&self, claims: &Claims) -> Result<Caller, ClaimFault> {
        let tenant = claims.get(&self.tenant).and_then(Value::as_str);
        let tenant = tenant.and_then(|text| text.parse::<Tenant>().ok());
        let Some(tenant) = tenant else {
            return Err(ClaimFault::Invalid("the claim with the tenant"));
        };
        let sender = match claims.get("sub") {
            None | Some(Value::Null) => None,
            Some(subject) => Some(sender(subject).ok_or(ClaimFault::Invalid("sub"))?),
        };
        let expires_at = claims.get("exp").and_then(Value::as_f64);
        // The verifier refuses a JWT without `exp`. A time that `Timestamp` cannot hold is no end.
        let expires_at = expires_at.and_then(|time| Timestamp::from_second(time as i64).ok());
        let (scopes, dataset) = (self.granted(claims)?, self.dataset(claims)?);
        if dataset.is_some() && check_dataset_limit(scopes).is_err() {
            return Err(ClaimFault::Invalid(
                "the claim with the dataset, which limits nobody without `upload` or with `admin`",
            ));
        }
        Ok(Caller {
            tenant,
            key: None,
            credential: Credential::Jwt { sender },
            expires_at,
            scopes,
            dataset,
            only_own: false,
        })
    }

    /// The scopes in a list, or in a text with blanks (RFC 8693, 4.2). Other services have scopes
    /// of their own, which mean nothing here.
    fn granted(&self, claims: &Claims) -> Result<Scopes, ClaimFault> {
        let names: Vec<&str> = match claims.get(&self.scopes) {
            Some(Value::String(names)) => names.split_whitespace().collect(),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let known = names
            .into_iter()
            .filter_map(|name| name.parse::<Scope>().ok());
        Scopes::new(known).map_err(|_| ClaimFault::NoScope)
    }

    /// The only dataset. A claim with any other value than a name is a fault, because it may be
    /// meant as a limit.
    fn dataset(&self, claims: &Claims) -> Result<Option<DatasetName>, ClaimFault> {
        let claim = self.dataset.as_ref().and_then(|name| claims.get(name));
        match claim {
            None | Some(Value::Null) => Ok(None),
            Some(name) => {
                let name = name.as_str().and_then(|name| name.parse().ok());
                name.map(Some)
                    .ok_or(ClaimFault::Invalid("the claim with the dataset"))
            }
        }
    }
}

/// The subject as uploads record their sender. Every character that is not in a list is written as
/// `%XX`, so the sender has no dot: what follows a dot in a sender is the id of a token.
fn sender(subject: &Value) -> Option<String> {
    let subject = subject.as_str()?;
    if !(1..=MAX_SUBJECT_BYTES).contains(&subject.len()) {
        return None;
    }
    let mut sender = SENDER.to_owned();
    for byte in subject.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'@' | b'|' | b':' => {
                sender.push(char::from(byte));
            }
            _ => write!(sender, "%{byte:02X}").ok()?,
        }
    }
    Some(sender)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(dataset: Option<&str>) -> ClaimNames {
        ClaimNames {
            tenant: "tenant".to_owned(),
            scopes: "scope".to_owned(),
            dataset: dataset.map(str::to_owned),
        }
    }

    fn caller(claims: Value) -> Result<Caller, ClaimFault> {
        names(Some("table")).caller(claims.as_object().unwrap())
    }

    #[test]
    fn scopes_are_a_text_or_a_list_and_those_of_others_are_ignored() {
        for scopes in [
            json!("openid upload profile read"),
            json!(["upload", "read", "Upload", 7, "write"]),
        ] {
            let caller = caller(json!({ "tenant": "acme", "scope": scopes })).unwrap();
            assert_eq!(caller.scopes, "read upload".parse().unwrap());
            assert_eq!(caller.tenant.as_str(), "acme");
            assert!(caller.key.is_none() && caller.dataset.is_none());
        }
        for scopes in [
            json!(""),
            json!("openid"),
            json!([]),
            json!(null),
            json!({}),
        ] {
            let fault = caller(json!({ "tenant": "acme", "scope": scopes })).unwrap_err();
            assert_eq!(fault, ClaimFault::NoScope);
        }
    }

    #[test]
    fn a_tenant_is_required_and_never_guessed() {
        for tenant in [
            json!(null),
            json!("A"),
            json!(""),
            json!(7),
            json!(["acme"]),
        ] {
            let fault = caller(json!({ "tenant": tenant, "scope": "read" })).unwrap_err();
            assert!(matches!(fault, ClaimFault::Invalid(_)), "{fault:?}");
        }
        assert!(caller(json!({ "scope": "read" })).is_err());
    }

    #[test]
    fn a_dataset_is_a_limit_only_if_its_claim_has_a_name() {
        let claims = json!({ "tenant": "acme", "scope": "upload", "table": "sales" });
        let limited = caller(claims.clone()).unwrap();
        assert_eq!(limited.dataset, "sales".parse().ok());
        let without = names(None).caller(claims.as_object().unwrap()).unwrap();
        assert_eq!(without.dataset, None);
        for dataset in [json!("a/b"), json!(""), json!(["sales"]), json!(false)] {
            let claims = json!({ "tenant": "acme", "scope": "upload", "table": dataset });
            assert!(caller(claims).is_err());
        }
    }

    #[test]
    fn a_dataset_that_limits_nothing_is_a_fault() {
        let with_scopes =
            |scopes: &str| caller(json!({ "tenant": "acme", "scope": scopes, "table": "sales" }));
        for scopes in ["admin", "admin upload", "read", "manage read"] {
            let fault = with_scopes(scopes).unwrap_err();
            assert!(matches!(fault, ClaimFault::Invalid(_)), "{scopes}");
        }
        for scopes in ["upload", "upload read manage"] {
            assert!(with_scopes(scopes).is_ok(), "{scopes}");
        }
    }

    #[test]
    fn different_subjects_are_different_senders_without_a_dot() {
        let sender = |subject: &str| sender(&json!(subject));
        let expected = [
            ("alice", "jwt:alice"),
            ("auth0|5f7c", "jwt:auth0|5f7c"),
            ("alice.smith", "jwt:alice%2Esmith"),
            ("alice%2Esmith", "jwt:alice%252Esmith"),
            ("é\0", "jwt:%C3%A9%00"),
        ];
        for (subject, expected) in expected {
            assert_eq!(sender(subject).as_deref(), Some(expected));
        }
        assert_eq!(sender(""), None);
        assert!(sender(&"x".repeat(255)).is_some());
        assert_eq!(sender(&"x".repeat(256)), None);
        let named = caller(json!({ "tenant": "acme", "scope": "read", "sub": "alice" })).unwrap();
        assert_eq!(named.key_id(), Some("jwt:alice"));
        assert!(caller(json!({ "tenant": "acme", "scope": "read", "sub": 7 })).is_err());
        let nameless = caller(json!({ "tenant": "acme", "scope": "read" })).unwrap();
        assert_eq!(nameless.key_id(), None);
    }
}
