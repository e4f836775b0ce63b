//! Tokens: the secret that signs them, and how many uploads were sent with each of them.
//!
//! # Promises
//!
//! - All processes of one database get the same secret, also if they ask for the first time at the
//!   same time.
//! - The uploads of a token are counted up to its limit and never beyond it. Of two concurrent
//!   uploads of a token that has one left, exactly one is counted.
//! - A count that is given back may be used once again, and a count never falls below zero.
//! - The count of a token is kept until its end and for an hour more. It is removed afterwards,
//!   when an upload of another token is counted.

use std::fmt;

use async_trait::async_trait;

use crate::access::{TokenLimits, TokenSecret};
use crate::error::PortResult;

/// The secret and the counts of tokens. See the module for its promises.
#[async_trait]
pub trait TokenStore: fmt::Debug + Send + Sync {
    /// The secret that signs tokens. The first call ever keeps `new`, and every other call returns
    /// what that call kept.
    async fn token_secret(&self, new: &TokenSecret) -> PortResult<TokenSecret>;

    /// Counts an upload of a token. Returns false, and counts nothing, if the token has sent as
    /// many uploads as it may. A token without a limit of uploads is not counted.
    async fn count_token_upload(&self, token: &TokenLimits) -> PortResult<bool>;

    /// Takes back one count of an upload that was not created.
    async fn uncount_token_upload(&self, token: &TokenLimits) -> PortResult<()>;
}
