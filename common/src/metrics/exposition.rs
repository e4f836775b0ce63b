//! The recorder of this process, and the text of all series.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use ::metrics::Recorder;
use jiff::Timestamp;
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::installed::set_installed;
use super::metric::Kind;
use super::state::StateReader;
use super::table::{ALL, BUILD_INFO, PROCESS_START};
use super::{process, uploads};
use crate::backends::Backends;
use crate::settings::Mode;
use crate::sync::lock;

/// The content type of the text.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The pause between two rounds of upkeep. Observations of histograms take memory until then, even
/// if nobody scrapes.
const UPKEEP_PAUSE: Duration = Duration::from_secs(5);

static EXPOSITION: OnceLock<Exposition> = OnceLock::new();

/// The recorder could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot start to record metrics")]
pub struct InstallError(#[from] BuildError);

/// The series of this process. Cheap to clone.
#[derive(Clone)]
pub struct Exposition(Arc<Inner>);

struct Inner {
    recorded: PrometheusHandle,
    samplers: Mutex<Vec<Sampler>>,
    state: OnceLock<StateReader>,
}

type Sampler = Box<dyn Fn() + Send + Sync>;

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposition").finish_non_exhaustive()
    }
}

/// Starts to record, and keeps the memory of the recorder bounded. Handles that were made earlier
/// record nothing, so a program calls this before it connects. A second call changes nothing and
/// returns the same exposition. It must be called in a Tokio runtime.
pub fn install(mode: Mode) -> Result<Exposition, InstallError> {
    if let Some(exposition) = EXPOSITION.get() {
        return Ok(exposition.clone());
    }
    let recorder = recorder()?;
    let recorded = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(BuildError::from)?;
    set_installed();
    uploads::prepare();
    let mode = match mode {
        Mode::Distributed => "distributed",
        Mode::Embedded => "embedded",
    };
    let build = BUILD_INFO.gauge_of([env!("CARGO_PKG_VERSION"), mode]);
    build.set(1.0);
    let now = Timestamp::now().as_millisecond();
    PROCESS_START.gauge().set(now as f64 / 1000.0);
    tokio::spawn(keep_up(recorded.clone()));
    let exposition = Exposition(Arc::new(Inner {
        recorded,
        samplers: Mutex::default(),
        state: OnceLock::new(),
    }));
    Ok(EXPOSITION.get_or_init(|| exposition).clone())
}

/// A recorder that knows the buckets and the meaning of every metric.
pub(super) fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL {
        if let Kind::Histogram(buckets) = metric.kind {
            let name = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(name, buckets)?;
        }
    }
    let recorder = builder.build_recorder();
    for metric in ALL {
        let (name, help) = (metric.name.into(), metric.help.into());
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
        }
    }
    Ok(recorder)
}

async fn keep_up(recorded: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_PAUSE).await;
        recorded.run_upkeep();
    }
}

impl Exposition {
    /// Calls `sample` before each rendering. It sets gauges from figures that the process has in
    /// memory, so it must not wait.
    pub fn watch(&self, sample: impl Fn() + Send + Sync + 'static) {
        lock(&self.0.samplers).push(Box::new(sample));
    }

    /// Shows the state of these servers too. Only the first call has an effect.
    pub fn watch_state(&self, backends: Backends) {
        self.0.state.get_or_init(|| StateReader::new(backends));
    }

    /// All series in the text format. Reads the state of the servers, unless that was done less
    /// than five seconds ago; a server that is away delays the text by two seconds.
    pub async fn render(&self) -> String {
        if let Some(state) = self.0.state.get() {
            state.refresh().await;
        }
        for sample in lock(&self.0.samplers).iter() {
            sample();
        }
        process::sample();
        self.0.recorded.render()
    }
}
