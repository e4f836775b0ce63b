//! The secret that signs tokens. [`UploadStore`](super::UploadStore) counts their uploads.
//!
//! # Promises
//!
//! - All processes of one database get the same secret, also if they ask for the first time at the
//!   same time.

use std::fmt;

use async_trait::async_trait;

use crate::access::TokenSecret;
use crate::error::PortResult;

/// The secret that signs tokens. See the module for its promises.
#[async_trait]
pub trait TokenStore: fmt::Debug + Send + Sync {
    /// The secret that signs tokens. The first call ever keeps `new`, and every other call returns
    /// what that call kept.
    async fn token_secret(&self, new: &TokenSecret) -> PortResult<TokenSecret>;
}
