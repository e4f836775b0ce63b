//! Dead letters: batches that will not be tried again.
//!
//! # Promises
//!
//! - A dead letter is kept once with its message, and counted in the record of its upload.
//! - A dead copy of a stored batch is not kept: no row is missing.
//! - An upload with a dead letter does not complete.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::batch::BatchId;
use crate::error::PortResult;

/// A dead letter on its way into the store.
#[derive(Debug, Clone)]
pub struct DeadBatch {
    /// The batch, unless the message does not say.
    pub id: Option<BatchId>,
    /// How often the batch was tried.
    pub attempts: u32,
    /// Why it will not be tried again.
    pub reason: String,
    /// The message.
    pub body: Bytes,
}

/// What parking a dead letter means for its upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parked {
    /// The dead letter is kept, and its upload cannot complete.
    Kept,
    /// The batch is stored already, so its copy was not kept.
    AlreadyStored,
}

/// Dead letters. See the module for its promises.
#[async_trait]
pub trait DeadLetterStore: fmt::Debug + Send + Sync {
    /// Keeps a dead letter.
    async fn park(&self, batch: &DeadBatch) -> PortResult<Parked>;
}
