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
        let without_rows = filter_fn(|event| !may_show_rows(event));
        // Without this hint, the most verbose level of the filter would not count.
        let without_rows = without_rows.with_max_level_hint(LevelFilter::TRACE);
        let shared = Shared {
            configured: settings.filter.clone(),
            on_signal: settings.filter_on_signal.clone(),
            current: Mutex::new(settings.filter.clone()),
            handle,
        };
        let filter = Self {
            shared: Arc::new(shared),
        };
        (filter, targets.and(without_rows))
    }

    /// The filter in effect.
    pub fn current(&self) -> String {
        lock(&self.shared.current).clone()
    }

    /// The filter of `CARGA_LOG`.
    pub fn configured(&self) -> &str {
        &self.shared.configured
    }

    /// Puts another filter into effect until the process ends, and returns it. Fails if it is not a
    /// filter.
    pub fn set(&self, filter: &str) -> Result<String, InvalidFilter> {
        let targets = parse_filter(filter)?;
        self.apply(&mut lock(&self.shared.current), filter, targets);
        Ok(filter.to_owned())
    }

    /// Puts the filter of `CARGA_LOG` back into effect, and returns it.
    pub fn reset(&self) -> String {
        let configured = &self.shared.configured;
        self.apply(
            &mut lock(&self.shared.current),
            configured,
            or_info(configured),
        );
        configured.clone()
    }

    /// Puts the filter of `CARGA_LOG_ON_SIGUSR1` into effect if that of `CARGA_LOG` is in effect,
    /// and otherwise that of `CARGA_LOG`. Returns the new filter.
    pub fn toggle(&self) -> String {
        let Shared {
            configured,
            on_signal,
            ..
        } = self.shared.as_ref();
        // Locked until the end, so that no other change comes between the check and this change.
        let mut current = lock(&self.shared.current);
        let next = match *current == *configured {
            true => on_signal,
            false => configured,
        };
        self.apply(&mut current, next, or_info(next));
        next.clone()
    }

    /// Changes the filter. `current` is the locked text of the filter in effect.
    fn apply(&self, current: &mut String, filter: &str, targets: Targets) {
        // Fails only if the subscriber is gone, and then nothing is logged any more.
        let _ = self.shared.handle.reload(targets);
        filter.clone_into(current);
    }
}

/// Parses a filter. An invalid one, which is reported elsewhere, counts as `info`.
fn or_info(filter: &str) -> Targets {
    parse_filter(filter).unwrap_or_else(|_| Targets::new().with_default(Level::INFO))
}

/// Whether the event may show rows. RabbitMQ's client shows each returned message in a warning. At
/// the level `trace`, the clients of servers show everything that they send and receive: frames,
/// bodies of requests, and what a signature is made of.
fn may_show_rows(event: &Metadata<'_>) -> bool {
    let target = event.target();
    let shows_traffic = *event.level() == Level::TRACE && !target.starts_with("carga");
    target == "lapin::returned_messages" || shows_traffic
}
