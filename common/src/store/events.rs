//! The events of uploads, which clients list and workers send to the broker.
//!
//! # Promises
//!
//! - Each change of an upload's status leaves one event, in the transaction of the change. A call
//!   that changes no status leaves none.
//! - An event has the figures of the rows that were known at that moment.
//! - Consecutive pages of the list neither skip nor repeat an event, even of changes that are made
//!   at the same time. They have the events of one upload in the order of its changes. A position
//!   is never used again.
//! - An event that was claimed and not sent is claimed again after its release, or when its lease
//!   has ended. Until then, no other call claims it.
//! - An event is claimed only if all earlier events of its upload are sent. So any number of
//!   workers sends the events of one upload in the order of its changes.
//! - Only old events are deleted, whether they are sent or not.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::PortResult;
use crate::events::{ClaimedEvent, Event};
use crate::tenant::Tenant;

/// Which events a list has.
#[derive(Debug, Clone)]
pub struct EventQuery {
    /// Only events of this tenant.
    pub tenant: Tenant,
    /// Only events of uploads that this sender has sent, as in
    /// [`UploadQuery`](super::UploadQuery).
    pub created_by: Option<String>,
    /// Only events behind this position.
    pub after: u64,
    /// The most events.
    pub limit: u32,
}

/// An event in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEvent {
    /// Where the list goes on after this event.
    pub position: u64,
    /// The event.
    pub event: Event,
}

/// How many events were deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForgottenEvents {
    /// All of them.
    pub events: u64,
    /// Those that were not sent.
    pub unsent: u64,
}

/// The events of uploads. See the module for its promises.
#[async_trait]
pub trait EventStore: fmt::Debug + Send + Sync {
    /// A page of events, in the order of their positions.
    async fn events(&self, query: &EventQuery) -> PortResult<Vec<ListedEvent>>;

    /// Claims events that are not sent, at most one of each upload: the first one. The claims end
    /// after `lease`.
    async fn claim_events(&self, limit: u32, lease: Duration) -> PortResult<Vec<ClaimedEvent>>;

    /// Records that the events with these numbers are sent.
    async fn events_sent(&self, numbers: &[u64]) -> PortResult<()>;

    /// Ends the claims of the events with these numbers, so that they are claimed again.
    async fn release_events(&self, numbers: &[u64]) -> PortResult<()>;

    /// Deletes events that are older than this. Deletes a limited number.
    async fn forget_events(&self, older_than: Duration) -> PortResult<ForgottenEvents>;
}
