//! Bounds the batches that are being prepared or stored, in number and in bytes.
//!
//! The prefetch alone is not enough: after a lost connection the broker delivers a further prefetch
//! while earlier deliveries are still in hand.

use std::sync::Arc;

use carga_common::queue::Prefetch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The room for batches in hand. It is as large as the prefetch.
#[derive(Debug)]
pub(crate) struct Room {
    batches: Arc<Semaphore>,
    /// One permit per byte of the messages.
    bytes: Arc<Semaphore>,
    /// The batches that may stay in hand while their uploads are locked.
    locked: Arc<Semaphore>,
    all_batches: u32,
    all_bytes: u32,
}

/// The part of the room that one batch has.
#[derive(Debug)]
pub(crate) struct Permits {
    _batches: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Room {
    pub(crate) fn new(prefetch: Prefetch) -> Self {
        let all_bytes = u32::try_from(prefetch.bytes).unwrap_or(u32::MAX);
        let batches = usize::from(prefetch.batches);
        Self {
            batches: Arc::new(Semaphore::new(batches)),
            bytes: Arc::new(Semaphore::new(all_bytes as usize)),
            locked: Arc::new(Semaphore::new((batches / 4).max(1))),
            all_batches: u32::from(prefetch.batches),
            all_bytes,
        }
    }

    /// The number and the bytes of the batches in hand.
    pub(crate) fn in_use(&self) -> (usize, usize) {
        let used = |all: u32, free: &Semaphore| {
            let all = usize::try_from(all).unwrap_or(usize::MAX);
            all.saturating_sub(free.available_permits())
        };
        let batches = used(self.all_batches, &self.batches);
        (batches, used(self.all_bytes, &self.bytes))
    }

    /// Waits for room for one batch. A message that is larger than the whole room takes the bytes
    /// of the whole room. The semaphores are never closed, so this always returns permits.
    pub(crate) async fn for_one(&self, bytes: usize) -> Option<Permits> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.acquire(1, bytes.min(self.all_bytes)).await
    }

    /// Waits for the whole room. The semaphores are fair: this call waits until no batch is in
    /// hand, and later batches wait for this call.
    pub(crate) async fn whole(&self) -> Option<Permits> {
        self.acquire(self.all_batches, self.all_bytes).await
    }

    /// Takes one of the places for batches of locked uploads, without waiting; `None` if all are
    /// taken. They are a quarter of the room, so that locked uploads leave room for others.
    pub(crate) fn for_locked(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.locked).try_acquire_owned().ok()
    }

    /// Every call acquires the number before the bytes, because two orders could deadlock.
    async fn acquire(&self, batches: u32, bytes: u32) -> Option<Permits> {
        let batches = Arc::clone(&self.batches).acquire_many_owned(batches).await;
        let batches = batches.ok()?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await;
        Some(Permits {
            _batches: batches,
            _bytes: bytes.ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const PREFETCH: Prefetch = Prefetch {
        batches: 8,
        bytes: 100,
    };

    #[tokio::test]
    async fn the_bytes_in_hand_stay_within_the_prefetch() {
        let room = Room::new(PREFETCH);
        let first = room.for_one(60).await;
        assert!(first.is_some());
        assert_eq!(room.in_use(), (1, 60));
        assert!(room.for_one(60).now_or_never().is_none());
        drop(first);
        assert_eq!(room.in_use(), (0, 0));
        assert!(room.for_one(60).await.is_some());
    }

    #[tokio::test]
    async fn a_message_that_is_larger_than_the_room_is_alone_in_it() {
        let room = Room::new(PREFETCH);
        let large = room.for_one(1_000).await;
        assert!(large.is_some());
        assert!(room.for_one(1).now_or_never().is_none());
        drop(large);
        let whole = room.whole().await;
        assert!(whole.is_some());
        assert!(room.for_one(1).now_or_never().is_none());
    }

    #[test]
    fn locked_batches_take_a_quarter_of_the_room() {
        let room = Room::new(PREFETCH);
        let locked = (room.for_locked(), room.for_locked());
        assert!(locked.0.is_some() && locked.1.is_some());
        assert!(room.for_locked().is_none());
    }
}
