//! The sweeper: ends what a crash left open. An upload whose API has died ends within one lease
//! plus about two sweep intervals, because several sweeps must find its lease expired.

use std::sync::Arc;

use carga_common::backends::Backends;
use carga_common::error::PortResult;
use carga_common::lifecycle::{finish_if_complete, remove_rows};
use carga_common::metrics::uploads::record_end;
use carga_common::replay::replay;
use carga_common::store::Leftovers;
use carga_common::upload::{Status, UploadId, UploadKey};
use futures::StreamExt;
use futures::stream;
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::expiry::Expiry;
use crate::lost::{LostBatches, hold};
use crate::panics::survive;

/// How many uploads are completed at the same time. A server that does not answer holds up each of
/// them for up to a minute.
const CONCURRENT_COMPLETIONS: usize = 4;

/// Sweeps until the worker stops. Every worker sweeps, because each step may safely run twice.
pub(crate) async fn run(context: Arc<Context>) {
    let mut expiry = Expiry::default();
    let mut lost = LostBatches::default();
    let mut background = Background::default();
    loop {
        // This comes first, because other workers rely on it and a sweep may take long.
        let held = survive("recording the batches in hand", hold(&context)).await;
        match held {
            Some(true) => context.store_contact.succeeded(),
            Some(false) | None => context.store_contact.failed(),
        }
        let leftovers = survive("sweeping", sweep(&context, &mut expiry)).await;
        let leftovers = leftovers.flatten();
        if held != Some(true) || leftovers.is_none() {
            lost.sweep_failed();
        }
        match leftovers {
            Some(leftovers) => {
                context.metrics.sweeps.succeeded();
                let has_unfinished = !leftovers.unfinished.is_empty();
                background.start(&context, leftovers);
                if held == Some(true) {
                    let check = lost.check(&context, has_unfinished);
                    survive("looking for lost batches", check).await;
                }
            }
            None => {
                context.metrics.sweeps.failed.increment(1);
                expiry.sweep_failed();
            }
        }
        // The pause begins after the sweep. APIs can then renew their leases between two sweeps,
        // even if the first sweep had to wait for the store.
        tokio::select! {
            () = tokio::time::sleep(context.settings.sweep) => {}
            () = context.stop.cancelled() => break,
        }
    }
    background.abort().await;
}

/// Work that takes minutes when there are millions of rows or when a server does not answer. Ending
/// expired uploads must not wait for it.
#[derive(Debug, Default)]
struct Background {
    completing: Option<JoinHandle<()>>,
    removing: Option<JoinHandle<()>>,
    replaying: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts each kind of work unless it still runs. Its leftovers then wait for a later sweep.
    fn start(&mut self, context: &Arc<Context>, leftovers: Leftovers) {
        let Leftovers {
            unfinished,
            to_remove,
            to_unarchive,
            ..
        } = leftovers;
        let complete = complete(Arc::clone(context), unfinished);
        start_unless_running(&mut self.completing, complete);
        let remove = remove(Arc::clone(context), to_remove, to_unarchive);
        start_unless_running(&mut self.removing, remove);
        start_unless_running(&mut self.replaying, republish(Arc::clone(context)));
    }

    /// Aborts the work, and waits until it has ended.
    async fn abort(self) {
        let tasks = [self.completing, self.removing, self.replaying];
        for task in tasks.into_iter().flatten() {
            task.abort();
            // An aborted task ends with an error.
            let _ = task.await;
        }
    }
}

fn start_unless_running(
    task: &mut Option<JoinHandle<()>>,
    work: impl Future<Output = ()> + Send + 'static,
) {
    if task.as_ref().is_none_or(JoinHandle::is_finished) {
        *task = Some(tokio::spawn(work));
    }
}

/// Fails the expired uploads, and returns the other leftovers. Returns `None` if the leftovers
/// could not be read.
async fn sweep(context: &Context, expiry: &mut Expiry) -> Option<Leftovers> {
    let settings = &context.settings;
    let store = context.backends.store.as_ref();
    let leftovers = store.leftovers(settings.lease, settings.archive_grace);
    match leftovers.await {
        Ok(mut leftovers) => {
            let expired = expiry.confirmed(std::mem::take(&mut leftovers.expired));
            end(context, expired, &mut leftovers).await;
            Some(leftovers)
        }
        Err(error) => {
            tracing::warn!(
                error = error.chain(),
                "the sweep could not read the leftovers from the store"
            );
            None
        }
    }
}

/// Fails the expired uploads, and adds their ids to `to_remove`, so that their rows are removed.
async fn end(context: &Context, expired: Vec<UploadKey>, leftovers: &mut Leftovers) {
    let store = context.backends.store.as_ref();
    for key in expired {
        let outcome = store.expire(key, context.settings.lease).await;
        if matches!(outcome, Ok(true)) {
            context.metrics.maintenance.interrupted.increment(1);
            record_end(store, key.id, Status::Failed).await;
            leftovers.to_remove.push(key.id);
        }
        log_outcome(key.id, "ending an interrupted upload", outcome);
    }
}

async fn complete(context: Arc<Context>, unfinished: Vec<UploadId>) {
    let completed = &context.metrics.maintenance.completed;
    let completions = stream::iter(unfinished).for_each_concurrent(CONCURRENT_COMPLETIONS, |id| {
        let Backends { store, archive, .. } = context.backends.clone();
        async move {
            let finish = finish_if_complete(store.as_ref(), archive.as_ref(), id);
            if let Some(outcome) = survive("completing an upload", finish).await {
                if matches!(outcome, Ok(true)) {
                    completed.increment(1);
                }
                log_outcome(id, "completing", outcome);
            }
        }
    });
    completions.await;
}

/// Publishes the dead letters that were retried. The API does this at once, but it may have
/// stopped.
async fn republish(context: Arc<Context>) {
    match survive("publishing dead letters", replay(&context.backends)).await {
        None | Some(Ok(_)) => {}
        Some(Err(error)) => tracing::warn!(
            error = error.chain(),
            "could not publish the dead letters that were retried; a later sweep tries again"
        ),
    }
}

async fn remove(context: Arc<Context>, to_remove: Vec<UploadId>, to_unarchive: Vec<UploadId>) {
    let store = context.backends.store.as_ref();
    let counters = &context.metrics.maintenance;
    for id in to_remove {
        if let Some(outcome) = survive("removing rows", remove_rows(store, id)).await {
            counters.rows_removed.increment(u64::from(outcome.is_ok()));
            log_outcome(id, "removing rows", outcome);
        }
    }
    for id in to_unarchive {
        let removed = async {
            context.backends.archive.delete_upload(id).await?;
            store.archive_removed(id).await
        };
        if let Some(outcome) = survive("deleting an archive", removed).await {
            let deleted = u64::from(outcome.is_ok());
            counters.archive_deleted.increment(deleted);
            log_outcome(id, "deleting an archive", outcome);
        }
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
