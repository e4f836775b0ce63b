//! The sender of a request, and its tenant.

use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use carga_common::access::{
    KeyId, KeyRecord, Scope, Scopes, Token, TokenLimits, TokenMaker, without_secrets,
};
use carga_common::audit::Actor;
use carga_common::dataset::{DatasetName, TableName};
use carga_common::settings::IntakeSettings;
use carga_common::tenant::Tenant;
use carga_common::upload::Upload;
use carga_intake::refusal::{Refusal, RefusalKind};
use carga_intake::size_limit::SizeLimit;
use jiff::Timestamp;

use crate::problem::ApiError;

/// Who sent a request, and what this client may do. The layer of [`access`](crate::access) adds it
/// to every request, so a handler that takes it has the tenant from the key alone.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The owner of everything that the caller sees and makes.
    pub(crate) tenant: Tenant,
    /// The caller's key, or the key that made the caller's token; `None` for `CARGA_ADMIN_KEY`, for
    /// the JWT of another issuer, and without authentication.
    pub(crate) key: Option<KeyId>,
    pub(crate) credential: Credential,
    /// When the key, the token or the JWT expires.
    pub(crate) expires_at: Option<Timestamp>,
    /// What the caller may do.
    pub(crate) scopes: Scopes,
    /// The only dataset to which the caller may send files.
    pub(crate) dataset: Option<DatasetName>,
    /// Whether the caller may use the route only for uploads that this key has sent: it has the
    /// scope `upload`, and not the one that allows the route for all uploads.
    pub(crate) only_own: bool,
}

/// What a caller has shown to prove who it is.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// A key, or nothing where no key is needed.
    Key,
    /// A token that a key has made.
    Token {
        /// The token, as uploads record their sender.
        sender: String,
        limits: TokenLimits,
    },
    /// The JWT of another issuer. The sender is `None` if the JWT does not say whose it is.
    // A build without this feature checks no JWT.
    #[cfg_attr(not(feature = "servers"), allow(dead_code))]
    Jwt { sender: Option<String> },
}

impl Caller {
    /// A client that may do everything: without authentication, or with `CARGA_ADMIN_KEY`.
    pub(crate) fn unlimited() -> Self {
        Self {
            tenant: Tenant::default(),
            key: None,
            credential: Credential::Key,
            expires_at: None,
            scopes: Scopes::admin(),
            dataset: None,
            only_own: false,
        }
    }

    /// The holder of a key.
    pub(crate) fn holding(key: &KeyRecord) -> Self {
        Self {
            tenant: key.tenant.clone(),
            key: Some(key.id.clone()),
            credential: Credential::Key,
            expires_at: key.expires_at,
            scopes: key.scopes,
            dataset: key.dataset.clone(),
            only_own: false,
        }
    }

    /// The holder of a token.
    pub(crate) fn with_token(token: Token) -> Self {
        let sender = token.sender();
        Self {
            tenant: token.tenant,
            key: match token.maker {
                TokenMaker::Key(id) => Some(id),
                TokenMaker::Admin(_) => None,
            },
            expires_at: Some(token.limits.expires_at),
            credential: Credential::Token {
                sender,
                limits: token.limits,
            },
            scopes: token.scopes,
            dataset: token.dataset,
            only_own: false,
        }
    }

    pub(crate) fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    pub(crate) fn has(&self, scope: Scope) -> bool {
        self.scopes.allow(scope)
    }

    /// The caller, as uploads record their sender: the id of its key, with that of its token if it
    /// has one, or the subject of its JWT.
    pub(crate) fn key_id(&self) -> Option<&str> {
        match &self.credential {
            Credential::Key => self.key.as_ref().map(KeyId::as_str),
            Credential::Token { sender, .. } => Some(sender),
            Credential::Jwt { sender } => sender.as_deref(),
        }
    }

    /// The sender for whose rate limit the caller's requests count. A token counts for the key that
    /// made it; otherwise, tokens would be a way around the limit of that key. A JWT counts for its
    /// sender in its tenant, and all JWTs of a tenant without `sub` count together.
    pub(crate) fn counted_for(&self) -> String {
        match &self.credential {
            Credential::Key | Credential::Token { .. } => {
                // Only `CARGA_ADMIN_KEY` has no id.
                let id = self.key.as_ref().map_or("admin", KeyId::as_str);
                format!("key:{id}")
            }
            Credential::Jwt { sender } => {
                let sender = sender.as_deref().unwrap_or("jwt:");
                format!("{sender}@{}", self.tenant)
            }
        }
    }

    /// The caller in the audit log, if keys are checked.
    pub(crate) fn actor(&self) -> Actor {
        match (self.key_id(), &self.credential) {
            (Some(sender), _) => Actor::sender(sender),
            (None, Credential::Jwt { .. }) => Actor::unnamed_jwt(),
            (None, _) => Actor::admin_key(),
        }
    }

    /// The limits of the caller's token, if it has one.
    pub(crate) fn token(&self) -> Option<&TokenLimits> {
        match &self.credential {
            Credential::Token { limits, .. } => Some(limits),
            Credential::Key | Credential::Jwt { .. } => None,
        }
    }

    /// The size of the largest file that the caller may send.
    pub(crate) fn size_limit(&self, settings: &IntakeSettings) -> SizeLimit {
        let max_bytes = self.token().and_then(|token| token.max_bytes);
        SizeLimit::of(settings).with_token(max_bytes)
    }

    /// Refuses to make a key with a token or a JWT. The key would outlive them, and its record
    /// would not say who has made it.
    pub(crate) fn may_make_keys(&self) -> Result<(), Refusal> {
        match self.credential {
            Credential::Token { .. } => Err(token_not_allowed(
                "a token cannot make keys, because they would outlive it; use an API key",
            )),
            Credential::Jwt { .. } => Err(token_not_allowed(
                "the JWT of another issuer cannot make keys, because they would outlive it; use an API key",
            )),
            Credential::Key => Ok(()),
        }
    }

    /// Refuses to make a token with anything but a key. A token ends with the key that made it, and
    /// nothing else can be revoked.
    pub(crate) fn may_make_tokens(&self) -> Result<(), Refusal> {
        match self.credential {
            Credential::Key => Ok(()),
            Credential::Token { .. } => Err(token_not_allowed(
                "a token cannot make tokens; use the API key that made it",
            )),
            Credential::Jwt { .. } => Err(token_not_allowed(
                "the JWT of another issuer cannot make tokens; use an API key",
            )),
        }
    }

    /// Whether the caller has sent this upload, itself or through a token of its key.
    pub(crate) fn has_sent(&self, upload: &Upload) -> bool {
        self.key_id().is_some_and(|key| upload.was_sent_by(key))
    }

    /// The sender whose uploads a list is limited to; `None` for all uploads of the tenant.
    pub(crate) fn only_sender(&self) -> Option<String> {
        // No upload is recorded with an empty sender, so a caller without an id gets an empty list.
        let own = || self.key_id().unwrap_or_default().to_owned();
        self.only_own.then(own)
    }

    /// Refuses to send a file to this dataset, or to none, if the key is limited to another one.
    pub(crate) fn may_send_to(&self, dataset: Option<&DatasetName>) -> Result<(), Refusal> {
        match &self.dataset {
            Some(only) if dataset != Some(only) => {
                let message = format!(
                    "the key may send files only to dataset `{only}`; send it with `dataset={only}`, or use another key"
                );
                Err(wrong_dataset(message))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a call that reads a file without a dataset, if the key is limited to a dataset.
    pub(crate) fn may_send_without_dataset(&self) -> Result<(), Refusal> {
        match &self.dataset {
            None => Ok(()),
            Some(only) => {
                let message = format!(
                    "the key may send files only to dataset `{only}`, and this call reads a file without a dataset; check the file with `POST /uploads/validate` and `dataset={only}`, or use another key"
                );
                Err(wrong_dataset(message))
            }
        }
    }

    /// Refuses to declare a dataset with this table of the user. Such a table belongs to no tenant,
    /// so the scope `manage` is enough only for the tenant `default`.
    pub(crate) fn may_declare_table(&self, table: &TableName) -> Result<(), Refusal> {
        if self.tenant.is_default() || self.has(Scope::Admin) {
            return Ok(());
        }
        let message = format!(
            "table {table} belongs to no tenant, so a dataset with this `table` needs a key with scope `admin`; leave out `table`, or use another key"
        );
        Err(Refusal::new(
            RefusalKind::Forbidden,
            "missing_scope",
            message,
        ))
    }
}

fn token_not_allowed(message: &str) -> Refusal {
    Refusal::new(RefusalKind::Forbidden, "token_not_allowed", message)
}

fn wrong_dataset(message: String) -> Refusal {
    Refusal::new(RefusalKind::Forbidden, "wrong_dataset", message)
}

/// For the log: the caller as uploads record it, or why it has no id.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.key_id(), &self.credential) {
            (Some(sender), _) => sender,
            (None, Credential::Jwt { .. }) => "a JWT without `sub`",
            (None, _) => "CARGA_ADMIN_KEY or no authentication",
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    /// Fails if the layer of [`access`](crate::access) has added no caller to the request.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!(
                path = %without_secrets(parts.uri.path()),
                "nothing checked the key of a request"
            );
            Refusal::internal().into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_for_one_dataset_sends_files_to_no_other() {
        let (sales, stock) = ("sales".parse().unwrap(), "stock".parse().unwrap());
        let limited = Caller {
            dataset: Some("sales".parse().unwrap()),
            ..Caller::unlimited()
        };
        assert!(limited.may_send_to(Some(&sales)).is_ok());
        for other in [Some(&stock), None] {
            let refusal = limited.may_send_to(other).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::Forbidden);
            assert_eq!(refusal.failure.code, "wrong_dataset");
            let message = refusal.failure.message;
            assert!(message.contains("`sales`"), "{message}");
            assert!(Caller::unlimited().may_send_to(other).is_ok());
        }
        let refusal = limited.may_send_without_dataset().unwrap_err();
        assert_eq!(refusal.failure.code, "wrong_dataset");
        let message = refusal.failure.message;
        assert!(message.contains("`sales`"), "{message}");
        assert!(Caller::unlimited().may_send_without_dataset().is_ok());
    }

    #[test]
    fn a_table_of_the_user_needs_scope_admin_outside_of_the_tenant_default() {
        let table = "shop.prices".parse().unwrap();
        let allows = |tenant: &str, scopes: &str| {
            let caller = Caller {
                tenant: tenant.parse().unwrap(),
                scopes: scopes.parse().unwrap(),
                ..Caller::unlimited()
            };
            match caller.may_declare_table(&table) {
                Ok(()) => true,
                Err(refusal) => {
                    assert_eq!(refusal.kind, RefusalKind::Forbidden);
                    assert_eq!(refusal.failure.code, "missing_scope");
                    let message = refusal.failure.message;
                    assert!(message.contains("shop.prices"), "{message}");
                    assert!(message.contains("`admin`"), "{message}");
                    false
                }
            }
        };
        assert!(allows("default", "manage"));
        assert!(allows("acme", "admin"));
        assert!(!allows("acme", "manage read upload"));
    }

    #[test]
    fn the_holder_of_a_jwt_makes_neither_keys_nor_tokens() {
        let caller = Caller {
            credential: Credential::Jwt {
                sender: Some("jwt:alice".to_owned()),
            },
            ..Caller::unlimited()
        };
        for refused in [caller.may_make_keys(), caller.may_make_tokens()] {
            let refusal = refused.unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::Forbidden);
            assert_eq!(refusal.failure.code, "token_not_allowed");
        }
        assert!(Caller::unlimited().may_make_keys().is_ok());
        assert!(Caller::unlimited().may_make_tokens().is_ok());
    }

    #[test]
    fn a_caller_without_an_id_gets_an_empty_list_of_own_uploads() {
        let mut caller = Caller::unlimited();
        assert_eq!(caller.only_sender(), None);
        caller.only_own = true;
        assert_eq!(caller.only_sender().as_deref(), Some(""));
        caller.key = Some("0123456789ab".parse().unwrap());
        assert_eq!(caller.only_sender().as_deref(), Some("0123456789ab"));
    }

    #[test]
    fn the_actor_of_the_audit_log_is_the_sender_as_uploads_record_it() {
        let with = |credential: Credential| Caller {
            key: "0123456789ab".parse().ok(),
            credential,
            ..Caller::unlimited()
        };
        let jwt = |sender: Option<&str>| Credential::Jwt {
            sender: sender.map(str::to_owned),
        };
        for (caller, expected) in [
            (with(Credential::Key), Actor::sender("0123456789ab")),
            (with(jwt(Some("jwt:alice"))), Actor::sender("jwt:alice")),
            (with(jwt(None)), Actor::unnamed_jwt()),
            (Caller::unlimited(), Actor::admin_key()),
        ] {
            assert_eq!(caller.actor(), expected);
        }
    }

    #[tokio::test]
    async fn a_request_whose_key_was_not_checked_has_no_caller() {
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        assert!(Caller::from_request_parts(&mut parts, &()).await.is_err());
        parts.extensions.insert(Caller::unlimited());
        assert!(Caller::from_request_parts(&mut parts, &()).await.is_ok());
    }
}
