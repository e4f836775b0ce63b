//! Limits a consumer's unsettled bytes by a message count that follows the size of the messages.
//!
//! RabbitMQ's prefetch counts messages; RabbitMQ does not implement AMQP's limit in bytes
//! (<https://www.rabbitmq.com/docs/specification>).

use super::super::Prefetch;

/// The largest message that Carga publishes: a batch of 6 MiB with its envelope.
const LARGEST_MESSAGE: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct AdaptivePrefetch {
    allowed: Prefetch,
    /// The largest message so far, reduced by a sixty-fourth with every message since. Zero
    /// before the first message.
    expected_bytes: usize,
    count: u16,
}

impl AdaptivePrefetch {
    /// Assumes the largest size for every message until the first one arrives.
    pub(super) fn new(allowed: Prefetch) -> Self {
        let mut prefetch = Self {
            allowed,
            expected_bytes: 0,
            count: 0,
        };
        prefetch.count = prefetch.fitting(LARGEST_MESSAGE);
        prefetch
    }

    /// The prefetch to announce to the broker.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Observes the size of a message, and returns whether the count has changed. A count that is
    /// too high falls at once. The count rises after the first message, and later only if it can
    /// double.
    pub(super) fn observe(&mut self, message_bytes: usize) -> bool {
        let is_first = self.expected_bytes == 0;
        let decayed = self.expected_bytes - self.expected_bytes / 64;
        self.expected_bytes = decayed.max(message_bytes).max(1);
        let fits_twice = self.allowed.bytes / self.expected_bytes / 2 >= usize::from(self.count);
        let fitting = self.fitting(self.expected_bytes);
        let may_rise = is_first || fits_twice;
        let change = fitting < self.count || fitting > self.count && may_rise;
        if change {
            self.count = fitting;
        }
        change
    }

    /// The count is at least one, so that a message larger than the whole limit is delivered alone.
    fn fitting(&self, message_bytes: usize) -> u16 {
        let fitting = self.allowed.bytes / message_bytes;
        let fitting = u16::try_from(fitting).unwrap_or(u16::MAX);
        fitting.clamp(1, self.allowed.batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn prefetch() -> AdaptivePrefetch {
        AdaptivePrefetch::new(Prefetch {
            batches: 96,
            bytes: 32 * MIB,
        })
    }

    #[test]
    fn the_first_prefetch_expects_the_largest_messages() {
        assert_eq!(prefetch().count(), 4);
        let any_size = AdaptivePrefetch::new(Prefetch::of_batches(10));
        assert_eq!(any_size.count(), 10);
    }

    #[test]
    fn prefetch_shrinks_at_once_when_a_large_message_arrives() {
        let mut prefetch = prefetch();
        assert!(prefetch.observe(140_000));
        assert_eq!(prefetch.count(), 96);
        assert!(!prefetch.observe(150_000));
        assert!(prefetch.observe(4 * MIB));
        assert_eq!(prefetch.count(), 8);
        assert!(!prefetch.observe(4 * MIB));
    }

    #[test]
    fn small_variations_of_size_do_not_change_the_prefetch() {
        let mut prefetch = prefetch();
        prefetch.observe(MIB);
        let changes = (0..1_000).filter(|index| prefetch.observe(MIB - index % 7 * 20_000));
        assert_eq!(changes.count(), 0);
        assert_eq!(prefetch.count(), 32);
    }

    #[test]
    fn prefetch_grows_again_after_250_small_messages() {
        let mut prefetch = prefetch();
        prefetch.observe(4 * MIB + 1);
        assert_eq!(prefetch.count(), 7);
        let changes = (0..250).filter(|_| prefetch.observe(100_000)).count();
        assert_eq!(prefetch.count(), 96);
        assert!(changes <= 4, "{changes}");
    }

    #[test]
    fn a_message_above_the_limit_is_delivered_alone() {
        let mut prefetch = AdaptivePrefetch::new(Prefetch {
            batches: 96,
            bytes: MIB,
        });
        prefetch.observe(4 * MIB);
        assert_eq!(prefetch.count(), 1);
    }
}
