//! The slots of uploads, and whether requests wait for one.
//!
//! A client keeps its slot for as long as it sends. A few clients that send almost nothing could
//! therefore keep all others out. While a request waits, such clients lose their slots.
//!
//! The newest request gets the next slot. If the oldest did, a thousand clients that send almost
//! nothing could take every slot that becomes free, one after another, and each request of another
//! client would time out behind them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use carga_common::metrics::Counter;
use carga_common::metrics::table::LIMIT_REFUSALS;
use carga_common::sync::lock;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// How long a request waits for a slot.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// The slots of uploads, and the number of requests that wait for one.
#[derive(Debug, Clone)]
pub struct Crowding {
    slots: Arc<Mutex<Slots>>,
    waiting: Arc<watch::Sender<usize>>,
    refused: Counter,
}

#[derive(Debug)]
struct Slots {
    free: usize,
    /// The requests that wait for a slot, the newest last. Some may have given up.
    waiting: Vec<oneshot::Sender<UploadSlot>>,
}

impl Slots {
    /// Forgets requests that have given up, so that they take no memory.
    fn forget_closed(&mut self) {
        self.waiting.retain(|request| !request.is_closed());
    }
}

/// The right to receive one upload. When it is dropped, the newest request that waits gets it.
#[derive(Debug)]
pub struct UploadSlot(Arc<Mutex<Slots>>);

impl Drop for UploadSlot {
    fn drop(&mut self) {
        let next = {
            let mut slots = lock(&self.0);
            slots.forget_closed();
            let next = slots.waiting.pop();
            slots.free += usize::from(next.is_none());
            next
        };
        if let Some(request) = next {
            // A request that gives up at this moment returns the slot, whose drop passes it on.
            let _ = request.send(Self(Arc::clone(&self.0)));
        }
    }
}

impl Crowding {
    /// `slots`: how many uploads may be received at the same time.
    pub fn new(slots: usize) -> Self {
        let slots = Slots {
            free: slots,
            waiting: Vec::new(),
        };
        Self {
            slots: Arc::new(Mutex::new(slots)),
            waiting: Arc::new(watch::Sender::new(0)),
            refused: LIMIT_REFUSALS.counter_of(["uploads"]),
        }
    }

    /// Takes a slot, or returns `None` if none becomes free within three seconds.
    pub async fn slot(&self) -> Option<UploadSlot> {
        let slot = {
            let mut slots = lock(&self.slots);
            if slots.free > 0 {
                slots.free -= 1;
                return Some(UploadSlot(Arc::clone(&self.slots)));
            }
            slots.forget_closed();
            let (request, slot) = oneshot::channel();
            slots.waiting.push(request);
            slot
        };
        let _waiting = Waiting::new(&self.waiting);
        let slot = tokio::time::timeout(LONGEST_WAIT, slot).await;
        let slot = slot.ok().and_then(Result::ok);
        if slot.is_none() {
            self.refused.increment(1);
        }
        slot
    }

    /// How many requests wait for a slot.
    pub(crate) fn waiting(&self) -> usize {
        *self.waiting.borrow()
    }

    /// Completes as soon as a request waits for a slot, but not before `start`.
    pub(crate) async fn waits_after(&self, start: Instant) {
        tokio::time::sleep_until(start).await;
        let mut waiting = self.waiting.subscribe();
        // This cannot fail, because `self` has the sender.
        let _ = waiting.wait_for(|waiting| *waiting > 0).await;
    }
}

/// A request that waits for a slot.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

#[cfg(test)]
mod tests {
    use carga_common::metrics::local::LocalRecorder;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_newest_request_gets_the_next_slot() {
        let crowding = Crowding::new(1);
        let slot = crowding.slot().await.unwrap();
        let wait = || {
            let crowding = crowding.clone();
            tokio::spawn(async move { crowding.slot().await })
        };
        let (older, given_up, newer) = (wait(), wait(), wait());
        tokio::task::yield_now().await;
        given_up.abort();
        drop(slot);
        let of_newer = newer.await.unwrap();
        assert!(of_newer.is_some());
        drop(of_newer);
        assert!(older.await.unwrap().is_some());
        // The slot is free again.
        assert!(crowding.slot().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_three_seconds_for_a_slot() {
        let recorder = LocalRecorder::new().unwrap();
        let crowding = recorder.run(|| Crowding::new(1));
        let slot = crowding.slot().await.unwrap();
        let started = Instant::now();
        let refused = || recorder.value("carga_limit_refusals_total{limit=\"uploads\"}");
        assert_eq!(refused(), Some(0.0));
        assert!(crowding.slot().await.is_none());
        assert_eq!(started.elapsed(), LONGEST_WAIT);
        assert_eq!(refused(), Some(1.0));
        let other = crowding.clone();
        let waiting = tokio::spawn(async move { other.slot().await.is_some() });
        crowding.waits_after(started).await;
        drop(slot);
        assert!(waiting.await.unwrap());
        assert_eq!(*crowding.waiting.borrow(), 0);
    }
}
