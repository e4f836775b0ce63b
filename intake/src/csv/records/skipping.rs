//! Skips records that are too long.

use super::{Next, Records, is_last_cr};
use crate::csv::broken::{Broken, BrokenKind, Position};
use crate::csv::syntax::{Extent, line_end, line_ends};

/// A record that is too long is skipped if it is at most this many times the limit. Beyond
/// that, the file is not CSV.
const MAX_SKIP_FACTOR: u64 = 16;

/// How many bytes are kept of a record that is too long.
const KEPT_BYTES: usize = 4 << 10;

/// A record that is too long and whose end has not been found yet.
#[derive(Debug)]
pub(super) struct Skipping {
    position: Position,
    kept: Vec<u8>,
    /// The number of bytes skipped so far.
    bytes: usize,
}

impl Records {
    /// Skips a record that is complete but longer than the limit.
    pub(super) fn skip_complete(&mut self, extent: Extent) -> Next {
        let Extent {
            content,
            next,
            inner_lines,
            ..
        } = extent;
        let skipping = Skipping {
            position: self.position,
            kept: beginning(&self.buffer[self.start..][..content]),
            bytes: next,
        };
        self.advance(next, inner_lines + u64::from(next > content));
        let actual = next as u64;
        broken(BrokenKind::TooLong { actual }, skipping)
    }

    /// Skips the window, and then the rest of its last line.
    pub(super) fn skip_window(&mut self, window: usize) -> Next {
        let bytes = &self.buffer[self.start..][..window];
        // A CR at the end may be half of a CRLF, so it is left for the next call.
        let whole = whole_characters(&bytes[..window - usize::from(is_last_cr(bytes, window - 1))]);
        let skipping = Skipping {
            position: self.position,
            kept: beginning(bytes),
            bytes: whole.len(),
        };
        let (passed, lines) = (whole.len(), line_ends(whole));
        self.advance(passed, lines);
        self.skip(skipping)
    }

    pub(super) fn skip(&mut self, mut skipping: Skipping) -> Next {
        let rest = &self.buffer[self.start..];
        let found = line_end(rest).filter(|(at, _)| self.ended || !is_last_cr(rest, *at));
        let (passed, lines) = match found {
            Some((_, next)) => (next, 1),
            None if self.ended => (rest.len(), 0),
            None => (rest.len() - usize::from(rest.ends_with(b"\r")), 0),
        };
        skipping.bytes += passed;
        let (actual, max) = (skipping.bytes as u64, self.limit as u64 * MAX_SKIP_FACTOR);
        if actual > max {
            let rest = rest.len();
            self.ended = true;
            self.advance(rest, 0);
            return broken(BrokenKind::Endless { actual: max }, skipping);
        }
        self.advance(passed, lines);
        if found.is_some() || self.ended {
            return broken(BrokenKind::TooLong { actual }, skipping);
        }
        self.skipping = Some(skipping);
        Next::More
    }
}

/// The bytes without an incomplete character at the end.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    // UTF-8 continuation bytes, and the bytes that mark an undecodable one.
    let is_inner = |byte: &&u8| matches!(byte, 0x80..=0xbf | 0xf8..);
    let inner = bytes.iter().rev().take_while(is_inner).count();
    let ends = bytes.len() - inner;
    let first = bytes[..ends].last() >= Some(&0xc0);
    &bytes[..ends - usize::from(first)]
}

/// The part that is kept of a record that is too long.
fn beginning(bytes: &[u8]) -> Vec<u8> {
    match bytes.get(..KEPT_BYTES) {
        Some(bytes) => whole_characters(bytes).to_vec(),
        None => bytes.to_vec(),
    }
}

fn broken(kind: BrokenKind, skipping: Skipping) -> Next {
    Next::Broken(Broken {
        kind,
        position: skipping.position,
        bytes: skipping.kept,
    })
}
