//! Messages of another installation, which shares the queue with this one by mistake.
//!
//! Their uploads are in another database. A worker therefore never judges such a message: it puts
//! the message back until a worker of the other installation gets it.

use std::sync::Mutex;
use std::time::Duration;

use carga_common::sync::lock;
use tokio::time::Instant;

/// The pause between two warnings, since every message returns twice a minute.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// A warning that is logged once a minute at most.
#[derive(Debug, Default)]
pub(crate) struct ForeignWarning {
    warned_at: Mutex<Option<Instant>>,
}

impl ForeignWarning {
    /// Warns, unless the last warning was less than a minute ago.
    pub(crate) fn warn(&self) {
        if self.is_due(Instant::now()) {
            tracing::warn!(
                "this queue has messages of another installation, whose uploads are in another \
                 database; they are put back and wait for its workers; give each installation its \
                 own CARGA_QUEUE, or its own vhost in AMQP_URL; if that installation no longer \
                 exists and nobody else uses the queues named after CARGA_QUEUE, purge or delete \
                 them"
            );
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut warned_at = lock(&self.warned_at);
        let is_due = warned_at.is_none_or(|at| now >= at + WARNING_PAUSE);
        if is_due {
            *warned_at = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_is_due_once_a_minute() {
        let warning = ForeignWarning::default();
        let start = Instant::now();
        assert!(warning.is_due(start));
        assert!(!warning.is_due(start + WARNING_PAUSE / 2));
        assert!(warning.is_due(start + WARNING_PAUSE));
        assert!(!warning.is_due(start + WARNING_PAUSE * 3 / 2));
    }
}
