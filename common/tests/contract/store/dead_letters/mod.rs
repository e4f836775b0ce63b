//! The promises of `DeadLetterStore`.

pub(super) mod parking;
pub(super) mod retrying;

use anyhow::{Result, ensure};
use bytes::Bytes;
use carga_common::batch::BatchId;
use carga_common::store::{BatchRows, Completed, DeadBatch, Parked, Retried, RetryScope, Store};
use carga_common::upload::{Status, UploadId};

use super::{begin, check_status, find, seal, store_new};
use crate::sample::{self, first, in_epoch};

/// A message that cannot be decoded.
pub(super) fn dead(id: Option<BatchId>) -> DeadBatch {
    DeadBatch {
        id,
        rows: None,
        attempts: 4,
        reason: "row 3: \"é🦀\"\n\\ does not fit".to_owned(),
        body: Bytes::from_static(b"\0\xff no JSON \""),
    }
}

fn dead_batch(upload: UploadId, epoch: i32, seq: u32) -> DeadBatch {
    let upload = in_epoch(upload, epoch);
    dead(Some(BatchId { upload, seq }))
}

/// How many rows each batch of these cases has.
const ROWS: u32 = 5;

/// A dead letter with the rows of a sample.
fn with_rows(upload: UploadId, seq: u32) -> DeadBatch {
    let (seq_before, count) = (u64::from(seq) - 1, u64::from(ROWS));
    DeadBatch {
        rows: Some(BatchRows {
            first: seq_before * count + 1,
            last: (seq_before + 1) * count,
            count: ROWS,
        }),
        ..dead_batch(upload, 1, seq)
    }
}

/// An upload of three batches that ended without the last two, which are dead letters.
async fn partial(store: &dyn Store) -> Result<UploadId> {
    let id = begin(store).await?;
    store_new(store, &sample::batches(id, 1, ROWS)?).await?;
    for seq in [2, 3] {
        ensure!(store.park(&with_rows(id, seq)).await? == Parked::Kept);
    }
    ensure!(store.seal(first(id), &seal(3, 15)).await?);
    let completed = store.complete(first(id), 2).await?;
    ensure!(completed == Completed::Yes, "{completed:?}");
    check_status(store, id, Status::Partial).await?;
    Ok(id)
}

/// Retries dead letters, and fails unless this many are retried.
async fn retry(store: &dyn Store, id: UploadId, scope: RetryScope, count: u64) -> Result<()> {
    let retried = store.retry(first(id), scope).await?;
    ensure!(retried == Retried::Batches(count), "{retried:?}");
    Ok(())
}

/// Publishes all retried batches of all uploads, and returns their numbers in their files.
async fn publish_all(store: &dyn Store) -> Result<Vec<u32>> {
    let mut seqs = Vec::new();
    for batch in store.claim_retried(100).await? {
        store.mark_published(&[batch.number]).await?;
        seqs.push(batch.id.seq);
    }
    seqs.sort_unstable();
    Ok(seqs)
}

/// Fails unless the upload has these numbers of dead and of retried batches, and of dead rows.
async fn check_dead(store: &dyn Store, id: UploadId, expected: [u64; 3]) -> Result<()> {
    let upload = find(store, id).await?;
    let found = [
        upload.batches_dead,
        upload.batches_retrying,
        upload.rows_dead,
    ];
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    Ok(())
}
