//! A batch: up to a thousand rows that are sent, archived and stored together.
//!
//! [`BatchEncoder`] writes the message in the API, and [`Batch::decode`] reads it in the
//! worker. Both are plain functions over bytes. The message between them is one buffer, which is
//! rarely copied.

mod decode;
mod encode;

use std::fmt;
use std::str::FromStr;

pub use decode::{Batch, Cell, DecodeError, Origin, trace_of};
pub use encode::{BatchEncoder, BatchLimits, EncodedBatch, RowOrigin, RowTooLarge};

use crate::upload::{Epoch, UploadId, UploadKey};

/// Appends a text or a list as JSON. This cannot fail, because every text or list has a JSON form
/// and a `Vec` accepts every byte.
pub(crate) fn write_json<T: serde::Serialize + ?Sized>(buffer: &mut Vec<u8>, value: &T) {
    let written = serde_json::to_writer(&mut *buffer, value);
    debug_assert!(written.is_ok());
}

/// The version of a message whose rows go into the landing table.
pub const MESSAGE_VERSION: u32 = 2;

/// The version of a message whose rows go into the table of a dataset. It differs, so that a build
/// without datasets postpones the message instead of storing its rows in the landing table.
pub const TYPED_MESSAGE_VERSION: u32 = 3;

/// Whether this build reads messages of this version.
fn is_supported(version: u32) -> bool {
    matches!(version, MESSAGE_VERSION | TYPED_MESSAGE_VERSION)
}

/// The id of a batch: its upload and epoch, and its number in the file.
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
    /// Parses a message id, for a message whose body may be unreadable.
    pub fn from_message_id(text: &str, epoch: Epoch) -> Option<Self> {
        let (upload, seq) = text.split_once('/')?;
        let id = UploadId::from_str(upload).ok()?;
        Some(Self {
            upload: UploadKey { id, epoch },
            seq: seq.parse().ok()?,
        })
    }
}
