//! What an operator watches in the store.
//!
//! # Promises
//!
//! - Uploads that have not ended are counted by their status. The cost of an observation does not
//!   depend on the number of uploads that have ended.
//! - The oldest upload in status `processing` is the one that was sealed first.
//! - Dead letters are counted up to [`MOST_DEAD_LETTERS`], and events that are not sent up to
//!   [`MOST_UNSENT_EVENTS`].
//! - The rejected rows of an upload are counted by the codes that were recorded with them.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::PortResult;
use crate::upload::UploadId;

/// The most dead letters that are counted, so that the cost of an observation has a bound.
pub const MOST_DEAD_LETTERS: u32 = 10_000;

/// The most events that are counted.
pub const MOST_UNSENT_EVENTS: u32 = 10_000;

/// What waits in the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// Uploads in status `receiving`.
    pub receiving: u64,
    /// Uploads in status `processing`.
    pub processing: u64,
    /// How long ago the oldest upload in status `processing` was sealed.
    pub oldest_processing: Option<Duration>,
    /// Dead letters.
    pub dead_letters: u64,
    /// Events that are not sent. Without a broker, these are all events.
    pub unsent_events: u64,
}

/// The connections of this process to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionUse {
    /// Connections that calls are using.
    pub used: u32,
    /// Connections that wait for a call.
    pub idle: u32,
    /// The most connections.
    pub max: u32,
}

impl ConnectionUse {
    /// The use of two pools together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            used: self.used + other.used,
            idle: self.idle + other.idle,
            max: self.max + other.max,
        }
    }

    /// The use of a pool, from the numbers of its connections.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn of_pool(open: u32, idle: usize, max: u32) -> Self {
        // The two numbers are read one after the other, so `idle` may be greater than `open`.
        let idle = u32::try_from(idle).unwrap_or(u32::MAX).min(open);
        Self {
            used: open - idle,
            idle,
            max,
        }
    }
}

/// Watching the store. See the module for its promises.
#[async_trait]
pub trait ObservationStore: fmt::Debug + Send + Sync {
    /// Counts what waits in the store.
    async fn observe(&self) -> PortResult<Observation>;

    /// Counts the rejected rows of an upload by their codes, in any order. It reads all of them, so
    /// it is for the end of an upload.
    async fn reject_codes(&self, id: UploadId) -> PortResult<Vec<(String, u64)>>;

    /// The connections of this process, without asking the database.
    fn connection_use(&self) -> ConnectionUse;
}
