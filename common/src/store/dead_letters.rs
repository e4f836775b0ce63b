//! Dead letters: batches that will not be tried again.
//!
//! # Promises
//!
//! - A dead letter is kept once with its message, and counted in the record of its upload.
//! - A dead letter whose batch is already stored is not kept, since no row is missing.
//! - An upload with a dead letter does not complete.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::batch::BatchId;
use crate::error::PortResult;

/// A dead letter to be stored.
#[derive(Debug, Clone)]
pub struct DeadBatch {
    /// The id of the batch; `None` if the message has no valid id.
    pub id: Option<BatchId>,
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
    /// The dead letter is kept, and its upload cannot complete.
    Kept,
    /// The batch is already stored, so the dead letter was not kept.
    AlreadyStored,
}

/// Dead letters. See the module for its promises.
#[async_trait]
pub trait DeadLetterStore: fmt::Debug + Send + Sync {
    /// Keeps a dead letter.
    async fn park(&self, batch: &DeadBatch) -> PortResult<Parked>;
}
