//! No zombies: whatever a crash left open is ended by some worker within a lease and a sweep.

use std::sync::Arc;

use carga_common::error::PortResult;
use carga_common::lifecycle::{finish_if_complete, remove_rows};
use carga_common::store::Leftovers;
use carga_common::upload::{Failure, UploadId};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::runner::Context;

/// Sweeps until the worker stops. Every worker does; all of it may be done twice.
pub(crate) async fn run(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(context.settings.sweep);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Removing millions of rows takes a while, and ending an upload must not wait for it.
    let mut removing: Option<JoinHandle<()>> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.stop.cancelled() => break,
        }
        let settings = &context.settings;
        let found = context
            .backends
            .store
            .leftovers(settings.lease, settings.archive_grace)
            .await;
        let mut found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = error.chain(), "the sweep could not look");
                continue;
            }
        };
        end(&context, &mut found).await;
        if removing.as_ref().is_none_or(JoinHandle::is_finished) {
            removing = Some(tokio::spawn(remove(Arc::clone(&context), found)));
        }
    }
    if let Some(removing) = removing {
        removing.abort();
    }
}

/// Ends what lacks only its end. What failed just now is to be removed as well.
async fn end(context: &Context, found: &mut Leftovers) {
    let store = context.backends.store.as_ref();
    let archive = context.backends.archive.as_ref();
    for key in found.expired.drain(..) {
        let message = format!(
            "the server that received the file has been silent for {} s; send the file again",
            context.settings.lease.as_secs()
        );
        let failed = store
            .fail(key, &Failure::new("interrupted", message), None)
            .await;
        noted(key.id, "ending an interrupted upload", failed);
        found.to_remove.push(key.id);
    }
    for id in found.unfinished.drain(..) {
        noted(
            id,
            "completing",
            finish_if_complete(store, archive, id).await,
        );
    }
}

async fn remove(context: Arc<Context>, found: Leftovers) {
    let store = context.backends.store.as_ref();
    for id in found.to_remove {
        noted(id, "removing rows", remove_rows(store, id).await);
    }
    for id in found.to_unarchive {
        let removed = async {
            context.backends.archive.delete_upload(id).await?;
            store.archive_removed(id).await
        };
        noted(id, "deleting a failed upload's archive", removed.await);
    }
}

/// One upload's trouble does not keep the sweeper from the next.
fn noted<T>(id: UploadId, what: &'static str, outcome: PortResult<T>) {
    match outcome {
        Ok(_) => tracing::debug!(upload.id = %id, what, "swept"),
        Err(error) => {
            tracing::warn!(upload.id = %id, what, error = error.chain(), "left to the next sweep");
        }
    }
}
