//! Archives the batch of one delivery; `group` stores it afterwards.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use carga_common::archive::{ArchiveKey, batch_object, batch_object_bytes};
use carga_common::batch::Batch;
use carga_common::error::{ErrorKind, PortError};
use carga_common::queue::Delivery;
use carga_common::retry::retry_until_accepted;
use carga_common::store::ArchivedBatch;
use futures::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use crate::context::Context;
use crate::outcome::settle_failed;
use crate::panics::panic_reason;

/// A delivery whose batch is in the archive and waits to be stored.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) delivery: Delivery,
    /// Bounds the batches in hand by the prefetch, even when a reconnect brings a further prefetch.
    pub(crate) in_hand: OwnedSemaphorePermit,
    pub(crate) archived: ArchivedBatch,
}

enum Prepared {
    Archived(ArchivedBatch),
    /// The upload has ended, so its batch is not needed.
    Discarded,
}

/// Archives the batch of a delivery. Returns none when the batch failed or was discarded; its
/// delivery has then been settled or dropped.
///
/// A panic counts as a failed attempt of this batch and does not stop the worker.
pub(crate) async fn prepare(
    context: Arc<Context>,
    delivery: Delivery,
    in_hand: OwnedSemaphorePermit,
) -> Option<Ready> {
    let span = tracing::info_span!(
        "batch",
        batch = delivery.id.map(tracing::field::display),
        attempt = delivery.attempt,
        trace = tracing::field::Empty,
    );
    if delivery.redelivered {
        span.in_scope(|| tracing::info!(redelivered = true, "a batch was redelivered"));
    }
    let body = delivery.body.clone();
    let archive = archive(&context, body).instrument(span.clone());
    let prepared = AssertUnwindSafe(archive).catch_unwind().await;
    let (kind, reason) = match prepared {
        Ok(Ok(Prepared::Archived(archived))) => {
            return Some(Ready {
                delivery,
                in_hand,
                archived,
            });
        }
        Ok(Ok(Prepared::Discarded)) => {
            if let Err(error) = delivery.ack().await {
                tracing::debug!(
                    error = error.chain(),
                    "a discarded batch was not acknowledged; it will be redelivered"
                );
            }
            return None;
        }
        // The worker stops while a server is away or full. A dropped delivery returns to the queue.
        Ok(Err(error)) if error.is_passing() => return None,
        Ok(Err(error)) => (error.kind(), error.chain()),
        Err(panic) => (ErrorKind::Internal, panic_reason(panic.as_ref())),
    };
    settle_failed(delivery, kind, &reason)
        .instrument(span)
        .await;
    None
}

async fn archive(context: &Context, body: bytes::Bytes) -> Result<Prepared, PortError> {
    let batch = Batch::decode(body).map_err(|error| PortError::invalid("batch.decode", error))?;
    tracing::Span::current().record("trace", batch.trace.as_str());
    let backends = &context.backends;

    // This only keeps a failed upload's objects out of the archive; the store's fence decides.
    let stopped = || context.stop.cancelled();
    let admits = || {
        context
            .admission_cache
            .admits(backends.store.as_ref(), batch.id)
    };
    if !retry_until_accepted(stopped(), admits).await? {
        return Ok(Prepared::Discarded);
    }
    // Acquired before the object is encoded, because the object is larger than its message. The
    // semaphores are never closed; without a permit only the limit would be missing.
    let _slot = context.archive_slots.acquire().await.ok();
    let bytes = u32::try_from(batch_object_bytes(&batch)).unwrap_or(u32::MAX);
    let bytes = bytes.min(context.settings.archive_bytes);
    let _bytes = context.archive_bytes.acquire_many(bytes).await.ok();
    let key = ArchiveKey::batch(batch.id);
    let object = batch_object(&batch);
    let (archive_bytes, archive_crc32) = (object.len() as u64, crc32fast::hash(&object));
    let mut has_waited = false;
    let put = retry_until_accepted(stopped(), || {
        let is_retry = std::mem::replace(&mut has_waited, true);
        let (object, key) = (object.clone(), &key);
        async move {
            // The upload may have failed during the wait, and then its batch needs no room.
            if is_retry && !backends.store.admits(batch.id).await? {
                return Ok(false);
            }
            backends.archive.put(key, object).await.map(|()| true)
        }
    });
    if !put.await? {
        return Ok(Prepared::Discarded);
    }
    tracing::debug!(rows = batch.row_count(), bytes = archive_bytes, "archived");
    Ok(Prepared::Archived(ArchivedBatch {
        batch,
        archive_bytes,
        archive_crc32,
    }))
}
