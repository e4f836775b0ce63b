//! One batch from its delivery into the archive. It is not stored yet.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use carga_common::archive::{ArchiveKey, batch_object};
use carga_common::batch::Batch;
use carga_common::error::{ErrorKind, PortError};
use carga_common::queue::Delivery;
use carga_common::retry::retry_until_accepted;
use carga_common::store::ArchivedBatch;
use futures::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use crate::outcome::settle_failed;
use crate::runner::Context;

/// A delivery whose batch is in the archive and waits to be stored.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) delivery: Delivery,
    /// One of as many permits as the prefetch: what is in hand stays bounded when a broken connection brings a new prefetch.
    pub(crate) in_hand: OwnedSemaphorePermit,
    pub(crate) archived: ArchivedBatch,
}

enum Prepared {
    Archived(ArchivedBatch),
    /// Its upload has ended: there is nothing to do for it.
    Pointless,
}

/// Prepares a delivery, or settles it. A panic is a fault of this batch alone.
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
        span.in_scope(|| tracing::info!(redelivered = true, "a batch comes again"));
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
        Ok(Ok(Prepared::Pointless)) => {
            if let Err(error) = delivery.ack().await {
                tracing::debug!(error = error.chain(), "a discarded batch will come again");
            }
            return None;
        }
        // The worker stops while a server is away or full: the delivery is dropped and goes back.
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

    // Not the fence, which is in the transaction; this only keeps a failed upload's objects out of the archive.
    let stopped = || context.stop.cancelled();
    let admits = || context.admissions.admits(backends.store.as_ref(), batch.id);
    if !retry_until_accepted(stopped(), admits).await? {
        return Ok(Prepared::Pointless);
    }
    // Before the object is made: it is larger than its message. A closed semaphore would mean no limit, which is no reason to stop.
    let _slot = context.archive_slots.acquire().await.ok();
    let key = ArchiveKey::batch(batch.id);
    let object = batch_object(&batch);
    let (archive_bytes, archive_crc32) = (object.len() as u64, crc32fast::hash(&object));
    let mut waited = false;
    let put = retry_until_accepted(stopped(), || {
        let again = std::mem::replace(&mut waited, true);
        let (object, key) = (object.clone(), &key);
        async move {
            // Whoever has waited looks again: an upload that has failed meanwhile needs no room.
            if again && !backends.store.admits(batch.id).await? {
                return Ok(false);
            }
            backends.archive.put(key, object).await.map(|()| true)
        }
    });
    if !put.await? {
        return Ok(Prepared::Pointless);
    }
    tracing::debug!(rows = batch.row_count(), bytes = archive_bytes, "archived");
    Ok(Prepared::Archived(ArchivedBatch {
        batch,
        archive_bytes,
        archive_crc32,
    }))
}

/// What a panic said.
pub(crate) fn panic_reason(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!(
        "the worker panicked: {}",
        text.unwrap_or("without a message")
    )
}
