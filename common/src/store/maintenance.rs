//! The work that remains after an upload has ended or a process has crashed.
//!
//! # Promises
//!
//! - The rows of an upload are hidden as soon as its status changes. Any process can resume their
//!   removal at any point.
//! - The rows of an upload that ended well are kept until it is undone, or until `expire_rows`
//!   marks it. Its record is never removed.
//! - The rows of a merged upload stay in the table of their dataset when it expires, because the
//!   table is the result of all uploads.
//! - `leftovers` finds everything that a crash leaves behind.
//! - `expire` keeps an upload whose lease was renewed, or which was sealed, after `leftovers`
//!   listed it.
//! - An expired upload is ended once: of several concurrent callers, exactly one gets true.

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

/// The uploads that need the sweeper.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// Receiving uploads whose lease has expired, with their epochs. An adapter may add uploads
    /// whose failure could not be recorded.
    pub expired: Vec<UploadKey>,
    /// Sealed uploads that no worker has ended.
    pub unfinished: Vec<UploadId>,
    /// Uploads that ended without keeping their rows, or whose rows expired, and whose rows are
    /// still to be removed.
    pub to_remove: Vec<UploadId>,
    /// Such uploads whose archive is still to be deleted.
    pub to_unarchive: Vec<UploadId>,
}

/// The work of the sweeper. See the module for its promises.
#[async_trait]
pub trait MaintenanceStore: fmt::Debug + Send + Sync {
    /// Lists the uploads that need the sweeper. An upload has expired when its last heartbeat is
    /// older than `lease`. The archive of a failed upload is deleted after `archive_grace`; the
    /// archives of cancelled and undone uploads, and of uploads whose rows expired, are deleted at
    /// once.
    async fn leftovers(&self, lease: Duration, archive_grace: Duration) -> PortResult<Leftovers>;

    /// Ends an upload as `failed`, with the failure `interrupted`, if it is still receiving and its
    /// lease was not renewed within `lease`. The condition is checked in the transaction that ends
    /// the upload. Returns whether this call ended it; everything else is as in
    /// [`fail`](super::UploadStore::fail). An upload whose failure could not be recorded ends
    /// without this condition.
    async fn expire(&self, key: UploadKey, lease: Duration) -> PortResult<bool>;

    /// Marks uploads that ended well more than `older_than` ago as expired. Their rows are hidden
    /// at once; `leftovers` then lists the uploads, so that rows, ledger and archive are removed.
    /// Marks a limited number, and returns how many it marked.
    async fn expire_rows(&self, older_than: Duration) -> PortResult<u64>;

    /// Removes some of the rows of an upload that failed, was cancelled or was undone, or whose
    /// rows expired.
    async fn remove_rows(&self, id: UploadId) -> PortResult<Removal>;

    /// Deletes the previous values of rows that uploads replaced, and what is kept of the rows that
    /// they wrote into tables of the user, for uploads that ended more than `older_than` ago. These
    /// uploads cannot be undone any more. Takes a limited number of uploads, and returns how many
    /// it took.
    async fn forget_previous(&self, older_than: Duration) -> PortResult<u64>;

    /// Records that the archive of an upload was deleted. An upload that was cancelled or undone a
    /// moment ago stays in `to_unarchive`, since a worker may still write to its archive.
    async fn archive_removed(&self, id: UploadId) -> PortResult<()>;

    /// Makes room for the rows of this week and of the next week, if the landing table has
    /// partitions. Fails rather than wait for other transactions. Rows are also stored without such
    /// a partition.
    async fn extend_landing(&self) -> PortResult<()> {
        Ok(())
    }

    /// Drops one partition of the landing table whose week is over and whose uploads keep no rows.
    /// Fails rather than wait for other transactions. Returns whether there may be another
    /// partition to drop.
    async fn shrink_landing(&self) -> PortResult<bool> {
        Ok(false)
    }
}
