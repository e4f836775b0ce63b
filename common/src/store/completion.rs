//! The end of an upload whose rows are all accounted for.
//!
//! # Promises
//!
//! - An upload completes only when every batch is in the ledger, and the rows of the ledger
//!   together with the rows that the intake rejected are the rows that were read. It ends as
//!   `partial` if any was rejected.
//! - An upload ends as `partial` when every batch is in the ledger or a dead letter. The rows that
//!   are in neither the ledger nor the list of rejected rows are counted as dead.
//! - Staged rows are not merged while a batch of them is a dead letter. All of them count as dead,
//!   and a retry merges all of them.
//! - An upload completes once, however many callers try at the same time.
//! - An upload whose table has rejected rows has too many rejects as soon as they exceed a limit of
//!   rows, also while it is being received. The share of rejected rows is checked at the end.
//! - Staged rows are merged all together, or not at all. Every row ends as inserted, as updated, as
//!   a duplicate or as rejected, in the record of the upload and in the ledger.
//! - No staged row is a duplicate of a row of an upload that failed, was cancelled or was undone.
//!   It replaces that row, or the merge waits until the row is removed.
//! - Of staged rows with one key, the mode `update` merges the last one, and the mode `ignore` the
//!   first one. The others are duplicates.
//! - A merge that rejects too many rows changes nothing but the list of rejected rows.

use std::fmt;

use async_trait::async_trait;

use crate::error::PortResult;
use crate::upload::{Upload, UploadId, UploadKey};

/// Whether an upload can end.
#[derive(Debug, Clone)]
pub enum Completion {
    /// Every batch is stored, or is a dead letter.
    Ready {
        /// The upload.
        upload: Box<Upload>,
        /// How many rows violate a constraint of the dataset's table, and are rejected.
        violating: u64,
        /// How many batches are dead letters.
        dead: u64,
    },
    /// Too many rows are rejected, so the upload must fail. Batches may be missing, and the upload
    /// may be `receiving`.
    TooManyRejects {
        /// The upload.
        upload: Box<Upload>,
        /// The rows that are rejected so far, by the intake and by the table.
        rejected: u64,
    },
    /// A batch is missing, or the upload is not sealed.
    Incomplete,
    /// The upload has ended already.
    Ended,
    /// Every batch is stored, but the row counts do not add up. The upload must not complete.
    Mismatch {
        /// The rows that were read.
        read: u64,
        /// The rows in the ledger.
        stored: u64,
        /// The rows that were rejected.
        rejected: u64,
    },
}

/// The outcome of completing an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// This call ended the upload.
    Yes,
    /// Nothing has changed: the upload has ended already, is being merged by another caller, has
    /// rows that are not accounted for, or must wait until rows of another upload are removed.
    No,
    /// The merge was taken back, because it rejects too many rows. The rejected rows are recorded,
    /// and the upload must fail.
    TooManyRejects {
        /// The rows that are rejected, by the intake and by the table.
        rejected: u64,
    },
}

/// The end of an upload. See the module for its promises.
#[async_trait]
pub trait CompletionStore: fmt::Debug + Send + Sync {
    /// Whether the upload can end.
    async fn completion(&self, id: UploadId) -> PortResult<Completion>;

    /// Moves an upload from `processing` to `completed`, or to `partial` if rows were rejected or
    /// are in dead letters. It does so only if every row is accounted for. Staged rows are merged
    /// into the table of their dataset in the same transaction, unless a batch is a dead letter.
    ///
    /// `dead` is the number of dead letters that [`completion`](Self::completion) has found. If
    /// there are more or fewer now, nothing changes, because the caller has written a manifest for
    /// this number.
    async fn complete(&self, key: UploadKey, dead: u64) -> PortResult<Completed>;
}
