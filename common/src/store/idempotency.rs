//! Requests that take effect once, whatever happens to their answers.
//!
//! There is no lock. Whether a request is running, has succeeded or has failed follows from the
//! record of its upload. If a crash leaves the upload unfinished, the sweeper ends it.
//! [`UploadStore::create_if`](super::UploadStore::create_if) gives a key to an upload.
//!
//! # Promises
//!
//! - Of concurrent requests with one key, exactly one creates something. What it creates and the
//!   key are stored together or not at all.
//! - An upload has its key while it is being received, and from its seal on, whatever becomes of it
//!   afterwards. The key of an upload that ended before its seal is free, because its client got an
//!   error. Of concurrent requests for such a key, exactly one takes it over.
//! - A key is free again [`REQUEST_KEPT`](crate::idempotency::REQUEST_KEPT) after its request, or
//!   when the record of its upload is gone.
//! - The keys of other tenants, of other senders and for other routes make no difference.
//! - An answer is read back as it was stored.

use std::fmt;

use async_trait::async_trait;

use crate::access::{KeyDigest, KeyRecord};
use crate::error::PortResult;
use crate::idempotency::{IdempotencyKey, IdempotentRequest};
use crate::sha256::Sha256;
use crate::upload::{Status, Upload};

/// The upload of the first request with a key.
#[derive(Debug, Clone)]
pub struct FirstUpload {
    /// The fingerprint of the request's options.
    pub fingerprint: Sha256,
    /// The upload: it is being received, or it was sealed.
    pub upload: Upload,
}

impl FirstUpload {
    /// The upload, if it has its key.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn holding(fingerprint: Sha256, upload: Upload) -> Option<Self> {
        let is_sealed = upload.batches_total.is_some();
        let holds = is_sealed || upload.status == Status::Receiving;
        holds.then_some(Self {
            fingerprint,
            upload,
        })
    }

    /// Whether the first request is still running.
    pub fn is_being_received(&self) -> bool {
        self.upload.status == Status::Receiving
    }
}

/// The answer to the first request with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstAnswer {
    /// The fingerprint of the request.
    pub fingerprint: Sha256,
    /// The body, without secrets.
    pub body: String,
}

/// Requests that take effect once. See the module for its promises.
#[async_trait]
pub trait IdempotencyStore: fmt::Debug + Send + Sync {
    /// The upload that has this key; `None` if the key is free.
    async fn first_upload(&self, key: &IdempotencyKey) -> PortResult<Option<FirstUpload>>;

    /// Creates an API key like [`create_key`](super::KeyStore::create_key), together with the key
    /// of its request and the body of its answer, which must not have the secret. Returns false,
    /// and creates nothing, if another request has the key.
    async fn create_key_once(
        &self,
        key: &KeyRecord,
        digest: &KeyDigest,
        request: &IdempotentRequest,
        answer: &str,
    ) -> PortResult<bool>;

    /// The answer of the request that has this key; `None` if the key is free.
    async fn first_answer(&self, key: &IdempotencyKey) -> PortResult<Option<FirstAnswer>>;

    /// Deletes keys that are free because of their age. Deletes a limited number, and returns how
    /// many it deleted.
    async fn forget_requests(&self) -> PortResult<u64>;
}
