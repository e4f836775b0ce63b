//! Records how long each batch in hand has not moved, to distinguish a stuck batch from a waiting
//! one.
//!
//! A batch moves whenever a call to a server for it ends, even if the call fails because the server
//! is away: a batch that waits for a server is not stuck. A batch that waits for its turn moves
//! whenever any batch moves. The dead letters and the sweeps do not count, because they can go on
//! while every batch is stuck.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carga_common::sync::lock;
use carga_common::upload::UploadId;
use tokio::sync::Notify;

use crate::room::Permits;

/// How often a slow call counts as a move.
const SLOW_CALL_INTERVAL: Duration = Duration::from_secs(60);

/// The batches that one worker has in hand, and their moves.
#[derive(Debug, Default)]
pub(crate) struct ProgressWatch {
    batches: Mutex<Batches>,
    connected: Notify,
}

#[derive(Debug, Default)]
struct Batches {
    by_id: HashMap<InHandId, Stillness>,
    last_id: u64,
    /// Whether any batch has moved since the last look.
    has_any_moved: bool,
}

/// Names a batch in hand within one worker. A batch that is delivered again gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct InHandId(u64);

#[derive(Debug)]
struct Stillness {
    upload: Option<UploadId>,
    /// Whether the batch has moved since the last look.
    has_moved: bool,
    /// Whether the batch waits for its turn, and not for an answer.
    waits: bool,
    /// How long the batch had not moved at the last look.
    still: Duration,
    is_stuck: bool,
}

/// A batch in hand, from its delivery until it is settled or dropped.
#[derive(Debug)]
pub(crate) struct InHand {
    watch: Arc<ProgressWatch>,
    id: InHandId,
    /// Bounds the batches in hand by the prefetch, even when a reconnect brings a further prefetch.
    _permits: Option<Permits>,
}

impl ProgressWatch {
    /// How many batches are in hand.
    pub(crate) fn in_hand(&self) -> usize {
        lock(&self.batches).by_id.len()
    }

    /// The uploads of the batches in hand. A batch that is stuck does not count, because its upload
    /// must not look as if a worker were storing it.
    pub(crate) fn uploads_in_hand(&self) -> Vec<UploadId> {
        let batches = lock(&self.batches);
        let moving = batches.by_id.values().filter(|batch| !batch.is_stuck);
        let mut uploads: Vec<UploadId> = moving.filter_map(|batch| batch.upload).collect();
        uploads.sort_unstable();
        uploads.dedup();
        uploads
    }

    /// Takes a batch in hand. Its upload is unknown if the properties of its message are
    /// unreadable.
    pub(crate) fn take(self: &Arc<Self>, upload: Option<UploadId>) -> InHand {
        let mut batches = lock(&self.batches);
        batches.last_id += 1;
        let id = InHandId(batches.last_id);
        let stillness = Stillness {
            upload,
            has_moved: true,
            waits: false,
            still: Duration::ZERO,
            is_stuck: false,
        };
        batches.by_id.insert(id, stillness);
        drop(batches);
        InHand {
            watch: Arc::clone(self),
            id,
            _permits: None,
        }
    }

    /// Adds the time since the last look to the batches that have not moved since then. Returns the
    /// longest time for which a batch has not moved. A batch is stuck from `limit` on.
    pub(crate) fn look(&self, passed: Duration, limit: Duration) -> Duration {
        let mut batches = lock(&self.batches);
        let has_any_moved = std::mem::take(&mut batches.has_any_moved);
        let mut longest = Duration::ZERO;
        for batch in batches.by_id.values_mut() {
            let has_moved = std::mem::take(&mut batch.has_moved);
            batch.still = match has_moved || (batch.waits && has_any_moved) {
                true => Duration::ZERO,
                false => batch.still + passed,
            };
            batch.is_stuck = batch.still >= limit;
            longest = longest.max(batch.still);
        }
        longest
    }

    /// Waits for a call, or for one attempt of a call. Its end, also with an error, is a move of
    /// these batches.
    pub(crate) async fn observe<T>(
        &self,
        batches: &[InHandId],
        call: impl Future<Output = T>,
    ) -> T {
        let answer = call.await;
        self.record_move(batches);
        answer
    }

    /// Like [`observe`](Self::observe), for a call that may take up to `limit`. Until then, each
    /// minute of the call counts as a move.
    pub(crate) async fn observe_slow<T>(
        &self,
        batches: &[InHandId],
        limit: Duration,
        call: impl Future<Output = T>,
    ) -> T {
        let mut call = std::pin::pin!(call);
        for _ in 0..limit.as_secs() / SLOW_CALL_INTERVAL.as_secs() {
            let answer = tokio::time::timeout(SLOW_CALL_INTERVAL, call.as_mut()).await;
            self.record_move(batches);
            if let Ok(answer) = answer {
                return answer;
            }
        }
        self.observe(batches, call).await
    }

    /// Records whether these batches wait for their turn. Both the beginning and the end of the
    /// wait are moves.
    pub(crate) fn set_waiting(&self, ids: &[InHandId], waits: bool) {
        let mut batches = lock(&self.batches);
        for id in ids {
            if let Some(batch) = batches.by_id.get_mut(id) {
                batch.waits = waits;
                batch.has_moved = true;
            }
        }
    }

    /// Records that the consumer of batches has connected.
    pub(crate) fn record_connection(&self) {
        self.connected.notify_one();
    }

    /// Completes when the consumer of batches has connected since the last call.
    pub(crate) async fn connected(&self) {
        self.connected.notified().await;
    }

    fn record_move(&self, ids: &[InHandId]) {
        let mut batches = lock(&self.batches);
        batches.has_any_moved = true;
        for id in ids {
            if let Some(batch) = batches.by_id.get_mut(id) {
                batch.has_moved = true;
            }
        }
    }
}

impl InHand {
    pub(crate) fn id(&self) -> InHandId {
        self.id
    }

    /// Keeps the permits until the batch is settled or dropped.
    pub(crate) fn admit(&mut self, permits: Permits) {
        self._permits = Some(permits);
    }

    /// Like [`ProgressWatch::observe`], for this batch alone.
    pub(crate) async fn observe<T>(&self, call: impl Future<Output = T>) -> T {
        self.watch.observe(&[self.id], call).await
    }

    /// Like [`ProgressWatch::observe_slow`], for this batch alone.
    pub(crate) async fn observe_slow<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = T>,
    ) -> T {
        self.watch.observe_slow(&[self.id], limit, call).await
    }

    /// Waits for the turn of this batch.
    pub(crate) async fn wait_for<T>(&self, turn: impl Future<Output = T>) -> T {
        self.set_waiting(true);
        let turn = turn.await;
        self.set_waiting(false);
        turn
    }

    /// Records whether this batch waits for its turn.
    pub(crate) fn set_waiting(&self, waits: bool) {
        self.watch.set_waiting(&[self.id], waits);
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut batches = lock(&self.watch.batches);
        batches.by_id.remove(&self.id);
        batches.has_any_moved = true;
    }
}
