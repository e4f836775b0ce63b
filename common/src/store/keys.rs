//! API keys.
//!
//! # Promises
//!
//! - A key is read back as it was created, with its digest.
//! - Creating a key whose id exists is a *conflict*, and changes nothing.
//! - A key stays in the store for ever, also when it has expired or was revoked.
//! - Consecutive pages of the list neither skip nor repeat a key.
//! - The time of the first revocation stays. A call for one tenant neither lists nor revokes the
//!   keys of another tenant.

use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::access::{KeyDigest, KeyId, KeyRecord};
use crate::error::PortResult;
use crate::tenant::Tenant;

/// The last key of a page, after which the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPosition {
    /// When the key was made.
    pub created_at: Timestamp,
    /// The id of the key. Several keys may have been made at the same time.
    pub id: KeyId,
}

impl From<&KeyRecord> for KeyPosition {
    fn from(record: &KeyRecord) -> Self {
        Self {
            created_at: record.created_at,
            id: record.id.clone(),
        }
    }
}

/// API keys. See the module for its promises.
#[async_trait]
pub trait KeyStore: fmt::Debug + Send + Sync {
    /// Records a key.
    async fn create_key(&self, key: &KeyRecord, digest: &KeyDigest) -> PortResult<()>;

    /// One key with its digest; `None` if the id is unknown.
    async fn key(&self, id: &KeyId) -> PortResult<Option<(KeyRecord, KeyDigest)>>;

    /// Keys of one tenant or of all tenants, the oldest first.
    async fn keys(
        &self,
        tenant: Option<&Tenant>,
        after: Option<&KeyPosition>,
        limit: u32,
    ) -> PortResult<Vec<KeyRecord>>;

    /// Revokes a key of one tenant or of any tenant. Returns false if there is no such key.
    async fn revoke_key(&self, id: &KeyId, tenant: Option<&Tenant>) -> PortResult<bool>;
}
