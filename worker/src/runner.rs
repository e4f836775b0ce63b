//! Starts the worker's parts, passes deliveries to them, and stops without losing a batch.

use std::sync::Arc;
use std::time::Duration;

use carga_common::backends::Backends;
use carga_common::settings::Settings;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission_cache::AdmissionCache;
use crate::completion_checks::CompletionChecks;
use crate::context::Context;
use crate::prepare::{Ready, prepare};
use crate::subscription::{Source, Subscription};
use crate::{dead_letters, group, heartbeat, sweep};

/// A connected worker that is not running yet.
#[derive(Debug)]
pub struct Runner {
    context: Arc<Context>,
    /// Batches in hand and delayed completion checks.
    tasks: TaskTracker,
    grace: Duration,
}

impl Runner {
    /// Cancelling `stop` makes [`run`](Self::run) finish its batches and return.
    pub fn new(settings: &Settings, backends: Backends, stop: CancellationToken) -> Self {
        let tasks = TaskTracker::new();
        let worker = settings.worker.clone();
        let context = Context {
            admission_cache: AdmissionCache::default(),
            completion_checks: CompletionChecks::new(backends.clone(), tasks.clone()),
            in_hand: Arc::new(Semaphore::new(usize::from(worker.prefetch.batches))),
            archive_slots: Semaphore::new(worker.archive_concurrency),
            archive_bytes: Semaphore::new(worker.archive_bytes as usize),
            settings: worker,
            backends,
            stop,
        };
        Self {
            context: Arc::new(context),
            tasks,
            grace: settings.grace,
        }
    }

    /// Works until `stop` is cancelled, then finishes the batches in hand within the grace period.
    ///
    /// Batches that are unfinished by then return to the queue when the connection closes, and so
    /// do prefetched ones that were never started.
    pub async fn run(self) {
        let Self {
            context,
            tasks,
            grace,
        } = self;
        let heartbeat_file = context.settings.heartbeat_file.clone();
        let heartbeat = heartbeat_file.map(|file| tokio::spawn(heartbeat::beat_forever(file)));
        let sweeper = tokio::spawn(sweep::run(Arc::clone(&context)));
        let dead_letter_task = tokio::spawn(dead_letters::run(Arc::clone(&context)));

        let (sender, receiver) = mpsc::channel(usize::from(context.settings.prefetch.batches));
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..context.settings.store_sessions {
            tasks.spawn(group::store_groups(
                Arc::clone(&context),
                Arc::clone(&receiver),
            ));
        }
        prepare_deliveries(&context, &tasks, sender).await;

        tasks.close();
        let in_hand = async {
            tasks.wait().await;
            // Both end at their next check of `stop`.
            let _ = tokio::join!(sweeper, dead_letter_task);
        };
        if tokio::time::timeout(grace, in_hand).await.is_err() {
            tracing::warn!("the grace period is over; unfinished batches return to the queue");
        }
        if let Some(heartbeat) = heartbeat {
            heartbeat.abort();
        }
    }
}

/// Starts a task for each delivery, as far as the permits allow. The storing tasks end when the
/// last sender is dropped.
async fn prepare_deliveries(
    context: &Arc<Context>,
    tasks: &TaskTracker,
    sender: mpsc::Sender<Ready>,
) {
    let mut batches = Subscription::new(Arc::clone(context), Source::Batches);
    while let Some(delivery) = batches.next().await {
        let permit = tokio::select! {
            permit = Arc::clone(&context.in_hand).acquire_owned() => permit,
            () = context.stop.cancelled() => return,
        };
        let Ok(in_hand) = permit else { return };
        let (context, sender) = (Arc::clone(context), sender.clone());
        tasks.spawn(async move {
            if let Some(ready) = prepare(context, delivery, in_hand).await {
                // Fails only when the storing tasks have ended; the dropped delivery returns.
                let _ = sender.send(ready).await;
            }
        });
    }
}
