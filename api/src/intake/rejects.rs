//! Rejected rows on their way into the store. They go there directly, not with the batches: they are to stay when the upload
//! fails, and the fence keeps batches out then.

use std::sync::Arc;
use std::time::Duration;

use carga_common::patience::patiently;
use carga_common::rejects::RejectedRow;
use carga_common::store::Store;
use carga_common::upload::Upload;
use tokio::time::sleep;

use super::ended_meanwhile;
use super::live::LiveUpload;
use super::policy::Policy;
use crate::csv::Rejection;
use crate::problem::Refusal;

/// Written together at most.
const GROUP_ROWS: usize = 1000;
const GROUP_BYTES: usize = 1 << 20;

/// The rejected rows of an upload that is being received.
#[derive(Debug)]
pub(crate) struct Rejects<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) upload: &'a Upload,
    pub(crate) live: Arc<LiveUpload>,
    pub(crate) policy: Policy,
    /// The most that are kept.
    pub(crate) most: u64,
    /// How long the store is waited for.
    pub(crate) deadline: Duration,
    pub(crate) found: u64,
    pub(crate) pending: Vec<RejectedRow>,
    pub(crate) pending_bytes: usize,
}

impl Rejects<'_> {
    /// Takes one more. Fails where it is one too many, with all of them in the store.
    pub(crate) async fn push(&mut self, rejection: Rejection) -> Result<(), Refusal> {
        self.found += 1;
        let judged = self.policy.judge(&rejection, self.found, self.most);
        let row = rejection.row;
        self.pending_bytes += row.size_bytes();
        self.pending.push(row);
        let is_full = self.pending.len() >= GROUP_ROWS || self.pending_bytes >= GROUP_BYTES;
        if is_full || judged.is_err() {
            self.flush().await?;
        }
        judged
    }

    /// Has them all in the store.
    pub(crate) async fn flush(&mut self) -> Result<(), Refusal> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let (id, epoch) = (self.upload.id, self.upload.epoch);
        let reject = || self.store.reject(id, epoch, &self.pending);
        if !patiently(sleep(self.deadline), reject).await? {
            return Err(ended_meanwhile());
        }
        self.pending.clear();
        self.pending_bytes = 0;
        self.live.set_rejected(self.found);
        Ok(())
    }
}
