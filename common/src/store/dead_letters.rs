//! Dead letters: batches that will not be tried again, unless somebody retries them.
//!
//! # Promises
//!
//! - A dead letter is kept once with its message, and counted in the record of its upload.
//! - A dead letter whose batch is already stored is not kept, since no row is missing. Nor is that
//!   of an upload that keeps no rows.
//! - A retry returns an upload that ended `partial` to `processing`, in the same epoch. Repeated,
//!   it changes nothing. An upload that keeps no rows cannot be retried.
//! - The message of a retried batch is claimed by one process at a time. It is claimed again if the
//!   process does not publish it in time.
//! - A retried batch that fails again is a dead letter again, with the new reason.
//! - A retry whose message is lost ends, and its batch is a dead letter again.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::batch::{Batch, BatchId};
use crate::error::PortResult;
use crate::upload::{UploadId, UploadKey};

/// The rows of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRows {
    /// The `row_number` of the first row; 0 if the batch has no rows.
    pub first: u64,
    /// The `row_number` of the last row; 0 if the batch has no rows.
    pub last: u64,
    /// How many rows the batch has. Rejected rows leave gaps between the numbers.
    pub count: u32,
}

impl BatchRows {
    /// The rows of a decoded batch.
    pub fn of(batch: &Batch) -> Self {
        Self {
            first: batch.first_row(),
            last: batch.last_row(),
            // A batch has a thousand rows at most, unless a setting says otherwise.
            count: u32::try_from(batch.row_count()).unwrap_or(u32::MAX),
        }
    }
}

/// A dead letter to be stored.
#[derive(Debug, Clone)]
pub struct DeadBatch {
    /// The id of the batch; `None` if the message has no valid id.
    pub id: Option<BatchId>,
    /// The rows of the batch; `None` if the message cannot be decoded.
    pub rows: Option<BatchRows>,
    /// How often the batch was tried.
    pub attempts: u32,
    /// Why it will not be tried again.
    pub reason: String,
    /// The message, not decoded.
    pub body: Bytes,
}

/// The outcome of storing a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// The dead letter is kept.
    Kept,
    /// The batch is already stored, so the dead letter was not kept.
    AlreadyStored,
    /// The upload keeps no rows, or is in another epoch, so the dead letter was not kept.
    Ended,
}

/// A dead letter in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The number of the dead letter. Later ones have greater numbers.
    pub number: u64,
    /// The id of the batch; `None` if the message has no valid id.
    pub id: Option<BatchId>,
    /// The id under which clients know the upload; `None` if there is no such upload.
    pub upload: Option<UploadId>,
    /// The rows of the batch; `None` if the message cannot be decoded.
    pub rows: Option<BatchRows>,
    /// How often the batch was tried.
    pub attempts: u32,
    /// Why it failed for the last time.
    pub reason: String,
    /// When it became a dead letter.
    pub parked_at: Timestamp,
    /// When somebody retried it; `None` if nobody did, or if it has failed again since.
    pub retried_at: Option<Timestamp>,
}

/// The dead letters of an upload that are retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryScope {
    /// All of them.
    Upload,
    /// The batch with this number.
    Batch(u32),
    /// The batch with the row that has this number.
    Row(u64),
}

/// The outcome of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// This many batches will be published again. None, if the dead letters were retried before.
    Batches(u64),
    /// The upload does not exist in this epoch, or it has ended and keeps no rows.
    Ended,
}

/// The message of a retried batch.
#[derive(Debug, Clone)]
pub struct RetriedBatch {
    /// The number of the dead letter.
    pub number: u64,
    /// The id of the batch.
    pub id: BatchId,
    /// How many rows the batch has; 0 if the message cannot be decoded.
    pub rows: u32,
    /// The message.
    pub body: Bytes,
}

/// Dead letters. See the module for its promises.
#[async_trait]
pub trait DeadLetterStore: fmt::Debug + Send + Sync {
    /// Keeps a dead letter.
    async fn park(&self, batch: &DeadBatch) -> PortResult<Parked>;

    /// Lists dead letters of all uploads whose numbers are greater than `after`, in the order of
    /// their numbers. The list has those that are being retried, too.
    async fn dead_letters(&self, after: u64, limit: u32) -> PortResult<Vec<DeadLetter>>;

    /// The message of the dead letter of a batch; `None` if there is none.
    async fn dead_message(&self, id: BatchId) -> PortResult<Option<Bytes>>;

    /// Retries dead letters of an upload. The caller publishes their messages, as
    /// [`replay`](crate::replay) does.
    async fn retry(&self, key: UploadKey, scope: RetryScope) -> PortResult<Retried>;

    /// Claims messages of retried batches that no process has published, in the order of their
    /// numbers. Another call returns them again after a minute.
    async fn claim_retried(&self, limit: u32) -> PortResult<Vec<RetriedBatch>>;

    /// Records that the messages of these dead letters are in the queue.
    async fn mark_published(&self, numbers: &[u64]) -> PortResult<()>;
}
