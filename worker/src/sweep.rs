//! The sweeper: ends what a crash left open. An upload whose API has died ends within one lease
//! plus about two sweep intervals, because two sweeps must find its lease expired.

use std::sync::Arc;

use carga_common::error::PortResult;
use carga_common::lifecycle::{finish_if_complete, remove_rows};
use carga_common::store::Leftovers;
use carga_common::upload::{UploadId, UploadKey};
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::expiry::Expiry;

/// Sweeps until the worker stops. Every worker sweeps, because each step may safely run twice.
pub(crate) async fn run(context: Arc<Context>) {
    let mut expiry = Expiry::default();
    // Removing millions of rows takes minutes, and ending an upload must not wait for that.
    let mut removing: Option<JoinHandle<()>> = None;
    loop {
        let leftovers = sweep(&context, &mut expiry).await;
        if let Some(leftovers) = leftovers
            && removing.as_ref().is_none_or(JoinHandle::is_finished)
        {
            removing = Some(tokio::spawn(remove(Arc::clone(&context), leftovers)));
        }
        // The pause begins after the sweep. APIs can then renew their leases between two sweeps,
        // even if the first sweep had to wait for the store.
        tokio::select! {
            () = tokio::time::sleep(context.settings.sweep) => {}
            () = context.stop.cancelled() => break,
        }
    }
    if let Some(removing) = removing {
        removing.abort();
    }
}

/// Ends what can be ended, and returns what is to be removed. Returns `None` if the leftovers could
/// not be read.
async fn sweep(context: &Context, expiry: &mut Expiry) -> Option<Leftovers> {
    let settings = &context.settings;
    let store = context.backends.store.as_ref();
    let leftovers = store.leftovers(settings.lease, settings.archive_grace);
    match leftovers.await {
        Ok(mut leftovers) => {
            let expired = expiry.found_twice(std::mem::take(&mut leftovers.expired));
            end(context, expired, &mut leftovers).await;
            Some(leftovers)
        }
        Err(error) => {
            expiry.sweep_failed();
            tracing::warn!(
                error = error.chain(),
                "the sweep could not read the leftovers from the store"
            );
            None
        }
    }
}

/// Fails the expired uploads and completes the sealed ones. The rows of the failed ones are added
/// to those that are to be removed.
async fn end(context: &Context, expired: Vec<UploadKey>, leftovers: &mut Leftovers) {
    let store = context.backends.store.as_ref();
    let archive = context.backends.archive.as_ref();
    for key in expired {
        let outcome = store.expire(key, context.settings.lease).await;
        if matches!(outcome, Ok(true)) {
            leftovers.to_remove.push(key.id);
        }
        log_outcome(key.id, "ending an interrupted upload", outcome);
    }
    for id in leftovers.unfinished.drain(..) {
        log_outcome(
            id,
            "completing",
            finish_if_complete(store, archive, id).await,
        );
    }
}

async fn remove(context: Arc<Context>, leftovers: Leftovers) {
    let store = context.backends.store.as_ref();
    for id in leftovers.to_remove {
        log_outcome(id, "removing rows", remove_rows(store, id).await);
    }
    for id in leftovers.to_unarchive {
        let removed = async {
            context.backends.archive.delete_upload(id).await?;
            store.archive_removed(id).await
        };
        log_outcome(id, "deleting a failed upload's archive", removed.await);
    }
}

/// Logs an outcome. An error of one upload must not keep the sweeper from the next one.
fn log_outcome<T>(id: UploadId, what: &'static str, outcome: PortResult<T>) {
    match outcome {
        Ok(_) => tracing::debug!(upload.id = %id, what, "swept"),
        Err(error) => {
            tracing::warn!(
                upload.id = %id,
                what,
                error = error.chain(),
                "a step of the sweep failed; the next sweep repeats it"
            );
        }
    }
}
