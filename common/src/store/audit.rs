//! The audit log.
//!
//! # Promises
//!
//! - A change on behalf of an [actor](crate::audit::acting_as) leaves one entry, in the transaction
//!   of the change. A call that changes nothing, is refused or fails leaves none.
//! - A change without an actor leaves no entry.
//! - Consecutive pages of the list neither skip nor repeat an entry, even of changes that are made
//!   at the same time. A call for one tenant lists its entries only.
//! - Only old entries are deleted, and no entry is ever changed.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::audit::{Action, AuditEntry};
use crate::error::PortResult;
use crate::tenant::Tenant;

/// The audit log. See the module for its promises.
#[async_trait]
pub trait AuditStore: fmt::Debug + Send + Sync {
    /// Adds the entry of a change outside of the store.
    async fn record_audit(&self, tenant: &Tenant, action: Action, object: &str) -> PortResult<()>;

    /// Entries of one tenant or of all tenants, from the first one whose id is greater than
    /// `after`, in the order of their ids. Unavailable if changes with smaller ids take too long
    /// to be committed.
    async fn audit_entries(
        &self,
        tenant: Option<&Tenant>,
        after: u64,
        limit: u32,
    ) -> PortResult<Vec<AuditEntry>>;

    /// Deletes entries that are older than this. Deletes a limited number, and returns how many it
    /// deleted.
    async fn forget_audit(&self, older_than: Duration) -> PortResult<u64>;
}
