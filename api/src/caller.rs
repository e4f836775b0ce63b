//! The sender of a request, and its tenant.

use std::fmt;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use carga_common::access::{KeyId, KeyRecord, Scope, Scopes, without_secrets};
use carga_common::dataset::{DatasetName, TableName};
use carga_common::tenant::Tenant;
use carga_common::upload::Upload;
use carga_intake::refusal::{Refusal, RefusalKind};

use crate::problem::ApiError;

/// Who sent a request, and what this client may do. The layer of [`access`](crate::access) adds it
/// to every request, so a handler that takes it has the tenant from the key alone.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The owner of everything that the caller sees and makes.
    pub(crate) tenant: Tenant,
    /// The caller's key; `None` for `CARGA_ADMIN_KEY`, and without authentication.
    pub(crate) key: Option<KeyId>,
    /// What the caller may do.
    pub(crate) scopes: Scopes,
    /// The only dataset to which the caller may send files.
    pub(crate) dataset: Option<DatasetName>,
    /// Whether the caller may use the route only for uploads that this key has sent: it has the
    /// scope `upload`, and not the one that allows the route for all uploads.
    pub(crate) only_own: bool,
}

impl Caller {
    /// A client that may do everything: without authentication, or with `CARGA_ADMIN_KEY`.
    pub(crate) fn unlimited() -> Self {
        Self {
            tenant: Tenant::default(),
            key: None,
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
            scopes: key.scopes,
            dataset: key.dataset.clone(),
            only_own: false,
        }
    }

    pub(crate) fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    pub(crate) fn has(&self, scope: Scope) -> bool {
        self.scopes.allow(scope)
    }

    /// The id of the caller's key, as uploads record it.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.key.as_ref().map(KeyId::as_str)
    }

    /// Whether the caller's key has sent this upload.
    pub(crate) fn has_sent(&self, upload: &Upload) -> bool {
        self.key_id().is_some_and(|key| upload.was_sent_by(key))
    }

    /// The key whose uploads a list is limited to; `None` for all uploads of the tenant.
    pub(crate) fn only_sender(&self) -> Option<String> {
        // A caller without a key has sent nothing, and no upload is recorded with an empty id.
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

fn wrong_dataset(message: String) -> Refusal {
    Refusal::new(RefusalKind::Forbidden, "wrong_dataset", message)
}

/// For the log: the id of the key, or why there is none.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => key.fmt(f),
            None => f.write_str("CARGA_ADMIN_KEY or no authentication"),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    /// The layer did not run for a request without a caller.
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
    fn a_list_of_own_uploads_without_a_key_has_no_upload() {
        let mut caller = Caller::unlimited();
        assert_eq!(caller.only_sender(), None);
        caller.only_own = true;
        assert_eq!(caller.only_sender().as_deref(), Some(""));
        caller.key = Some("0123456789ab".parse().unwrap());
        assert_eq!(caller.only_sender().as_deref(), Some("0123456789ab"));
    }

    #[tokio::test]
    async fn a_request_whose_key_nothing_has_checked_has_no_caller() {
        let (mut parts, ()) = axum::http::Request::new(()).into_parts();
        assert!(Caller::from_request_parts(&mut parts, &()).await.is_err());
        parts.extensions.insert(Caller::unlimited());
        assert!(Caller::from_request_parts(&mut parts, &()).await.is_ok());
    }
}
