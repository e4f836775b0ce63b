//! What the creation of an upload depends on, besides its id and its dataset.

use super::UploadSlots;
use crate::access::TokenLimits;
use crate::idempotency::IdempotentRequest;
use crate::upload::Upload;

/// The conditions of a creation. The default has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct CreateConditions<'a> {
    /// The request that takes effect once: no other request has its key.
    pub request: Option<&'a IdempotentRequest>,
    /// The token of the sender: it may send a further upload. A token without `max_uploads` always
    /// may.
    pub token: Option<&'a TokenLimits>,
    /// The tenant has a free slot. This is checked first.
    pub slots: Option<UploadSlots>,
}

/// The outcome of a creation with conditions.
#[derive(Debug)]
pub enum CreateOutcome {
    /// The upload is recorded. It has the key of its request, and its token has counted it.
    Created(Box<Upload>),
    /// Nothing was created, because another request has the key.
    KeyTaken,
    /// Nothing was created, because the token has sent as many uploads as it may.
    TokenUsedUp,
    /// Nothing was created, because the tenant has no free slot.
    NoSlot,
}

impl CreateOutcome {
    /// The upload that was created.
    pub fn upload(self) -> Option<Upload> {
        match self {
            Self::Created(upload) => Some(*upload),
            Self::KeyTaken | Self::TokenUsedUp | Self::NoSlot => None,
        }
    }
}
