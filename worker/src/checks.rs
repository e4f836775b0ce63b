//! Looking whether an upload is complete, often enough and no more: counting the ledger after every group would be
//! quadratic in the number of batches. So what a check costs decides how soon the next one may be.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carga_common::backends::Backends;
use carga_common::lifecycle::finish_if_complete;
use carga_common::sync::lock;
use carga_common::upload::UploadId;
use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::prepare::panic_reason;

/// Between two checks of an upload, by one worker, there are so many times what the last one took.
const PAUSE_PER_CHECK: u32 = 20;
const LEAST_PAUSE: Duration = Duration::from_millis(5);
/// A store that answers slowly must not keep an upload that is complete from being called so.
const MOST_PAUSE: Duration = Duration::from_millis(250);

/// Beyond this number of uploads the ones that were not looked at lately are forgotten; looking again is harmless.
const MOST_REMEMBERED: usize = 1_000;

/// The checks of one worker process.
#[derive(Debug, Clone)]
pub(crate) struct CompletionChecks {
    backends: Backends,
    /// Later checks, which a stopping worker waits for.
    tasks: TaskTracker,
    uploads: Arc<Mutex<HashMap<UploadId, Pace>>>,
}

impl CompletionChecks {
    pub(crate) fn new(backends: Backends, tasks: TaskTracker) -> Self {
        Self {
            backends,
            tasks,
            uploads: Arc::default(),
        }
    }

    /// Call it after a commit and before the acknowledgement. The check is made before this returns, unless one is being made or
    /// was a moment ago; then one follows, and should the worker die before it, the sweeper makes it.
    pub(crate) async fn request(&self, upload: UploadId) {
        let due = match self.ask(upload) {
            Decision::Covered => None,
            Decision::At(due) => Some(due),
            Decision::Now => self.check(upload).await,
        };
        if let Some(due) = due {
            let checks = self.clone();
            self.tasks.spawn(checks.check_from(due, upload));
        }
    }

    fn ask(&self, upload: UploadId) -> Decision {
        let now = Instant::now();
        let mut uploads = lock(&self.uploads);
        if uploads.len() >= MOST_REMEMBERED {
            uploads.retain(|_, pace| pace.state != State::Idle || now < pace.next);
        }
        let new = Pace {
            next: now,
            state: State::Idle,
        };
        uploads.entry(upload).or_insert(new).ask(now)
    }

    async fn check_from(self, mut due: Instant, upload: UploadId) {
        loop {
            tokio::time::sleep_until(due).await;
            if let Some(pace) = lock(&self.uploads).get_mut(&upload) {
                pace.state = State::Checking;
            }
            match self.check(upload).await {
                Some(next) => due = next,
                None => return,
            }
        }
    }

    /// Returns when the next is due, if one was asked for meanwhile.
    async fn check(&self, upload: UploadId) -> Option<Instant> {
        let Backends { store, archive, .. } = &self.backends;
        let begun = Instant::now();
        let finish = finish_if_complete(store.as_ref(), archive.as_ref(), upload);
        // Caught, or nobody would look at this upload again.
        let error = match AssertUnwindSafe(finish).catch_unwind().await {
            Ok(Ok(true)) => {
                lock(&self.uploads).remove(&upload);
                return None;
            }
            Ok(Ok(false)) => None,
            Ok(Err(error)) => Some(error.chain()),
            Err(panic) => Some(panic_reason(panic.as_ref())),
        };
        if let Some(error) = error {
            tracing::warn!(upload.id = %upload, error, "left to the sweeper to complete");
        }
        let mut uploads = lock(&self.uploads);
        uploads.get_mut(&upload)?.checked(begun, Instant::now())
    }
}

/// When an upload may be looked at again, and whether somebody is about to.
#[derive(Debug, Clone, Copy)]
struct Pace {
    next: Instant,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Checking,
    /// A commit came while the check was being made, which may not have seen it.
    CheckingAndAsked,
    Waiting,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Now,
    At(Instant),
    /// A check that is still to be made sees this commit as well.
    Covered,
}

impl Pace {
    fn ask(&mut self, now: Instant) -> Decision {
        let (state, decision) = match self.state {
            State::Idle if now < self.next => (State::Waiting, Decision::At(self.next)),
            State::Idle => (State::Checking, Decision::Now),
            State::Checking | State::CheckingAndAsked => {
                (State::CheckingAndAsked, Decision::Covered)
            }
            State::Waiting => (State::Waiting, Decision::Covered),
        };
        self.state = state;
        decision
    }

    /// Returns when the next check is due, if one was asked for meanwhile.
    fn checked(&mut self, begun: Instant, now: Instant) -> Option<Instant> {
        let pause = PAUSE_PER_CHECK * (now - begun);
        self.next = now + pause.clamp(LEAST_PAUSE, MOST_PAUSE);
        let is_asked = self.state == State::CheckingAndAsked;
        self.state = match is_asked {
            true => State::Waiting,
            false => State::Idle,
        };
        is_asked.then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_commit_that_a_check_may_have_missed_gets_one_soon_after_it() {
        let start = Instant::now();
        let mut pace = Pace {
            next: start,
            state: State::Idle,
        };
        assert_eq!(pace.ask(start), Decision::Now);
        assert_eq!(pace.ask(start), Decision::Covered);
        let due = pace.checked(start, start + MILLISECOND);
        assert_eq!(due, Some(start + 21 * MILLISECOND));
        assert_eq!(pace.ask(start + 2 * MILLISECOND), Decision::Covered);
    }

    #[test]
    fn the_pause_depends_on_what_a_check_costs() {
        let start = Instant::now();
        for (cost, pause) in [(0, 5), (1, 20), (10, 200), (1000, 250)] {
            let mut pace = Pace {
                next: start,
                state: State::Checking,
            };
            let end = start + cost * MILLISECOND;
            assert_eq!(pace.checked(start, end), None);
            let next = end + pause * MILLISECOND;
            assert_eq!(pace.ask(end), Decision::At(next));
            assert_eq!(pace.ask(next), Decision::Covered);
        }
    }
}
