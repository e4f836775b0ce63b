//! Which events are logged, and how this is changed while the process runs.

use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::{Level, Metadata};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::Filter;
use tracing_subscriber::reload;

use crate::settings::{InvalidFilter, LogSettings, parse_filter};
use crate::sync::lock;

/// The log filter of a process. All clones change the same filter.
#[derive(Debug, Clone)]
pub struct LogFilter {
    shared: Arc<Shared>,
}

struct Shared {
    configured: String,
    on_signal: String,
    current: Mutex<String>,
    handle: reload::Handle<Targets, Registry>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("configured", &self.configured)
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl LogFilter {
    /// The filter of the settings, and the part of it that a subscriber uses.
    pub(super) fn new(settings: &LogSettings) -> (Self, impl Filter<Registry> + use<>) {
        // The settings report an invalid filter later, so logging starts with the default.
        let (targets, handle) = reload::Layer::new(or_info(&settings.filter));
        let without_bodies = filter_fn(|event| !shows_message_bodies(event));
        // Without this hint, the most verbose level of the filter would not count.
        let without_bodies = without_bodies.with_max_level_hint(LevelFilter::TRACE);
        let shared = Shared {
            configured: settings.filter.clone(),
            on_signal: settings.filter_on_signal.clone(),
            current: Mutex::new(settings.filter.clone()),
            handle,
        };
        let filter = Self {
            shared: Arc::new(shared),
        };
        (filter, targets.and(without_bodies))
    }

    /// The filter in effect.
    pub fn current(&self) -> String {
        lock(&self.shared.current).clone()
    }

    /// The filter of `CARGA_LOG`.
    pub fn configured(&self) -> &str {
        &self.shared.configured
    }

    /// Puts another filter into effect until the process ends. Fails if it is not a filter.
    pub fn set(&self, filter: &str) -> Result<(), InvalidFilter> {
        let targets = parse_filter(filter)?;
        self.apply(filter, targets);
        Ok(())
    }

    /// Puts the filter of `CARGA_LOG` back into effect.
    pub fn reset(&self) {
        let configured = &self.shared.configured;
        self.apply(configured, or_info(configured));
    }

    /// Puts the filter of `CARGA_LOG` back into effect, or that of `CARGA_LOG_ON_SIGUSR1` if it is
    /// in effect already. Returns the filter.
    pub fn toggle(&self) -> String {
        let Shared {
            configured,
            on_signal,
            ..
        } = self.shared.as_ref();
        let next = match self.current() == *configured {
            true => on_signal,
            false => configured,
        };
        self.apply(next, or_info(next));
        next.clone()
    }

    fn apply(&self, filter: &str, targets: Targets) {
        let mut current = lock(&self.shared.current);
        // Fails only if the subscriber is gone, and then nothing is logged any more.
        let _ = self.shared.handle.reload(targets);
        filter.clone_into(&mut current);
    }
}

/// The default of a filter that is reported as invalid elsewhere.
fn or_info(filter: &str) -> Targets {
    parse_filter(filter).unwrap_or_else(|_| Targets::new().with_default(Level::INFO))
}

/// Whether the event shows the bodies of messages, which contain rows. RabbitMQ's client shows each
/// returned message in a warning, and all frames at the level `trace`.
fn shows_message_bodies(event: &Metadata<'_>) -> bool {
    let target = event.target();
    let shows_frames = target.starts_with("lapin::") && *event.level() == Level::TRACE;
    target == "lapin::returned_messages" || shows_frames
}
