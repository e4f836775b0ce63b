//! The sweeper: ends what a crash left open, within one lease plus one sweep interval.

use std::sync::Arc;

use carga_common::error::PortResult;
use carga_common::lifecycle::{finish_if_complete, remove_rows};
use carga_common::store::Leftovers;
use carga_common::upload::{Failure, UploadId};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::context::Context;

/// Sweeps until the worker stops. Every worker sweeps, because each step may safely run twice.
pub(crate) async fn run(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(context.settings.sweep);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Removing millions of rows takes minutes, and ending an upload must not wait for that.
    let mut removing: Option<JoinHandle<()>> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.stop.cancelled() => break,
        }
        let settings = &context.settings;
        let leftovers = context
            .backends
            .store
            .leftovers(settings.lease, settings.archive_grace)
            .await;
        let mut leftovers = match leftovers {
            Ok(leftovers) => leftovers,
            Err(error) => {
                tracing::warn!(
                    error = error.chain(),
                    "the sweep could not read the leftovers from the store"
                );
                continue;
            }
        };
        end(&context, &mut leftovers).await;
        if removing.as_ref().is_none_or(JoinHandle::is_finished) {
            removing = Some(tokio::spawn(remove(Arc::clone(&context), leftovers)));
        }
    }
    if let Some(removing) = removing {
        removing.abort();
    }
}

/// Fails the uploads whose lease has expired and completes the sealed ones. The rows of the failed
/// ones are added to those that are to be removed.
async fn end(context: &Context, leftovers: &mut Leftovers) {
    let store = context.backends.store.as_ref();
    let archive = context.backends.archive.as_ref();
    for key in leftovers.expired.drain(..) {
        let message = format!(
            "the server that received the file has been silent for {} s; send the file again",
            context.settings.lease.as_secs()
        );
        let outcome = store
            .fail(key, &Failure::new("interrupted", message), None)
            .await;
        log_outcome(key.id, "ending an interrupted upload", outcome);
        leftovers.to_remove.push(key.id);
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
