//! Looking whether an upload is complete, often enough and no more: counting the ledger after every group would be
//! quadratic in the number of batches. So what a check costs decides how soon the next one may be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carga_common::backends::Backends;
use carga_common::completion::finish_if_complete;
use carga_common::sync::lock;
use carga_common::upload::UploadId;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Between two checks of an upload there are so many times what the last one took: they take a twentieth of the time at most.
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
    /// Trailing checks, which a stopping worker waits for.
    tasks: TaskTracker,
    uploads: Arc<Mutex<HashMap<UploadId, LastCheck>>>,
}

#[derive(Debug, Clone, Copy)]
struct LastCheck {
    /// From when on the next may be made.
    next: Instant,
    /// One more will follow.
    trailing: bool,
}

impl LastCheck {
    fn begun() -> Self {
        Self {
            next: Instant::now() + MOST_PAUSE,
            trailing: false,
        }
    }
}

enum Decision {
    Now,
    At(Instant),
    /// The trailing check sees this commit as well.
    Covered,
}

impl CompletionChecks {
    pub(crate) fn new(backends: Backends, tasks: TaskTracker) -> Self {
        Self {
            backends,
            tasks,
            uploads: Arc::default(),
        }
    }

    /// Call it after a commit and before the acknowledgement. The check is made before this returns, unless one was made a
    /// moment ago; then one follows, and should the worker die before it, the sweeper makes it.
    pub(crate) async fn request(&self, upload: UploadId) {
        match self.decide(upload) {
            Decision::Now => self.check(upload).await,
            Decision::Covered => {}
            Decision::At(moment) => {
                let checks = self.clone();
                self.tasks.spawn(async move {
                    tokio::time::sleep_until(moment).await;
                    checks.with(|uploads| uploads.insert(upload, LastCheck::begun()));
                    checks.check(upload).await;
                });
            }
        }
    }

    fn decide(&self, upload: UploadId) -> Decision {
        let now = Instant::now();
        self.with(|uploads| match uploads.get_mut(&upload) {
            Some(last) if last.trailing => Decision::Covered,
            Some(last) if now < last.next => {
                last.trailing = true;
                Decision::At(last.next)
            }
            _ => {
                if uploads.len() >= MOST_REMEMBERED {
                    uploads.retain(|_, last| last.trailing || now < last.next);
                }
                uploads.insert(upload, LastCheck::begun());
                Decision::Now
            }
        })
    }

    async fn check(&self, upload: UploadId) {
        let Backends { store, archive, .. } = &self.backends;
        let begun = Instant::now();
        match finish_if_complete(store.as_ref(), archive.as_ref(), upload).await {
            Ok(true) => {
                self.with(|uploads| uploads.remove(&upload));
            }
            Ok(false) => {
                let pause = PAUSE_PER_CHECK * begun.elapsed();
                let next = Instant::now() + pause.clamp(LEAST_PAUSE, MOST_PAUSE);
                self.with(|uploads| {
                    if let Some(last) = uploads.get_mut(&upload) {
                        last.next = next;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(upload.id = %upload, error = error.chain(), "left to the sweeper to complete");
            }
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<UploadId, LastCheck>) -> T) -> T {
        work(&mut lock(&self.uploads))
    }
}
