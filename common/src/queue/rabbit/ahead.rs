//! How many messages the broker may send ahead, so that they are no more bytes than allowed.
//!
//! RabbitMQ's prefetch counts messages; the size that AMQP has beside it was never implemented there
//! (<https://www.rabbitmq.com/docs/specification>). So the count follows from how large the messages are that come.

use super::super::Prefetch;

/// No message is larger: a batch of 6 MiB and its envelope.
const LARGEST_MESSAGE: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct Ahead {
    allowed: Prefetch,
    /// The largest message seen, less a sixty-fourth of it for every one since. Zero before the first.
    expected_bytes: usize,
    count: u16,
}

impl Ahead {
    /// Before the first message each may be as large as any.
    pub(super) fn new(allowed: Prefetch) -> Self {
        let mut ahead = Self {
            allowed,
            expected_bytes: 0,
            count: 0,
        };
        ahead.count = ahead.fitting(LARGEST_MESSAGE);
        ahead
    }

    /// The prefetch that the broker is to know of.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Takes note of a message. True when the count has changed: at once where it was too high, where it was a guess, and where it could be
    /// twice as high.
    pub(super) fn note(&mut self, message_bytes: usize) -> bool {
        let is_first = self.expected_bytes == 0;
        let faded = self.expected_bytes - self.expected_bytes / 64;
        self.expected_bytes = faded.max(message_bytes).max(1);
        let fits_twice = self.allowed.bytes / self.expected_bytes / 2 >= usize::from(self.count);
        let fitting = self.fitting(self.expected_bytes);
        let is_worth_it = is_first || fits_twice;
        let change = fitting < self.count || fitting > self.count && is_worth_it;
        if change {
            self.count = fitting;
        }
        change
    }

    /// One at least: a message that is larger than all that is allowed is taken alone.
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

    fn ahead() -> Ahead {
        Ahead::new(Prefetch {
            batches: 96,
            bytes: 32 * MIB,
        })
    }

    #[test]
    fn before_the_first_message_the_largest_are_expected() {
        assert_eq!(ahead().count(), 4);
        let any_size = Ahead::new(Prefetch::of_batches(10));
        assert_eq!(any_size.count(), 10);
    }

    #[test]
    fn small_messages_are_many_and_a_large_one_makes_them_few_at_once() {
        let mut ahead = ahead();
        assert!(ahead.note(140_000));
        assert_eq!(ahead.count(), 96);
        assert!(!ahead.note(150_000));
        assert!(ahead.note(4 * MIB));
        assert_eq!(ahead.count(), 8);
        assert!(!ahead.note(4 * MIB));
    }

    #[test]
    fn a_size_that_varies_a_little_changes_nothing() {
        let mut ahead = ahead();
        ahead.note(MIB);
        let changes = (0..1_000).filter(|index| ahead.note(MIB - index % 7 * 20_000));
        assert_eq!(changes.count(), 0);
        assert_eq!(ahead.count(), 32);
    }

    #[test]
    fn large_messages_are_forgotten_after_some_hundred_small_ones() {
        let mut ahead = ahead();
        ahead.note(4 * MIB + 1);
        assert_eq!(ahead.count(), 7);
        let changes = (0..250).filter(|_| ahead.note(100_000)).count();
        assert_eq!(ahead.count(), 96);
        assert!(changes <= 4, "{changes}");
    }

    #[test]
    fn a_message_larger_than_everything_allowed_is_taken_alone() {
        let mut ahead = Ahead::new(Prefetch {
            batches: 96,
            bytes: MIB,
        });
        ahead.note(4 * MIB);
        assert_eq!(ahead.count(), 1);
    }
}
