//! Stores several batches in one transaction, then counts them, checks for completion and
//! acknowledges them, in this order.
//!
//! Batches that arrive while a transaction commits form the next group. No batch waits for a group
//! to fill.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use carga_common::error::{ErrorKind, PortError, PortResult};
use carga_common::progress::StoredBatch;
use carga_common::retry::retry_until_accepted;
use carga_common::store::{ArchivedBatch, StoreOutcome};
use carga_common::upload::UploadKey;
use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::context::Context;
use crate::locked;
use crate::metrics::{BatchCounters, WorkerMetrics};
use crate::outcome::{Wait, postpone, settle_failed};
use crate::panics::{panic_reason, survive};
use crate::progress_watch::InHandId;
use crate::ready::{Held, Ready};

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

/// Stores a group. After a panic, its unsettled deliveries return to the queue, and the stored ones
/// among them come back as replays.
pub(crate) async fn store_group(context: &Arc<Context>, group: Vec<Ready>) {
    survive("storing a group", store_together(context, group)).await;
}

/// Stores a group in one transaction. If the transaction fails, each batch is stored alone, so that
/// one invalid batch does not fail the others.
async fn store_together(context: &Arc<Context>, group: Vec<Ready>) {
    let ids: Vec<InHandId> = group.iter().map(|ready| ready.held.in_hand.id()).collect();
    let parts = group.into_iter().map(|ready| (ready.held, ready.archived));
    let (held, batches): (Vec<Held>, Vec<ArchivedBatch>) = parts.unzip();
    let watch = &context.progress_watch;
    watch.set_waiting(&ids, false);
    let spans = group_spans(&held, &batches);
    let started = Instant::now();
    let storing = store(context, &ids, &batches);
    let stored = storing.instrument(first(&spans)).await;
    drop(spans);
    let counters = &context.metrics.batches;
    match stored {
        Ok(outcomes) => {
            let committed = outcomes.iter();
            let committed = committed.filter(|outcome| **outcome != StoreOutcome::Locked);
            let committed = committed.count();
            context.metrics.committed(committed, started.elapsed());
            report(context, &ids, &held, &batches, &outcomes).await;
            settle(context, rejoin(held, batches), outcomes).await;
        }
        // The worker releases its batches while the database is away or full. Dropped deliveries
        // return to the queue.
        Err(error) if error.is_passing() => {}
        Err(error) if batches.len() == 1 => {
            for held in held {
                // The batch is in hand until it is settled.
                let Held {
                    delivery,
                    in_hand: _in_hand,
                    span,
                    ..
                } = held;
                let reason = error.chain();
                let settled = settle_failed(delivery, error.kind(), &reason, counters);
                settled.instrument(span).await;
            }
        }
        Err(error) => {
            tracing::warn!(
                error = error.chain(),
                "a group could not be stored; storing its batches one by one"
            );
            watch.set_waiting(&ids, true);
            for ready in rejoin(held, batches) {
                Box::pin(store_together(context, vec![ready])).await;
            }
        }
    }
}

/// The spans `group`: one for each upload of the group, as a child of its first batch. The trace of
/// each upload then shows how long the transaction took.
fn group_spans(held: &[Held], batches: &[ArchivedBatch]) -> Vec<Span> {
    if !tracing::span_enabled!(tracing::Level::DEBUG) {
        return Vec::new();
    }
    let mut spans = BTreeMap::new();
    for (held, archived) in held.iter().zip(batches) {
        match spans.entry(archived.batch.id.upload) {
            Entry::Vacant(entry) => {
                let batches = batches.len();
                entry.insert(tracing::debug_span!(parent: &held.span, "group", batches));
            }
            Entry::Occupied(entry) => {
                entry.get().follows_from(&held.span);
            }
        }
    }
    spans.into_values().collect()
}

/// The span in which the transaction runs.
fn first(spans: &[Span]) -> Span {
    spans.first().cloned().unwrap_or_else(Span::none)
}

fn rejoin(held: Vec<Held>, batches: Vec<ArchivedBatch>) -> Vec<Ready> {
    let join = |(held, archived)| Ready { held, archived };
    held.into_iter().zip(batches).map(join).collect()
}

async fn store(
    context: &Context,
    ids: &[InHandId],
    batches: &[ArchivedBatch],
) -> PortResult<Vec<StoreOutcome>> {
    let watch = &context.progress_watch;
    let store = || watch.observe(ids, context.backends.store.store(batches));
    let stored = retry_until_accepted(context.released(), store);
    let stored = AssertUnwindSafe(stored).catch_unwind().await;
    stored.unwrap_or_else(|panic| {
        let reason = panic_reason(panic.as_ref());
        Err(PortError::new(ErrorKind::Internal, "store.store", reason))
    })
}

/// Settles the deliveries of a group. Locked batches get another attempt later, and no other batch
/// waits for them.
async fn settle(context: &Arc<Context>, group: Vec<Ready>, outcomes: Vec<StoreOutcome>) {
    let (locked, others): (Vec<_>, Vec<_>) = group
        .into_iter()
        .zip(outcomes)
        .partition(|(_, outcome)| *outcome == StoreOutcome::Locked);
    if !locked.is_empty() {
        let batches = locked.into_iter().map(|(ready, _)| ready).collect();
        context
            .tasks
            .spawn(locked::return_later(Arc::clone(context), batches));
    }
    let counters = &context.metrics.batches;
    let settlements = others.into_iter().map(|(ready, outcome)| {
        let span = ready.held.span.clone();
        settle_one(ready, outcome, counters).instrument(span)
    });
    join_all(settlements).await;
}

/// Counts the stored batches, and checks whether their uploads are complete.
async fn report(
    context: &Context,
    ids: &[InHandId],
    held: &[Held],
    batches: &[ArchivedBatch],
    outcomes: &[StoreOutcome],
) {
    // A replay is counted too: the worker that stored it may have died before it counted. Counting
    // a batch twice changes nothing.
    let mut counted: BTreeMap<UploadKey, Vec<StoredBatch>> = BTreeMap::new();
    for (ArchivedBatch { batch, .. }, outcome) in batches.iter().zip(outcomes) {
        count(&context.metrics, *outcome, batch.row_count() as u32);
        if *outcome == StoreOutcome::Fenced {
            tracing::debug!(batch = %batch.id, "batch fenced: its upload has ended");
        }
        if let Some(rejected) = rejected_rows(*outcome) {
            counted
                .entry(batch.id.upload)
                .or_default()
                .push(StoredBatch {
                    seq: batch.id.seq,
                    rows: (batch.row_count() as u32).saturating_sub(rejected),
                    rejected,
                });
        }
    }
    log_rejected(&counted);
    let span_of = |upload: UploadKey| {
        let is_of = |archived: &ArchivedBatch| archived.batch.id.upload == upload;
        let first = batches.iter().position(is_of);
        first.map_or_else(Span::none, |first| held[first].span.clone())
    };
    let reports = counted.iter().map(|(upload, batches)| {
        let report = async {
            context.backends.progress.stored(*upload, batches).await;
            let check = context.completion_checks.request(upload.id);
            context.progress_watch.observe(ids, check).await;
        };
        report.instrument(span_of(*upload))
    });
    join_all(reports).await;
}

/// Counts a batch by its outcome. The outcomes that are missing here are counted when the batch is
/// settled.
fn count(metrics: &WorkerMetrics, outcome: StoreOutcome, rows: u32) {
    match outcome {
        StoreOutcome::Stored { rejected } => {
            metrics.batches.stored.increment(1);
            let stored = rows.saturating_sub(rejected);
            metrics.rows_stored.increment(u64::from(stored));
            metrics.rows_rejected.increment(u64::from(rejected));
        }
        StoreOutcome::Replay { .. } => metrics.batches.repeated.increment(1),
        StoreOutcome::Fenced => metrics.batches.discarded.increment(1),
        StoreOutcome::UnknownUpload | StoreOutcome::UnknownStatus | StoreOutcome::Locked => {}
    }
}

/// How many rows of a stored batch the table has rejected; `None` if the batch is not stored.
fn rejected_rows(outcome: StoreOutcome) -> Option<u32> {
    match outcome {
        StoreOutcome::Stored { rejected } | StoreOutcome::Replay { rejected } => Some(rejected),
        StoreOutcome::Fenced
        | StoreOutcome::UnknownUpload
        | StoreOutcome::UnknownStatus
        | StoreOutcome::Locked => None,
    }
}

fn log_rejected(counted: &BTreeMap<UploadKey, Vec<StoredBatch>>) {
    for (upload, batches) in counted {
        let rejected: u64 = batches.iter().map(|batch| u64::from(batch.rejected)).sum();
        if rejected > 0 {
            tracing::info!(
                upload.id = %upload.id,
                rejected,
                "rows violate a constraint of the dataset's table"
            );
        }
    }
}

async fn settle_one(ready: Ready, outcome: StoreOutcome, counters: &BatchCounters) {
    // The batch is in hand until it is settled.
    let Held {
        delivery,
        in_hand: _in_hand,
        ..
    } = ready.held;
    match outcome {
        StoreOutcome::Stored { .. } | StoreOutcome::Replay { .. } | StoreOutcome::Fenced => {
            if let Err(error) = delivery.ack().await {
                tracing::debug!(
                    error = error.chain(),
                    "a stored batch was not acknowledged; it will be redelivered as a replay"
                );
            }
        }
        StoreOutcome::UnknownUpload => postpone(delivery, &Wait::for_upload(), counters).await,
        StoreOutcome::UnknownStatus => postpone(delivery, &Wait::for_status(), counters).await,
        // `settle` has taken the locked batches out. A dropped delivery would return to the queue.
        StoreOutcome::Locked => {}
    }
}
