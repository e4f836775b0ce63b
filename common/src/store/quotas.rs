//! How much each tenant uploads.
//!
//! # Promises
//!
//! - Of concurrent creations for one tenant, no more succeed than the tenant has slots. The uploads
//!   of other tenants make no difference.
//! - A [creation](super::UploadStore::create_if) without a free slot takes no key and counts for no
//!   token.
//! - The slot of an upload is free as soon as the upload is sealed or has ended, or when its lease
//!   was not renewed for the given time. A process that dies keeps no slot.
//! - The bytes and rows of an upload count once: with its recorded figures while it is received,
//!   and with its final figures on the day (UTC) on which it is sealed or ends without a seal.
//! - If another process ends an upload, what has arrived since its last heartbeat counts when the
//!   process that receives the upload records its failure.
//! - The usage of a day can be read in the table for at least [`USAGE_KEPT_DAYS`] days. After that,
//!   it is deleted in bounded steps.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::PortResult;
use crate::tenant::Tenant;

/// How many days the usage of a day is kept: a year, and a month to read it.
pub const USAGE_KEPT_DAYS: u16 = 400;

/// How many uploads of a tenant may be received at the same time.
#[derive(Debug, Clone, Copy)]
pub struct UploadSlots {
    /// The largest number of uploads.
    pub most: u32,
    /// An upload whose lease was not renewed for this time has no slot.
    pub lease: Duration,
}

/// What a tenant has uploaded on this day (UTC), together with what is being received from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Uploads that are being received.
    pub uploads: u64,
    /// Bytes of files, as they were sent.
    pub bytes: u64,
    /// Rows of files, including rejected rows.
    pub rows: u64,
}

/// How much each tenant uploads. See the module for its promises.
#[async_trait]
pub trait QuotaStore: fmt::Debug + Send + Sync {
    /// What a tenant has uploaded today. An upload whose lease was not renewed for `lease` does not
    /// count as one that is being received.
    async fn usage(&self, tenant: &Tenant, lease: Duration) -> PortResult<Usage>;

    /// Deletes the usage of days that are more than [`USAGE_KEPT_DAYS`] days ago. Deletes a limited
    /// number of records, one per day and tenant, and returns how many; 0 if none are left.
    async fn forget_usage(&self) -> PortResult<u64>;
}
