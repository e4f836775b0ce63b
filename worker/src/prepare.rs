//! Archives the batch of one delivery; `group` stores it afterwards.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use carga_common::archive::{
    ArchiveCompression, ArchiveKey, BatchObject, PUT_ATTEMPTS, attempt_timeout, batch_object_bytes,
};
use carga_common::batch::{Batch, BatchId, DecodeError, trace_of};
use carga_common::error::{ErrorKind, PortError, PortResult};
use carga_common::queue::Delivery;
use carga_common::retry::retry_until_accepted;
use carga_common::store::ArchivedBatch;
use carga_common::telemetry::{TraceContext, continue_trace};
use futures::FutureExt;
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

use crate::context::Context;
use crate::metrics::BatchCounters;
use crate::outcome::{Wait, postpone, postpone_without_limit, settle_failed};
use crate::panics::panic_reason;
use crate::progress_watch::InHand;
use crate::ready::{Held, Ready};

enum Prepared {
    Archived(ArchivedBatch),
    /// The upload has ended, so its batch is not needed.
    Discarded,
    /// Another worker may be able to read the message.
    Postponed(Wait),
}

/// Archives the batch of a delivery. Returns `None` if the batch failed, was postponed or was
/// discarded; its delivery is then settled. Also returns `None` if the worker must release its
/// batches while a server is away or full; the delivery is then dropped, which returns it to the
/// queue.
///
/// A panic counts as a failed attempt of this batch and does not stop the worker.
pub(crate) async fn prepare(
    context: Arc<Context>,
    delivery: Delivery,
    in_hand: InHand,
) -> Option<Ready> {
    if delivery.is_foreign {
        context.foreign_warning.warn();
        let counters = &context.metrics.batches;
        postpone_without_limit(delivery, "another installation has its upload", counters).await;
        return None;
    }
    let span = batch_span(&delivery);
    if delivery.redelivered {
        span.in_scope(|| tracing::info!(redelivered = true, "a batch was redelivered"));
    }
    let archive = archive(&context, &in_hand, delivery.body.clone()).instrument(span.clone());
    let prepared = AssertUnwindSafe(archive).catch_unwind().await;
    let prepared = prepared.unwrap_or_else(|panic| {
        let reason = panic_reason(panic.as_ref());
        Err(PortError::new(
            ErrorKind::Internal,
            "worker.prepare",
            reason,
        ))
    });
    match prepared {
        Ok(Prepared::Archived(archived)) => {
            in_hand.set_waiting(true);
            let held = Held {
                delivery,
                in_hand,
                span,
                locked: None,
            };
            return Some(Ready { held, archived });
        }
        other => {
            let counters = &context.metrics.batches;
            let settled = settle_unprepared(delivery, other, counters);
            settled.instrument(span).await;
        }
    }
    None
}

/// The span of a batch: a child of the span that sent it.
fn batch_span(delivery: &Delivery) -> Span {
    let span = tracing::info_span!(
        "batch",
        upload.id = delivery.id.map(|id| field::display(id.upload.id)),
        batch.seq = delivery.id.map(|id| id.seq),
        attempt = delivery.attempt,
        trace.id = field::Empty,
        rows = field::Empty,
        bytes = delivery.body.len(),
    );
    if !span.is_disabled() {
        continue_trace(
            &span,
            trace_of(&delivery.body).and_then(TraceContext::parse),
        );
    }
    span
}

/// Settles or drops a delivery whose batch will not be stored now.
async fn settle_unprepared(
    delivery: Delivery,
    prepared: PortResult<Prepared>,
    counters: &BatchCounters,
) {
    match prepared {
        // `prepare` has returned an archived batch already.
        Ok(Prepared::Archived(_)) => {}
        Ok(Prepared::Discarded) => {
            counters.discarded.increment(1);
            if let Err(error) = delivery.ack().await {
                tracing::debug!(
                    error = error.chain(),
                    "a discarded batch was not acknowledged; it will be redelivered"
                );
            }
        }
        Ok(Prepared::Postponed(wait)) => postpone(delivery, &wait, counters).await,
        // The worker releases its batches while a server is away or full. A dropped delivery
        // returns to the queue.
        Err(error) if error.is_passing() => {}
        Err(error) => settle_failed(delivery, error.kind(), &error.chain(), counters).await,
    }
}

async fn archive(context: &Context, in_hand: &InHand, body: Bytes) -> PortResult<Prepared> {
    let batch = match Batch::decode(body) {
        Ok(batch) => batch,
        // During an upgrade, workers of the other build read these messages.
        Err(error @ DecodeError::UnknownVersion(_)) => {
            return Ok(Prepared::Postponed(Wait::for_version(&error)));
        }
        Err(error) => return Err(PortError::invalid("batch.decode", error)),
    };
    Span::current().record("rows", batch.row_count());

    // This only keeps a failed upload's objects out of the archive; the store's fence decides.
    let store = context.backends.store.as_ref();
    let admits = || in_hand.observe(context.admission_cache.admits(store, batch.id));
    if !retry_until_accepted(context.released(), admits).await? {
        return Ok(Prepared::Discarded);
    }
    // Acquired before the object is encoded, because the object is larger than its message. The
    // size of a compressed object is not known yet, so the larger size without compression counts.
    // The semaphores are never closed; without a permit only the limit would be missing.
    let _slot = in_hand.wait_for(context.archive_slots.acquire()).await.ok();
    let bytes = u32::try_from(batch_object_bytes(&batch)).unwrap_or(u32::MAX);
    let bytes = bytes.min(context.settings.archive_bytes);
    let room = context.archive_bytes.acquire_many(bytes);
    let _bytes = in_hand.wait_for(room).await.ok();
    let (batch, object) = encode(context, in_hand, batch).await?;
    let BatchObject {
        body,
        uncompressed_bytes,
    } = object;
    let (archive_bytes, archive_crc32) = (body.len() as u64, crc32fast::hash(&body));
    let started = Instant::now();
    if !put(context, in_hand, batch.id, body).await? {
        return Ok(Prepared::Discarded);
    }
    context.metrics.archived(archive_bytes, started.elapsed());
    tracing::debug!(rows = batch.row_count(), bytes = archive_bytes, "archived");
    Ok(Prepared::Archived(ArchivedBatch {
        batch,
        archive_compression: context.settings.archive_compression,
        archive_bytes,
        archive_crc32,
        object_bytes: uncompressed_bytes,
    }))
}

/// Makes the object of a batch. Without compression, this takes no longer than decoding the batch.
/// Compression takes many times longer, up to tenths of a second, so it runs on a thread for
/// blocking calls: on a thread of the runtime, it would delay other batches and the sweeps.
async fn encode(
    context: &Context,
    in_hand: &InHand,
    batch: Batch,
) -> PortResult<(Batch, BatchObject)> {
    const OPERATION: &str = "batch.compress";
    let compression = context.settings.archive_compression;
    let encode = move || BatchObject::encode(&batch, compression).map(|object| (batch, object));
    let encoded = match compression {
        ArchiveCompression::None => encode(),
        ArchiveCompression::Gzip | ArchiveCompression::Zstd => {
            let slot = context.compression_slots.acquire();
            let _slot = in_hand.wait_for(slot).await.ok();
            tokio::task::spawn_blocking(encode)
                .await
                .map_err(|panic| PortError::new(ErrorKind::Internal, OPERATION, panic))?
        }
    };
    encoded.map_err(|error| PortError::new(ErrorKind::Internal, OPERATION, error))
}

/// Writes the object of a batch. Returns false if the upload failed while the archive was away.
async fn put(context: &Context, in_hand: &InHand, id: BatchId, object: Bytes) -> PortResult<bool> {
    let backends = &context.backends;
    let key = ArchiveKey::batch(id, context.settings.archive_compression);
    // An archive that does not answer ends the write after this time.
    let limit = PUT_ATTEMPTS * attempt_timeout(object.len());
    let mut has_waited = false;
    let put = || {
        let is_retry = std::mem::replace(&mut has_waited, true);
        let (object, key) = (object.clone(), &key);
        let attempt = async move {
            // The upload may have failed during the wait, and then its batch needs no room.
            if is_retry && !backends.store.admits(id).await? {
                return PortResult::Ok(false);
            }
            backends.archive.put(key, object).await.map(|()| true)
        };
        in_hand.observe_slow(limit, attempt)
    };
    retry_until_accepted(context.released(), put).await
}
