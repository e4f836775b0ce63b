//! The state of the servers: what waits in them, and whether they answer.
//!
//! Reading it costs a few queries, so it is read at most once in five seconds, however often the
//! process is scraped. A figure of a server that is away is NaN: an old number would look current,
//! and no alert fires on NaN.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::table::{
    DATABASE_CONNECTIONS, DATABASE_CONNECTIONS_MAX, DEAD_LETTERS, DEPENDENCY_DEGRADED,
    EVENTS_UNSENT, OLDEST_PROCESSING, QUEUE_MESSAGES, STATE_READS, UPLOADS_UNFINISHED,
};
use super::{Counter, Gauge};
use crate::backends::Backends;
use crate::error::PortResult;
use crate::queue::QueueDepth;
use crate::store::{ConnectionUse, Observation};

/// The pause between two reads.
const PAUSE: Duration = Duration::from_secs(5);

/// A server that takes longer to answer counts as away, as in `/readyz`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads the state of the servers into gauges.
#[derive(Debug)]
pub(super) struct StateReader {
    backends: Backends,
    gauges: Gauges,
    pace: Pace,
}

impl StateReader {
    pub(super) fn new(backends: Backends) -> Self {
        Self {
            backends,
            gauges: Gauges::new(),
            pace: Pace::default(),
        }
    }

    /// Reads the state, unless that was done a moment ago. Callers that arrive meanwhile wait for
    /// the result.
    pub(super) async fn refresh(&self) {
        self.pace.run(self.read()).await;
    }

    async fn read(&self) {
        self.gauges.reads.increment(1);
        let Backends {
            queue,
            store,
            archive,
            progress_store,
            ..
        } = &self.backends;
        let (depth, observation, archive, progress) = tokio::join!(
            answered(queue.depth()),
            answered(store.observe()),
            answered(archive.ping()),
            answered(progress_store.ping()),
        );
        let is_away = [
            observation.is_none(),
            depth.is_none(),
            archive.is_none(),
            progress.is_none(),
        ];
        for (gauge, is_away) in self.gauges.degraded.iter().zip(is_away) {
            gauge.set(if is_away { 1.0 } else { 0.0 });
        }
        self.gauges.set_depth(depth);
        // Without a broker, no event is ever sent.
        let sends_events = queue.event_publisher().is_some();
        self.gauges
            .set_observation(observation.map(|seen| Observation {
                unsent_events: if sends_events { seen.unsent_events } else { 0 },
                ..seen
            }));
        self.gauges.set_connections(store.connection_use());
    }
}

async fn answered<T>(call: impl Future<Output = PortResult<T>>) -> Option<T> {
    match timeout(ANSWER_TIMEOUT, call).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::debug!(error = error.chain(), "no state for the metrics");
            None
        }
        Err(_) => None,
    }
}

/// Runs some work, and then not again before [`PAUSE`] is over.
#[derive(Debug, Default)]
struct Pace {
    run_at: Mutex<Option<Instant>>,
}

impl Pace {
    async fn run(&self, work: impl Future<Output = ()>) {
        let mut run_at = self.run_at.lock().await;
        if run_at.is_none_or(|at| at.elapsed() >= PAUSE) {
            work.await;
            *run_at = Some(Instant::now());
        }
    }
}

#[derive(Debug)]
struct Gauges {
    reads: Counter,
    /// Messages that are ready, that wait for a retry, and that are dead.
    messages: [Gauge; 3],
    /// Uploads in the statuses `receiving` and `processing`.
    unfinished: [Gauge; 2],
    oldest: Gauge,
    dead_letters: Gauge,
    unsent_events: Gauge,
    /// Connections in use, and idle ones.
    connections: [Gauge; 2],
    connections_max: Gauge,
    /// In the order of `DEPENDENCIES`.
    degraded: [Gauge; 4],
}

const DEPENDENCIES: [&str; 4] = ["store", "queue", "archive", "progress"];

impl Gauges {
    fn new() -> Self {
        Self {
            reads: STATE_READS.counter(),
            messages: ["ready", "retrying", "dead"].map(|state| QUEUE_MESSAGES.gauge_of([state])),
            unfinished: ["receiving", "processing"]
                .map(|status| UPLOADS_UNFINISHED.gauge_of([status])),
            oldest: OLDEST_PROCESSING.gauge(),
            dead_letters: DEAD_LETTERS.gauge(),
            unsent_events: EVENTS_UNSENT.gauge(),
            connections: ["used", "idle"].map(|state| DATABASE_CONNECTIONS.gauge_of([state])),
            connections_max: DATABASE_CONNECTIONS_MAX.gauge(),
            degraded: DEPENDENCIES.map(|name| DEPENDENCY_DEGRADED.gauge_of([name])),
        }
    }

    fn set_depth(&self, depth: Option<QueueDepth>) {
        let figures = depth.map(|depth| [depth.ready, depth.retrying, depth.dead]);
        set(&self.messages, figures.map(|all| all.map(|n| n as f64)));
    }

    fn set_observation(&self, observation: Option<Observation>) {
        let seen = observation.as_ref();
        let unfinished = seen.map(|seen| [seen.receiving, seen.processing]);
        set(
            &self.unfinished,
            unfinished.map(|all| all.map(|n| n as f64)),
        );
        let age = seen.map(|seen| seen.oldest_processing.unwrap_or_default().as_secs_f64());
        self.oldest.set(age.unwrap_or(f64::NAN));
        let dead = seen.map(|seen| seen.dead_letters as f64);
        self.dead_letters.set(dead.unwrap_or(f64::NAN));
        let unsent = seen.map(|seen| seen.unsent_events as f64);
        self.unsent_events.set(unsent.unwrap_or(f64::NAN));
    }

    fn set_connections(&self, connections: ConnectionUse) {
        let ConnectionUse { used, idle, max } = connections;
        set(&self.connections, Some([used, idle].map(f64::from)));
        self.connections_max.set(f64::from(max));
    }
}

fn set<const N: usize>(gauges: &[Gauge; N], figures: Option<[f64; N]>) {
    for (gauge, figure) in gauges.iter().zip(figures.unwrap_or([f64::NAN; N])) {
        gauge.set(figure);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::metrics::local::LocalRecorder;

    #[tokio::test(start_paused = true)]
    async fn the_state_is_read_once_in_five_seconds() {
        let (pace, reads) = (Pace::default(), AtomicU32::new(0));
        let read = || {
            pace.run(async {
                reads.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
            })
        };
        tokio::join!(read(), read(), read());
        tokio::time::advance(PAUSE - Duration::from_millis(1)).await;
        read().await;
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        read().await;
        assert_eq!(reads.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_figures_of_a_server_that_is_away_are_nan() {
        let recorder = LocalRecorder::new().unwrap();
        let gauges = recorder.run(Gauges::new);
        let ready = || {
            recorder
                .value("carga_queue_messages{state=\"ready\"}")
                .unwrap()
        };
        let dead_letters = || recorder.value("carga_dead_letters").unwrap();
        let age = || {
            recorder
                .value("carga_oldest_processing_age_seconds")
                .unwrap()
        };
        gauges.set_depth(Some(QueueDepth {
            ready: 7,
            ..QueueDepth::default()
        }));
        gauges.set_observation(Some(Observation {
            receiving: 1,
            processing: 2,
            oldest_processing: Some(Duration::from_secs(90)),
            dead_letters: 3,
            unsent_events: 4,
        }));
        assert_eq!((ready(), dead_letters(), age()), (7.0, 3.0, 90.0));
        gauges.set_depth(None);
        gauges.set_observation(None);
        assert!(ready().is_nan() && dead_letters().is_nan() && age().is_nan());
        gauges.set_observation(Some(Observation::default()));
        assert_eq!(age(), 0.0);
    }
}
