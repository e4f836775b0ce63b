//! The end of an upload whose rows are all accounted for.
//!
//! # Promises
//!
//! - An upload completes only when every batch is in the ledger, and the rows of the ledger
//!   together with the rows that the intake rejected are the rows that were read. It ends as
//!   `partial` if any was rejected.
//! - An upload completes once, however many callers try at the same time.
//! - An upload whose table has rejected rows has too many rejects as soon as they exceed a limit of
//!   rows, also while it is being received. The share of rejected rows is checked at the end.

use std::fmt;

use async_trait::async_trait;

use crate::error::PortResult;
use crate::upload::{Upload, UploadId, UploadKey};

/// Whether an upload can end.
#[derive(Debug, Clone)]
pub enum Completion {
    /// Every batch is stored.
    Ready {
        /// The upload.
        upload: Box<Upload>,
        /// How many rows violate a constraint of the dataset's table, and are rejected.
        violating: u64,
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

/// The end of an upload. See the module for its promises.
#[async_trait]
pub trait CompletionStore: fmt::Debug + Send + Sync {
    /// Whether the upload can end.
    async fn completion(&self, id: UploadId) -> PortResult<Completion>;

    /// Moves an upload from `processing` to `completed`, or to `partial` if rows were rejected. It
    /// does so only if every row is accounted for. Returns whether this call ended the upload.
    async fn complete(&self, key: UploadKey) -> PortResult<bool>;
}
