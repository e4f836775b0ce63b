//! Whether an upload still accepts batches, cached briefly.
//!
//! Asking the store before every batch would cost one round trip per batch.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use carga_common::batch::BatchId;
use carga_common::error::PortResult;
use carga_common::store::Store;
use carga_common::sync::lock;
use carga_common::upload::UploadKey;
use tokio::time::Instant;

/// How long a positive answer is cached. This is only an optimisation; the store's fence decides.
/// The sweeper deletes what was archived for an upload that had already failed.
const TTL: Duration = Duration::from_millis(100);

/// Expired entries are removed once the cache holds this many uploads.
const EVICTION_THRESHOLD: usize = 1_000;

/// The positive answers that one worker process has received recently.
#[derive(Debug, Default)]
pub(crate) struct AdmissionCache {
    /// When the store last admitted each upload and epoch.
    admitted_at: Mutex<HashMap<UploadKey, Instant>>,
}

impl AdmissionCache {
    /// Asks the store, unless it admitted the same upload and epoch within the last [`TTL`].
    pub(crate) async fn admits(&self, store: &dyn Store, id: BatchId) -> PortResult<bool> {
        let key = id.upload;
        let now = Instant::now();
        let is_fresh = |at: &Instant| now < *at + TTL;
        if lock(&self.admitted_at).get(&key).is_some_and(is_fresh) {
            return Ok(true);
        }
        let admits = store.admits(id).await?;
        if admits {
            let mut admitted_at = lock(&self.admitted_at);
            if admitted_at.len() >= EVICTION_THRESHOLD {
                admitted_at.retain(|_, at| is_fresh(at));
            }
            admitted_at.insert(key, now);
        }
        Ok(admits)
    }
}
