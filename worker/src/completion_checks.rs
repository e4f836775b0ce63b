//! Checks whether an upload is complete, at a limited rate.
//!
//! A check counts the ledger, so one check per group would be quadratic in the number of batches.
//! The pause before an upload's next check is therefore a multiple of its last check's duration.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carga_common::backends::Backends;
use carga_common::lifecycle::finish_if_complete;
use carga_common::sync::lock;
use carga_common::upload::UploadId;
use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::metrics::CheckCounters;
use crate::panics::panic_reason;

/// The pause between two checks of an upload by one worker, in durations of the last check.
const PAUSE_FACTOR: u32 = 20;
const MIN_PAUSE: Duration = Duration::from_millis(5);
/// Bounds how long a slow store delays the completion of an upload.
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// How long a caller waits for a check. The check of an upload whose rows are merged at the end may
/// take minutes, and the batches of other uploads must not wait for it.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Idle uploads whose pause is over are removed once this many are tracked. A further check of a
/// removed upload is harmless.
const EVICTION_THRESHOLD: usize = 1_000;

/// The completion checks of one worker process.
#[derive(Debug, Clone)]
pub(crate) struct CompletionChecks {
    backends: Backends,
    /// Running and delayed checks, which a stopping worker waits for.
    tasks: TaskTracker,
    /// Cancelled when the grace period of a stopping worker is over.
    abandoned: CancellationToken,
    schedules: Arc<Mutex<HashMap<UploadId, Schedule>>>,
    counters: CheckCounters,
}

impl CompletionChecks {
    pub(crate) fn new(backends: Backends, tasks: TaskTracker) -> Self {
        Self {
            backends,
            tasks,
            abandoned: CancellationToken::new(),
            schedules: Arc::default(),
            counters: CheckCounters::new(),
        }
    }

    /// Requests a check; call it after a commit and before the acknowledgement.
    ///
    /// This returns after the check, or after [`LONGEST_WAIT`] while the check goes on. If another
    /// check is running or has just ended, this returns at once, and a delayed check follows. If
    /// the worker dies first, the sweeper makes the check.
    pub(crate) async fn request(&self, upload: UploadId) {
        match self.schedule(upload) {
            Decision::Covered => {}
            Decision::At(due) => {
                self.spawn(upload, self.clone().check_at(due, upload));
            }
            Decision::Now => {
                let checking = self.spawn(upload, self.clone().check_now(upload));
                // A check that takes longer goes on without the caller.
                let _ = timeout(LONGEST_WAIT, checking).await;
            }
        }
    }

    /// Ends all checks. A merge in one of them is taken back, and the next check of its upload
    /// merges again.
    pub(crate) fn abandon(&self) {
        self.abandoned.cancel();
    }

    fn spawn(
        &self,
        upload: UploadId,
        check: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        // A span of its own, because the batch is settled before a delayed check.
        let span = tracing::info_span!("completion", upload.id = %upload);
        let abandoned = self.abandoned.clone();
        let check = async move {
            // An abandoned check needs no cleaning up.
            let _ = abandoned.run_until_cancelled(check).await;
        };
        self.tasks.spawn(check.instrument(span))
    }

    async fn check_now(self, upload: UploadId) {
        if let Some(due) = self.check(upload).await {
            self.spawn(upload, self.clone().check_at(due, upload));
        }
    }

    fn schedule(&self, upload: UploadId) -> Decision {
        let now = Instant::now();
        let mut schedules = lock(&self.schedules);
        if schedules.len() >= EVICTION_THRESHOLD {
            schedules.retain(|_, schedule| schedule.state != State::Idle || now < schedule.next);
        }
        let new = Schedule {
            next: now,
            state: State::Idle,
        };
        schedules.entry(upload).or_insert(new).request(now)
    }

    async fn check_at(self, mut due: Instant, upload: UploadId) {
        loop {
            tokio::time::sleep_until(due).await;
            if let Some(schedule) = lock(&self.schedules).get_mut(&upload) {
                schedule.state = State::Checking;
            }
            match self.check(upload).await {
                Some(next) => due = next,
                None => return,
            }
        }
    }

    /// Returns when the next check is due, if one was requested during this one.
    async fn check(&self, upload: UploadId) -> Option<Instant> {
        let Backends { store, archive, .. } = &self.backends;
        let started = Instant::now();
        let finish = finish_if_complete(store.as_ref(), archive.as_ref(), upload);
        // An uncaught panic would leave the upload in `Checking`, and nothing would check it again.
        let error = match AssertUnwindSafe(finish).catch_unwind().await {
            Ok(Ok(true)) => {
                self.counters.ended.increment(1);
                lock(&self.schedules).remove(&upload);
                return None;
            }
            Ok(Ok(false)) => {
                self.counters.open.increment(1);
                None
            }
            Ok(Err(error)) => Some(error.chain()),
            Err(panic) => Some(panic_reason(panic.as_ref())),
        };
        if let Some(error) = error {
            self.counters.failed.increment(1);
            tracing::warn!(
                upload.id = %upload,
                error,
                "a completion check failed; the sweeper will check the upload again"
            );
        }
        let mut schedules = lock(&self.schedules);
        schedules.get_mut(&upload)?.checked(started, Instant::now())
    }
}

/// When the next check of an upload may start, and whether one is running or waiting.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    next: Instant,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Checking,
    /// The running check may have missed a batch that was committed meanwhile.
    CheckingAndRequested,
    Waiting,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Now,
    At(Instant),
    /// A check that has not started yet will see this commit.
    Covered,
}

impl Schedule {
    fn request(&mut self, now: Instant) -> Decision {
        let (state, decision) = match self.state {
            State::Idle if now < self.next => (State::Waiting, Decision::At(self.next)),
            State::Idle => (State::Checking, Decision::Now),
            State::Checking | State::CheckingAndRequested => {
                (State::CheckingAndRequested, Decision::Covered)
            }
            State::Waiting => (State::Waiting, Decision::Covered),
        };
        self.state = state;
        decision
    }

    /// Returns when the next check is due, if one was requested during this one.
    fn checked(&mut self, started: Instant, now: Instant) -> Option<Instant> {
        let pause = PAUSE_FACTOR * (now - started);
        self.next = now + pause.clamp(MIN_PAUSE, MAX_PAUSE);
        let is_requested = self.state == State::CheckingAndRequested;
        self.state = match is_requested {
            true => State::Waiting,
            false => State::Idle,
        };
        is_requested.then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_commit_during_a_check_gets_another_check() {
        let start = Instant::now();
        let mut schedule = Schedule {
            next: start,
            state: State::Idle,
        };
        assert_eq!(schedule.request(start), Decision::Now);
        assert_eq!(schedule.request(start), Decision::Covered);
        let due = schedule.checked(start, start + MILLISECOND);
        assert_eq!(due, Some(start + 21 * MILLISECOND));
        assert_eq!(schedule.request(start + 2 * MILLISECOND), Decision::Covered);
    }

    #[test]
    fn the_pause_is_a_bounded_multiple_of_the_duration_of_the_last_check() {
        let start = Instant::now();
        for (duration, pause) in [(0, 5), (1, 20), (10, 200), (1000, 250)] {
            let mut schedule = Schedule {
                next: start,
                state: State::Checking,
            };
            let end = start + duration * MILLISECOND;
            assert_eq!(schedule.checked(start, end), None);
            let next = end + pause * MILLISECOND;
            assert_eq!(schedule.request(end), Decision::At(next));
            assert_eq!(schedule.request(next), Decision::Covered);
        }
    }
}
