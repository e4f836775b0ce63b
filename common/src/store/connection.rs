//! The connection to the store.
//!
//! # Promises
//!
//! - A reachable store answers a ping.
//! - Several processes can open the store at once; the first of them creates the schema.
//! - Committed data survives reopening.
//! - Every store has its own id, which never changes.

use std::fmt;

use async_trait::async_trait;
use uuid::Uuid;

use crate::error::PortResult;

/// The connection to the store. See the module for its promises.
#[async_trait]
pub trait StoreConnection: fmt::Debug + Send + Sync {
    /// Checks that the store can be reached.
    async fn ping(&self) -> PortResult<()>;

    /// The id of this installation of Carga. Its messages carry the id, so that installations which
    /// share a broker can tell their messages apart.
    async fn installation(&self) -> PortResult<Uuid>;

    /// Closes all connections. Every later call fails.
    async fn close(&self);
}
