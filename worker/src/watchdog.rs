//! Writes the heartbeat file while the worker makes progress, and reports a worker that is stuck.
//!
//! A worker is stuck if a batch in hand has not moved for minutes. `progress_watch` says what
//! counts as a move.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::heartbeat;
use crate::progress_watch::ProgressWatch;

/// When a worker counts as stuck.
#[derive(Debug, Clone, Copy)]
pub struct StuckLimits {
    /// The time between two looks at the worker, and between two writes of the heartbeat file. It
    /// must not be zero.
    pub interval: Duration,
    /// The worker is reported as stuck when a batch in hand has not moved for this time.
    pub report_after: Duration,
    /// A worker that is alone in its process ends this long after the report.
    pub end_after: Duration,
}

impl Default for StuckLimits {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            report_after: Duration::from_secs(5 * 60),
            end_after: Duration::from_secs(60),
        }
    }
}

/// The end of a worker that was stuck.
#[derive(Debug, Error)]
#[error("{in_hand} batches are in hand, and one has not moved for {} s", .still.as_secs())]
pub struct Stuck {
    /// How many batches the worker has in hand.
    pub in_hand: usize,
    /// The longest time for which one of them has not moved.
    pub still: Duration,
}

#[derive(Debug)]
pub(crate) struct Watchdog {
    pub(crate) watch: Arc<ProgressWatch>,
    pub(crate) heartbeat_file: Option<PathBuf>,
    pub(crate) limits: StuckLimits,
    /// Whether a stuck worker ends. It does not end if it shares its process with an API.
    pub(crate) ends: bool,
    /// Once this is cancelled, the worker is stopping. The watchdog no longer ends it, because the
    /// grace period already limits how long it runs.
    pub(crate) stop: CancellationToken,
}

impl Watchdog {
    /// Watches until a stuck worker must end.
    pub(crate) async fn run(self) -> Stuck {
        let limits = self.limits;
        if let Some(file) = &self.heartbeat_file {
            // With the file of an earlier process, this one would seem healthy before it connects.
            heartbeat::remove(file).await;
        }
        let mut ticks = tokio::time::interval(limits.interval);
        // After a suspension there is one tick, not all those that were missed, so the time of the
        // suspension does not make the worker stuck.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut still = Duration::ZERO;
        let (mut is_connected, mut is_reported) = (false, false);
        loop {
            tokio::select! {
                _ = ticks.tick() => still = self.watch.look(limits.interval, limits.report_after),
                () = self.watch.connected() => is_connected = true,
            }
            let stuck = Stuck {
                in_hand: self.watch.in_hand(),
                still,
            };
            if stuck.still < limits.report_after {
                if std::mem::take(&mut is_reported) {
                    tracing::info!("the worker was stuck and makes progress again");
                }
                if is_connected && let Some(file) = &self.heartbeat_file {
                    heartbeat::write(file).await;
                }
                continue;
            }
            if !std::mem::replace(&mut is_reported, true) {
                self.report(&stuck);
            }
            let may_end = self.ends && !self.stop.is_cancelled();
            if may_end && stuck.still >= limits.report_after + limits.end_after {
                return stuck;
            }
        }
    }

    fn report(&self, stuck: &Stuck) {
        let remedy = match self.ends {
            true => "the worker ends soon, and its batches return to the queue",
            false => "restart this process, and its batches return to the queue",
        };
        tracing::error!(
            in_hand = stuck.in_hand,
            still_secs = stuck.still.as_secs(),
            "the worker is stuck: a batch in hand does not move; {remedy}"
        );
    }
}

#[cfg(test)]
mod tests;
