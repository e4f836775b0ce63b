//! A filter that `tracing` asks about each event.

use tracing::subscriber::Interest;
use tracing::{Event, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};

/// A filter whose answer is never cached if it is yes.
///
/// A filter of a layer leaves its answer in a thread-local variable, and the layer reads it when
/// the event arrives. If `tracing` has cached that an event is always wanted, it does not ask the
/// filter. The layer then reads the answer to an earlier question. That may be a no to a question
/// without an event, such as sqlx's `log::log_enabled!` after each statement, and the event is lost
/// ([tracing#2519](https://github.com/tokio-rs/tracing/issues/2519)).
#[derive(Debug)]
pub(super) struct Asked<F>(pub(super) F);

impl<S, F: Filter<S>> Filter<S> for Asked<F> {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        self.0.enabled(metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = self.0.callsite_enabled(metadata);
        match interest.is_always() {
            true => Interest::sometimes(),
            false => interest,
        }
    }

    fn event_enabled(&self, event: &Event<'_>, context: &Context<'_, S>) -> bool {
        self.0.event_enabled(event, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.max_level_hint()
    }
}
