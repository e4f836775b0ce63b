//! Stores several batches in one transaction, then counts them, checks for completion and
//! acknowledges them, in this order.
//!
//! Batches that arrive while a transaction commits form the next group. No batch waits for a group
//! to fill.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use carga_common::error::{ErrorKind, PortError, PortResult};
use carga_common::progress::StoredBatch;
use carga_common::queue::Delivery;
use carga_common::retry::retry_until_accepted;
use carga_common::store::{ArchivedBatch, StoreOutcome};
use carga_common::upload::UploadKey;
use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::{Mutex, mpsc};

use crate::context::Context;
use crate::outcome::settle_failed;
use crate::panics::panic_reason;
use crate::prepare::Ready;

/// The limit of a group's message bytes. A few very wide batches must not form one huge
/// transaction.
const GROUP_BYTES: usize = 8 << 20;

/// Stores groups until all senders are dropped. Several of these tasks take turns at the receiver.
pub(crate) async fn store_groups(context: Arc<Context>, ready: Arc<Mutex<mpsc::Receiver<Ready>>>) {
    let mut gathered = Vec::new();
    loop {
        let limit = context.settings.group_batches;
        if ready.lock().await.recv_many(&mut gathered, limit).await == 0 {
            return;
        }
        for group in split_by_size(&mut gathered) {
            store_group(&context, group).await;
        }
    }
}

fn split_by_size(gathered: &mut Vec<Ready>) -> Vec<Vec<Ready>> {
    let mut groups = Vec::new();
    let (mut group, mut bytes) = (Vec::new(), 0);
    for ready in gathered.drain(..) {
        let size = ready.archived.batch.size_bytes();
        if !group.is_empty() && bytes + size > GROUP_BYTES {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
        bytes += size;
        group.push(ready);
    }
    groups.push(group);
    groups
}

/// Stores a group. If its transaction fails, each batch is stored alone, so that one invalid batch
/// does not fail the others.
async fn store_group(context: &Context, group: Vec<Ready>) {
    let mut deliveries = Vec::with_capacity(group.len());
    let mut batches = Vec::with_capacity(group.len());
    let mut in_hand = Vec::with_capacity(group.len());
    for ready in group {
        deliveries.push(ready.delivery);
        batches.push(ready.archived);
        in_hand.push(ready.in_hand);
    }
    let error = match store(context, &batches).await {
        Ok(outcomes) => return settle(context, deliveries, &batches, &outcomes).await,
        Err(error) => error,
    };
    if error.is_passing() {
        // The worker stops while the database is away or full. Dropped deliveries return to the
        // queue.
        return;
    }
    if batches.len() == 1 {
        for delivery in deliveries {
            settle_failed(delivery, error.kind(), &error.chain()).await;
        }
        return;
    }
    tracing::warn!(
        error = error.chain(),
        "a group could not be stored; storing its batches one by one"
    );
    for ((delivery, archived), in_hand) in deliveries.into_iter().zip(batches).zip(in_hand) {
        let alone = vec![Ready {
            delivery,
            in_hand,
            archived,
        }];
        Box::pin(store_group(context, alone)).await;
    }
}

async fn store(context: &Context, batches: &[ArchivedBatch]) -> PortResult<Vec<StoreOutcome>> {
    let store = || context.backends.store.store(batches);
    let stored = retry_until_accepted(context.stop.cancelled(), store);
    let stored = AssertUnwindSafe(stored).catch_unwind().await;
    stored.unwrap_or_else(|panic| {
        let reason = panic_reason(panic.as_ref());
        Err(PortError::new(ErrorKind::Internal, "store.store", reason))
    })
}

async fn settle(
    context: &Context,
    deliveries: Vec<Delivery>,
    batches: &[ArchivedBatch],
    outcomes: &[StoreOutcome],
) {
    // A replay is counted too: the worker that stored it may have died before it counted. Counting
    // a batch twice changes nothing.
    let mut counted: BTreeMap<UploadKey, Vec<StoredBatch>> = BTreeMap::new();
    for (ArchivedBatch { batch, .. }, outcome) in batches.iter().zip(outcomes) {
        if *outcome == StoreOutcome::Fenced {
            tracing::debug!(batch = %batch.id, "batch fenced: its upload has ended");
        }
        if matches!(outcome, StoreOutcome::Stored | StoreOutcome::Replay) {
            counted
                .entry(batch.id.upload)
                .or_default()
                .push(StoredBatch {
                    seq: batch.id.seq,
                    rows: batch.row_count() as u32,
                });
        }
    }
    let reports = counted.iter().map(|(upload, batches)| async {
        context.backends.progress.stored(*upload, batches).await;
        context.completion_checks.request(upload.id).await;
    });
    join_all(reports).await;

    let settlements = deliveries
        .into_iter()
        .zip(outcomes)
        .map(|(delivery, outcome)| async {
            let settled = match outcome {
                StoreOutcome::Stored | StoreOutcome::Replay | StoreOutcome::Fenced => {
                    delivery.ack().await
                }
                StoreOutcome::UnknownUpload => delivery.dead_letter("no such upload").await,
            };
            if let Err(error) = settled {
                tracing::debug!(
                    error = error.chain(),
                    "a stored batch was not acknowledged; it will be redelivered as a replay"
                );
            }
        });
    join_all(settlements).await;
}
