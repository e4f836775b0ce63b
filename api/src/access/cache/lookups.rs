//! Lookups that run or wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carga_common::access::KeyId;
use carga_common::sync::lock;
use carga_intake::refusal::Refusal;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::{Found, LONGEST_WAIT, LOOKUPS, too_slow};

/// The time between two warnings about refused requests.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// A lookup, for all requests that wait for it.
pub(super) type Lookup = Shared<BoxFuture<'static, Result<Found, Refusal>>>;

/// The question that a lookup asks the store. Requests with equal questions share one lookup.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) id: KeyId,
    /// The count of `forget` at the time of the request. After a revocation it differs, so a later
    /// request does not wait for a lookup that began before the revocation.
    pub(super) forgotten: u64,
}

/// The lookups of found ids, or those of new ids.
#[derive(Debug)]
pub(super) struct Lookups {
    state: Mutex<State>,
    /// One permit for each lookup that may run.
    permits: Semaphore,
    /// How many lookups may run or wait.
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    lookups: HashMap<Question, Lookup>,
    warned_at: Option<Instant>,
}

impl Lookups {
    pub(super) fn new(most: usize) -> Self {
        Self {
            state: Mutex::default(),
            permits: Semaphore::new(LOOKUPS),
            most,
        }
    }

    /// The lookup with this question, or a new one that reads the answer when its turn comes. The
    /// request is refused if too many wait already.
    pub(super) fn join_or_start(
        self: &Arc<Self>,
        question: Question,
        read: impl Future<Output = Result<Found, Refusal>> + Send + 'static,
    ) -> Result<Lookup, Refusal> {
        let mut state = lock(&self.state);
        if let Some(lookup) = state.lookups.get(&question) {
            return Ok(lookup.clone());
        }
        if state.lookups.len() >= self.most {
            state.warn();
            return Err(too_many());
        }
        let lookups = Arc::clone(self);
        let running = Running {
            lookups,
            question: question.clone(),
        };
        // The end of the lookup needs the lock, and so comes after this insertion.
        let lookup = run(running, read);
        state.lookups.insert(question, lookup.clone());
        Ok(lookup)
    }
}

impl State {
    /// A flood of requests must not become a flood of log lines.
    fn warn(&mut self) {
        let is_due = |warned_at: Instant| warned_at.elapsed() >= WARNING_INTERVAL;
        if self.warned_at.is_none_or(is_due) {
            self.warned_at = Some(Instant::now());
            tracing::warn!(
                waiting = self.lookups.len(),
                "too many keys that were not seen before are being looked up; further ones are refused with 503 `key_check_busy`"
            );
        }
    }
}

fn too_many() -> Refusal {
    let message =
        "too many keys that this server has not seen before are being checked; retry later";
    Refusal::unavailable("key_check_busy", message)
}

/// Removes a lookup from its [`Lookups`] when it is dropped, even after a panic.
#[derive(Debug)]
struct Running {
    lookups: Arc<Lookups>,
    question: Question,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.lookups.state).lookups.remove(&self.question);
    }
}

/// Runs a lookup in a task of its own. If the client goes away in the middle of a call, the store
/// would otherwise close the connection of the call.
fn run(
    running: Running,
    read: impl Future<Output = Result<Found, Refusal>> + Send + 'static,
) -> Lookup {
    let reading = tokio::spawn(async move {
        let permit = timeout(LONGEST_WAIT, running.lookups.permits.acquire()).await;
        match permit {
            // The semaphore is never closed.
            Ok(_permit) => read.await,
            Err(_) => Err(too_slow()),
        }
    });
    let answer = async move {
        reading.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the lookup of a key failed");
            Err(Refusal::internal())
        })
    };
    answer.boxed().shared()
}
