//! Starts the worker's parts, passes deliveries to them, and stops without losing a batch.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use carga_common::backends::Backends;
use carga_common::metrics::Exposition;
use carga_common::metrics::table::{
    WORKER_BATCHES_IN_HAND, WORKER_BYTES_IN_HAND, WORKER_PREFETCH_BATCHES, WORKER_PREFETCH_BYTES,
};
use carga_common::settings::Settings;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission_cache::AdmissionCache;
use crate::completion_checks::CompletionChecks;
use crate::context::Context;
use crate::foreign::ForeignWarning;
use crate::metrics::WorkerMetrics;
use crate::prepare::prepare;
use crate::ready::Ready;
use crate::room::Room;
use crate::store_contact::StoreContact;
use crate::subscription::{Source, Subscription};
use crate::watchdog::{Stuck, StuckLimits, Watchdog};
use crate::{dead_letters, group, relay, suspects, sweep, upkeep};

/// A connected worker that is not running yet.
#[derive(Debug)]
pub struct Runner {
    context: Arc<Context>,
    /// The batches that wait to be stored. Every batch in hand has room in this channel.
    ready: (mpsc::Sender<Ready>, mpsc::Receiver<Ready>),
    grace: Duration,
    stuck_limits: StuckLimits,
}

impl Runner {
    /// Cancelling `stop` makes [`run`](Self::run) finish its batches and return.
    pub fn new(settings: &Settings, backends: Backends, stop: CancellationToken) -> Self {
        let tasks = TaskTracker::new();
        let worker = settings.worker.clone();
        let ready = mpsc::channel(usize::from(worker.prefetch.batches));
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let context = Context {
            admission_cache: AdmissionCache::default(),
            completion_checks: CompletionChecks::new(backends.clone(), tasks.clone()),
            tasks,
            room: Room::new(worker.prefetch),
            ready: ready.0.downgrade(),
            store_contact: StoreContact::new(worker.lost),
            progress_watch: Arc::default(),
            foreign_warning: ForeignWarning::default(),
            metrics: WorkerMetrics::new(),
            archive_slots: Semaphore::new(worker.archive_concurrency),
            archive_bytes: Semaphore::new(worker.archive_bytes as usize),
            compression_slots: Semaphore::new(processors),
            settings: worker,
            backends,
            stop,
        };
        Self {
            context: Arc::new(context),
            ready,
            grace: settings.grace,
            stuck_limits: StuckLimits::default(),
        }
    }

    /// Shows the batches in hand, and the most of them, in `exposition`.
    pub fn watch(&self, exposition: &Exposition) {
        let prefetch = self.context.settings.prefetch;
        let most_batches = f64::from(prefetch.batches);
        WORKER_PREFETCH_BATCHES.gauge().set(most_batches);
        WORKER_PREFETCH_BYTES.gauge().set(prefetch.bytes as f64);
        let batches = WORKER_BATCHES_IN_HAND.gauge();
        let bytes = WORKER_BYTES_IN_HAND.gauge();
        let context = Arc::downgrade(&self.context);
        exposition.watch(move || {
            let in_use = context.upgrade().map(|context| context.room.in_use());
            let (in_hand, in_hand_bytes) = in_use.unwrap_or_default();
            batches.set(in_hand as f64);
            bytes.set(in_hand_bytes as f64);
        });
    }

    /// Replaces the limits after which the worker counts as stuck.
    #[must_use]
    pub fn with_stuck_limits(self, stuck_limits: StuckLimits) -> Self {
        Self {
            stuck_limits,
            ..self
        }
    }

    /// Works until `stop` is cancelled, then finishes the batches in hand within the grace period.
    ///
    /// Batches that are unfinished by then return to the queue when the connection closes, and so
    /// do prefetched ones that were never started.
    ///
    /// A stuck worker is only reported, because an API may be running in the same process.
    pub async fn run(self) {
        // A watchdog that only reports never ends the work.
        let _ = self.run_watched(false).await;
    }

    /// Like [`run`](Self::run), but also ends if the worker is stuck. The process must then end, so
    /// that its batches return to the queue and a supervisor can start a new worker.
    pub async fn run_unless_stuck(self) -> Result<(), Stuck> {
        self.run_watched(true).await
    }

    async fn run_watched(self, ends: bool) -> Result<(), Stuck> {
        let watchdog = Watchdog {
            watch: Arc::clone(&self.context.progress_watch),
            heartbeat_file: self.context.settings.heartbeat_file.clone(),
            limits: self.stuck_limits,
            ends,
            stop: self.context.stop.clone(),
        };
        tokio::select! {
            () = self.work() => Ok(()),
            stuck = watchdog.run() => Err(stuck),
        }
    }

    async fn work(self) {
        let Self {
            context,
            ready: (sender, receiver),
            grace,
            ..
        } = self;
        let tasks = &context.tasks;
        let sweeper = tokio::spawn(sweep::run(Arc::clone(&context)));
        let upkeep = tokio::spawn(upkeep::run(Arc::clone(&context)));
        let relay = tokio::spawn(relay::run(Arc::clone(&context)));
        let dead_letter_task = tokio::spawn(dead_letters::run(Arc::clone(&context)));
        // The suspects are consumed first. A suspect that waited for other batches would be counted
        // as unsettled if one of them ended the worker.
        let mut suspects = Subscription::new(Arc::clone(&context), Source::Suspects);
        suspects.start().await;
        let suspect_task = tokio::spawn(suspects::run(Arc::clone(&context), suspects));

        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..context.settings.store_sessions {
            tasks.spawn(group::store_groups(
                Arc::clone(&context),
                Arc::clone(&receiver),
            ));
        }
        prepare_deliveries(&context, sender).await;

        tasks.close();
        let in_hand = async {
            tasks.wait().await;
            // Each ends at its next check of `stop`.
            let _ = tokio::join!(sweeper, upkeep, relay, dead_letter_task, suspect_task);
        };
        if tokio::time::timeout(grace, in_hand).await.is_err() {
            tracing::warn!("the grace period is over; unfinished batches return to the queue");
            // A running merge keeps its connection, so the store could not be closed.
            context.completion_checks.abandon();
        }
    }
}

/// Starts a task for each delivery, as far as there is room. The storing tasks end when the last
/// sender is dropped.
async fn prepare_deliveries(context: &Arc<Context>, sender: mpsc::Sender<Ready>) {
    let mut batches = Subscription::new(Arc::clone(context), Source::Batches);
    while let Some((delivery, mut in_hand)) = batches.next_in_hand().await {
        let permits = tokio::select! {
            permits = in_hand.wait_for(context.room.for_one(delivery.body.len())) => permits,
            // The dropped delivery returns to the queue.
            () = context.released() => continue,
        };
        let Some(permits) = permits else { return };
        in_hand.admit(permits);
        let (preparing, sender) = (Arc::clone(context), sender.clone());
        context.tasks.spawn(async move {
            if let Some(ready) = prepare(preparing, delivery, in_hand).await {
                // Fails only when the storing tasks have ended; the dropped delivery returns.
                let _ = sender.send(ready).await;
            }
        });
    }
}
