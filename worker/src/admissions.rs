//! Whether a batch is still worth archiving, remembered for a moment: asking for each would be a round trip per batch.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use carga_common::batch::BatchId;
use carga_common::error::PortResult;
use carga_common::store::Store;
use carga_common::sync::lock;
use carga_common::upload::UploadKey;
use tokio::time::Instant;

/// For so long a yes is believed. Not the fence, which is in the transaction: what is archived for an upload that ended meanwhile is deleted
/// with the rest of it.
const BELIEVED_FOR: Duration = Duration::from_millis(100);

/// Beyond this number of uploads those that were not asked for lately are forgotten.
const MOST_REMEMBERED: usize = 1_000;

/// What one worker process has asked lately.
#[derive(Debug, Default)]
pub(crate) struct Admissions {
    /// When an upload's epoch was admitted last.
    admitted: Mutex<HashMap<UploadKey, Instant>>,
}

impl Admissions {
    /// As the store says, or said a moment ago.
    pub(crate) async fn admits(&self, store: &dyn Store, id: BatchId) -> PortResult<bool> {
        let now = Instant::now();
        let is_fresh = |at: &Instant| now < *at + BELIEVED_FOR;
        if lock(&self.admitted).get(&id.upload).is_some_and(is_fresh) {
            return Ok(true);
        }
        let admits = store.admits(id).await?;
        if admits {
            let mut admitted = lock(&self.admitted);
            if admitted.len() >= MOST_REMEMBERED {
                admitted.retain(|_, at| is_fresh(at));
            }
            admitted.insert(id.upload, now);
        }
        Ok(admits)
    }
}
