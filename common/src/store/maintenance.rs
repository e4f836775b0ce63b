//! The work that remains after an upload has ended or a process has crashed.
//!
//! # Promises
//!
//! - Removing rows starts with the status, so that they are hidden at once, and can be resumed at
//!   any point by any process.
//! - Rows of an upload that ended well are never removed.
//! - A crash leaves nothing behind that `leftovers` does not find.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::PortResult;
use crate::upload::{UploadId, UploadKey};

/// How far the removal of an upload's rows has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// No row is left.
    Done,
    /// There are more rows.
    More,
    /// Another process is removing them.
    Busy,
}

/// What the sweeper has to look at.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// Receiving uploads whose lease has expired, with their epochs.
    pub expired: Vec<UploadKey>,
    /// Sealed uploads that no worker has ended.
    pub unfinished: Vec<UploadId>,
    /// Ended uploads whose rows are still to be removed.
    pub to_remove: Vec<UploadId>,
    /// Ended uploads whose archive is still to be deleted.
    pub to_unarchive: Vec<UploadId>,
}

/// What remains to be done. See the module for its promises.
#[async_trait]
pub trait MaintenanceStore: fmt::Debug + Send + Sync {
    /// What a crash may have left behind. An upload has expired when its last heartbeat is older
    /// than `lease`; the archive of a failed upload is deleted after `archive_grace`.
    async fn leftovers(&self, lease: Duration, archive_grace: Duration) -> PortResult<Leftovers>;

    /// Removes some of the rows of an upload that ended without keeping them.
    async fn remove_rows(&self, id: UploadId) -> PortResult<Removal>;

    /// Records that the archive of an upload without rows is gone. An upload that was undone just
    /// now stays left over all the same: a worker may have been about to write into its archive.
    async fn archive_removed(&self, id: UploadId) -> PortResult<()>;
}
