//! A recorder apart from that of the process, for tests: the tests of one process run side by side.

use ::metrics::with_local_recorder;
use metrics_exporter_prometheus::{BuildError, PrometheusRecorder};

use super::exposition::recorder;

/// Records the figures of the handles that were made in [`run`](Self::run).
#[derive(Debug)]
pub struct LocalRecorder(PrometheusRecorder);

impl LocalRecorder {
    /// An empty recorder.
    pub fn new() -> Result<Self, BuildError> {
        recorder().map(Self)
    }

    /// Runs `make`, whose new handles belong to this recorder.
    pub fn run<T>(&self, make: impl FnOnce() -> T) -> T {
        with_local_recorder(&self.0, make)
    }

    /// All series, as a scrape shows them.
    pub fn render(&self) -> String {
        self.0.handle().render()
    }

    /// The value of a series, written as in the text format; `None` if it does not exist.
    pub fn value(&self, series: &str) -> Option<f64> {
        let text = self.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line?.parse().ok()
    }
}
