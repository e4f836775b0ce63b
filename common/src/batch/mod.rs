//! A batch: up to a thousand rows that travel, are archived and are stored together.
//!
//! [`BatchEncoder`] makes the message in the API, [`Batch::decode`] reads it in the worker. In between it is one buffer of bytes that
//! nothing copies needlessly. Both are plain functions over bytes.

mod decode;
mod encode;

use std::fmt;
use std::str::FromStr;

pub use decode::{Batch, Cell, DecodeError};
pub use encode::{BatchEncoder, BatchLimits, EncodedBatch, RowTooLarge};

use crate::upload::{Epoch, UploadId, UploadKey};

/// Appends a text or a list as JSON. Those always have a JSON form, and a `Vec` takes every byte.
pub(crate) fn write_json<T: serde::Serialize + ?Sized>(buffer: &mut Vec<u8>, value: &T) {
    let written = serde_json::to_writer(&mut *buffer, value);
    debug_assert!(written.is_ok());
}

/// The version of the message body that this build writes and reads.
pub const MESSAGE_VERSION: u32 = 2;

/// Names one batch: its upload and epoch, and its number in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId {
    /// The upload, in the epoch in which the batch was made.
    pub upload: UploadKey,
    /// The batch's number, from 1.
    pub seq: u32,
}

/// Written as `{upload}/{seq}`: the message id on the broker.
impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.upload.id, self.seq)
    }
}

impl BatchId {
    /// Reads a message id back, for a message whose body may be unreadable.
    pub fn from_message_id(text: &str, epoch: Epoch) -> Option<Self> {
        let (upload, seq) = text.split_once('/')?;
        let id = UploadId::from_str(upload).ok()?;
        Some(Self {
            upload: UploadKey { id, epoch },
            seq: seq.parse().ok()?,
        })
    }
}
