//! A stream of text as records. What is broken is set apart by itself and reading goes on behind it.
//!
//! Nothing here depends on how the bytes arrived: whether a record is too long is decided by looking at no more than the limit,
//! however much of the file is there.

use std::ops::Range;

use super::syntax::{Extent, Field, Scan, Syntax, line_end, line_ends};
use super::transcode::SourceLength;

/// A record that is cut is looked at again with every piece, unless it is longer than this: then when it has doubled, so
/// that a long one costs no more than its length.
const PATIENCE_BYTES: usize = 64 << 10;

/// A row that is too long is passed over while it is not longer than so many times the limit. Beyond that the file is no CSV.
const LONGEST_SKIP: u64 = 16;

/// How much of a row that is too long is kept to show.
const SHOWN_BYTES: usize = 4 << 10;

/// Where something is in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The physical line, from 1.
    pub(super) line: u64,
    /// Bytes of the file before it.
    pub(super) offset: u64,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A record; its bytes and fields are at hand until the next call.
    Record {
        /// The first field that has text behind its closing quote.
        bad_quote: Option<usize>,
    },
    /// A line with nothing on it.
    Blank,
    /// Something that is not a record.
    Broken(Broken),
    /// More bytes are needed.
    More,
    /// The file is over.
    End,
}

/// What was set apart, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) kind: BrokenKind,
    pub(super) position: Position,
    /// The bytes without their line end; only the first of a row that is too long.
    pub(super) bytes: Vec<u8>,
}

/// Why a record is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BrokenKind {
    /// A quote is opened on its last line and never closed, or not within the limit of a row.
    UnclosedQuote,
    /// It is longer than a row may be.
    TooLong { actual: u64 },
    /// It is so long that the file cannot be read.
    Endless { actual: u64 },
}

impl BrokenKind {
    /// The bytes of a record that is too long, as far as they were counted.
    pub(super) fn actual_bytes(self) -> Option<u64> {
        match self {
            Self::UnclosedQuote => None,
            Self::TooLong { actual } | Self::Endless { actual } => Some(actual),
        }
    }
}

/// Finds one record after the other in the text that is appended to its buffer.
#[derive(Debug)]
pub(super) struct Records {
    syntax: Syntax,
    length: SourceLength,
    limit: usize,
    buffer: Vec<u8>,
    /// What is before it has been read.
    start: usize,
    /// Where `start` is.
    position: Position,
    over: bool,
    fields: Vec<Field>,
    /// The record at hand.
    record: Range<usize>,
    record_position: Position,
    /// Not worth a look before so many bytes are there.
    wanted: usize,
    skipping: Option<Skipping>,
}

/// A row that is too long, on the way to its end.
#[derive(Debug)]
struct Skipping {
    position: Position,
    shown: Vec<u8>,
    /// What has been passed over so far.
    bytes: usize,
}

impl Records {
    /// `offset` bytes of the file were not text: a byte order mark.
    pub(super) fn new(syntax: Syntax, length: SourceLength, offset: u64, limit: usize) -> Self {
        let position = Position { line: 1, offset };
        Self {
            syntax,
            length,
            limit,
            buffer: Vec::new(),
            start: 0,
            position,
            over: false,
            fields: Vec::new(),
            record: 0..0,
            record_position: position,
            wanted: 0,
            skipping: None,
        }
    }

    /// From the next record on.
    pub(super) fn limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(super) fn syntax(&self) -> Syntax {
        self.syntax
    }

    /// Where more text is to be appended. Only when there is nothing to read: what has been read is gone then.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.start);
        self.start = 0;
        &mut self.buffer
    }

    pub(super) fn end(&mut self) {
        self.over = true;
        self.wanted = 0;
    }

    pub(super) fn record(&self) -> &[u8] {
        &self.buffer[self.record.clone()]
    }

    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub(super) fn record_position(&self) -> Position {
        self.record_position
    }

    pub(super) fn next(&mut self) -> Next {
        if let Some(skipping) = self.skipping.take() {
            return self.skip(skipping);
        }
        let rest = &self.buffer[self.start..];
        match rest {
            [] if self.over => return Next::End,
            [] => return Next::More,
            [b'\r'] if !self.over => return Next::More,
            [b'\n' | b'\r', ..] => {
                self.record = self.start..self.start;
                self.record_position = self.position;
                self.fields.clear();
                self.fields.push(Field {
                    start: 0,
                    end: 0,
                    doubled: false,
                });
                let width = line_end(rest).map_or(1, |(_, next)| next);
                self.advance(width, 1);
                return Next::Blank;
            }
            rest if rest.len() < self.wanted => return Next::More,
            _ => {}
        }
        // Whatever more is there must not be looked at.
        let window = rest.len().min(self.limit.saturating_add(1));
        let is_full = window > self.limit;
        let is_last = self.over && window == rest.len();
        match self.syntax.scan(&rest[..window], is_last, &mut self.fields) {
            Scan::Whole(extent) if extent.next <= self.limit => self.take(extent),
            Scan::Whole(extent) => self.pass_over(extent),
            Scan::Cut { open_quote: None } if is_full => self.skip_from(window),
            Scan::Cut {
                open_quote: Some(open),
            } if is_full || is_last => self.unclosed(open, window),
            Scan::Cut { .. } => {
                if rest.len() > PATIENCE_BYTES {
                    self.wanted = (2 * rest.len()).min(self.limit.saturating_add(1));
                }
                Next::More
            }
        }
    }

    fn take(&mut self, extent: Extent) -> Next {
        let Extent {
            content,
            next,
            inner_lines,
            bad_quote,
        } = extent;
        self.record = self.start..self.start + content;
        self.record_position = self.position;
        self.advance(next, inner_lines + u64::from(next > content));
        Next::Record { bad_quote }
    }

    /// A record that ends where it is just too long.
    fn pass_over(&mut self, extent: Extent) -> Next {
        let Extent {
            content,
            next,
            inner_lines,
            ..
        } = extent;
        let passed_over = Skipping {
            position: self.position,
            shown: beginning(&self.buffer[self.start..][..content]),
            bytes: next,
        };
        self.advance(next, inner_lines + u64::from(next > content));
        broken(
            BrokenKind::TooLong {
                actual: next as u64,
            },
            passed_over,
        )
    }

    /// The line with the opening quote is set apart, and what follows it is read as if that quote had not been.
    fn unclosed(&mut self, open: usize, window: usize) -> Next {
        let rest = &self.buffer[self.start..][..window];
        let is_all = window <= self.limit;
        let (content, next) = match line_end(&rest[open..]) {
            // A CR that is the last byte in sight may have an LF behind it.
            Some((content, next)) if is_all || !is_last_cr(rest, open + content) => {
                (open + content, open + next)
            }
            None if is_all => (window, window),
            _ => return self.skip_from(window),
        };
        let broken = Broken {
            kind: BrokenKind::UnclosedQuote,
            position: self.position,
            bytes: rest[..content].to_vec(),
        };
        let lines = line_ends(&rest[..next]);
        self.advance(next, lines);
        Next::Broken(broken)
    }

    /// What is in sight is passed over, and then the rest of its line.
    fn skip_from(&mut self, window: usize) -> Next {
        let bytes = &self.buffer[self.start..][..window];
        // Whether that CR ends a line or is half of a line end is for the next look.
        let whole = whole_characters(&bytes[..window - usize::from(is_last_cr(bytes, window - 1))]);
        let skipping = Skipping {
            position: self.position,
            shown: beginning(bytes),
            bytes: whole.len(),
        };
        let (passed, lines) = (whole.len(), line_ends(whole));
        self.advance(passed, lines);
        self.skip(skipping)
    }

    fn skip(&mut self, mut skipping: Skipping) -> Next {
        let rest = &self.buffer[self.start..];
        let found = line_end(rest).filter(|(at, _)| self.over || !is_last_cr(rest, *at));
        let (passed, lines) = match found {
            Some((_, next)) => (next, 1),
            None if self.over => (rest.len(), 0),
            None => (rest.len() - usize::from(rest.ends_with(b"\r")), 0),
        };
        skipping.bytes += passed;
        let (actual, longest) = (skipping.bytes as u64, self.limit as u64 * LONGEST_SKIP);
        if actual > longest {
            let rest = rest.len();
            self.over = true;
            self.advance(rest, 0);
            return broken(BrokenKind::Endless { actual: longest }, skipping);
        }
        self.advance(passed, lines);
        if found.is_some() || self.over {
            return broken(BrokenKind::TooLong { actual }, skipping);
        }
        self.skipping = Some(skipping);
        Next::More
    }

    fn advance(&mut self, bytes: usize, lines: u64) {
        let passed = &self.buffer[self.start..self.start + bytes];
        self.position.offset += self.length.measure(passed);
        self.start += bytes;
        self.position.line += lines;
        self.wanted = 0;
    }
}

/// A CR with nothing behind it.
fn is_last_cr(bytes: &[u8], at: usize) -> bool {
    at + 1 == bytes.len() && bytes.last() == Some(&b'\r')
}

/// Without a character at the end that is cut.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    // Behind the first bytes of a character: its others, and those that stand for a byte that is none.
    let is_inner = |byte: &&u8| matches!(byte, 0x80..=0xbf | 0xf8..);
    let inner = bytes.iter().rev().take_while(is_inner).count();
    let ends = bytes.len() - inner;
    let first = bytes[..ends].last() >= Some(&0xc0);
    &bytes[..ends - usize::from(first)]
}

/// What is kept of a row that is too long.
fn beginning(bytes: &[u8]) -> Vec<u8> {
    match bytes.get(..SHOWN_BYTES) {
        Some(bytes) => whole_characters(bytes).to_vec(),
        None => bytes.to_vec(),
    }
}

fn broken(kind: BrokenKind, skipping: Skipping) -> Next {
    Next::Broken(Broken {
        kind,
        position: skipping.position,
        bytes: skipping.shown,
    })
}
