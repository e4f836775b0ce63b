//! Splits a stream of text into records. A broken record is reported by itself, and reading
//! continues after it.
//!
//! Nothing here depends on how the bytes arrived. Whether a record is too long is decided
//! without looking beyond the limit, however much of the file has arrived.

mod skipping;

use std::ops::Range;

use self::skipping::Skipping;
use super::broken::{Broken, BrokenKind, Position};
use super::source_length::SourceLength;
use super::syntax::{Extent, Field, Fields, Scan, Syntax, Trim, line_end, line_ends};

/// An incomplete record is scanned again with every piece until it is longer than this. From
/// then on it is scanned only when it has doubled, so that the total time stays linear even if each
/// piece is a single byte.
const RESCAN_BYTES: usize = 1 << 10;

/// The result of [`Records::next`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A record. Its bytes and fields are available until the next call.
    Record {
        /// The index of the first field that has text after its closing quote.
        bad_quote: Option<usize>,
    },
    /// An empty line.
    Blank,
    /// A record that cannot be read.
    Broken(Broken),
    /// More bytes are needed.
    More,
    /// The file has ended.
    End,
}

/// Finds the records in the text that is appended to its buffer.
#[derive(Debug)]
pub(super) struct Records {
    syntax: Syntax,
    length: SourceLength,
    limit: usize,
    buffer: Vec<u8>,
    /// The text before this index of the buffer has been read.
    start: usize,
    /// The position of `start` in the file.
    position: Position,
    ended: bool,
    fields: Fields,
    /// The current record, as a range of the buffer.
    record: Range<usize>,
    record_position: Position,
    /// The number of line ends inside the fields of the current record.
    inner_lines: u64,
    /// The text is not scanned again before this many bytes are unread.
    bytes_wanted: usize,
    skipping: Option<Skipping>,
}

impl Records {
    /// `offset` is the length of the byte order mark, which is not part of the text. Of each record
    /// at most `max_fields` fields are kept.
    pub(super) fn new(
        syntax: Syntax,
        length: SourceLength,
        offset: u64,
        limit: usize,
        max_fields: usize,
    ) -> Self {
        let position = Position { line: 1, offset };
        Self {
            syntax,
            length,
            limit,
            buffer: Vec::new(),
            start: 0,
            position,
            ended: false,
            fields: Fields::new(max_fields),
            record: 0..0,
            record_position: position,
            inner_lines: 0,
            bytes_wanted: 0,
            skipping: None,
        }
    }

    /// Sets the limit, in bytes, for the records that follow.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Sets how the source of the text that follows is measured.
    pub(super) fn set_length(&mut self, length: SourceLength) {
        self.length = length;
    }

    pub(super) fn syntax(&self) -> Syntax {
        self.syntax
    }

    /// Skips physical lines, whatever quotes are in them. Returns the number of skipped lines,
    /// which is smaller only if the text ends before; then more text may follow.
    pub(super) fn skip_lines(&mut self, lines: u64) -> u64 {
        let mut skipped = 0;
        while skipped < lines {
            let rest = &self.buffer[self.start..];
            let found = line_end(rest).filter(|(at, _)| self.ended || !is_last_cr(rest, *at));
            let next = match found {
                Some((_, next)) => next,
                None if self.ended && !rest.is_empty() => rest.len(),
                None => break,
            };
            self.advance(next, 1);
            skipped += 1;
        }
        skipped
    }

    /// Removes blanks around the unquoted fields of the current record.
    pub(super) fn trim(&mut self, trim: Trim) {
        let record = &self.buffer[self.record.clone()];
        self.fields.trim(trim, record, self.syntax.quote());
    }

    /// The buffer to append text to. The call discards the text that has been read, including
    /// the current record.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.start);
        self.start = 0;
        &mut self.buffer
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
        self.bytes_wanted = 0;
    }

    /// Marks the end of the text of a file that goes on. The complete records in the text are then
    /// found without more of it.
    pub(super) fn cut(&mut self) {
        self.bytes_wanted = 0;
    }

    pub(super) fn record(&self) -> &[u8] {
        &self.buffer[self.record.clone()]
    }

    /// The fields of the current record, as many as are kept.
    pub(super) fn fields(&self) -> &[Field] {
        self.fields.kept()
    }

    /// The number of all fields of the current record.
    pub(super) fn field_count(&self) -> usize {
        self.fields.count()
    }

    pub(super) fn record_position(&self) -> Position {
        self.record_position
    }

    pub(super) fn inner_lines(&self) -> u64 {
        self.inner_lines
    }

    /// The record in which the text so far ends and the text of its last field, if that field
    /// is quoted and has a line end.
    pub(super) fn cut_quote(&mut self) -> Option<(Broken, &[u8])> {
        if self.skipping.is_some() {
            return None;
        }
        let rest = &self.buffer[self.start..];
        let scan = self.syntax.scan(rest, false, &mut self.fields);
        let Scan::Cut {
            open_quote: Some(open),
        } = scan
        else {
            return None;
        };
        let (content, _) = line_end(&rest[open..])?;
        let broken = Broken {
            kind: BrokenKind::UnclosedQuote,
            position: self.position,
            bytes: rest[..open + content].to_vec(),
        };
        Some((broken, &rest[open + 1..]))
    }

    pub(super) fn next(&mut self) -> Next {
        if let Some(skipping) = self.skipping.take() {
            return self.skip(skipping);
        }
        let rest = &self.buffer[self.start..];
        match rest {
            [] if self.ended => return Next::End,
            [] => return Next::More,
            [b'\r'] if !self.ended => return Next::More,
            [b'\n' | b'\r', ..] => {
                self.record = self.start..self.start;
                self.record_position = self.position;
                self.inner_lines = 0;
                self.fields.clear();
                self.fields.push(Field::unquoted(0, 0));
                let width = line_end(rest).map_or(1, |(_, next)| next);
                self.advance(width, 1);
                return Next::Blank;
            }
            rest if rest.len() < self.bytes_wanted => return Next::More,
            _ => {}
        }
        // Looking beyond the limit would make the result depend on how the bytes arrive.
        let window = rest.len().min(self.limit.saturating_add(1));
        let is_full = window > self.limit;
        let is_last = self.ended && window == rest.len();
        match self.syntax.scan(&rest[..window], is_last, &mut self.fields) {
            Scan::Whole(extent) if extent.next <= self.limit => self.yield_record(extent),
            Scan::Whole(extent) => self.skip_complete(extent),
            Scan::Cut { open_quote: None } if is_full => self.skip_window(window),
            Scan::Cut {
                open_quote: Some(open),
            } if is_full || is_last => self.report_line(BrokenKind::UnclosedQuote, open, window),
            Scan::Stray { open_quote, field } => {
                self.report_line(BrokenKind::StrayQuote { field }, open_quote, window)
            }
            Scan::Cut { .. } => {
                if rest.len() > RESCAN_BYTES {
                    self.bytes_wanted = (2 * rest.len()).min(self.limit.saturating_add(1));
                }
                Next::More
            }
        }
    }

    fn yield_record(&mut self, extent: Extent) -> Next {
        let Extent {
            content,
            next,
            inner_lines,
            bad_quote,
        } = extent;
        self.record = self.start..self.start + content;
        self.record_position = self.position;
        self.inner_lines = inner_lines;
        self.advance(next, inner_lines + u64::from(next > content));
        Next::Record { bad_quote }
    }

    /// Reports the record up to the end of the line with the quote at `open`. Reading continues
    /// on the next line, as if that quote had not been opened.
    fn report_line(&mut self, kind: BrokenKind, open: usize, window: usize) -> Next {
        let rest = &self.buffer[self.start..][..window];
        let is_all = window <= self.limit;
        let (content, next) = match line_end(&rest[open..]) {
            // A CR at the end of the window may be followed by an LF.
            Some((content, next)) if is_all || !is_last_cr(rest, open + content) => {
                (open + content, open + next)
            }
            None if is_all => (window, window),
            _ => return self.skip_window(window),
        };
        let broken = Broken {
            kind,
            position: self.position,
            bytes: rest[..content].to_vec(),
        };
        let lines = line_ends(&rest[..next]);
        self.advance(next, lines);
        Next::Broken(broken)
    }

    fn advance(&mut self, bytes: usize, lines: u64) {
        let passed = &self.buffer[self.start..self.start + bytes];
        self.position.offset += self.length.measure(passed);
        self.start += bytes;
        self.position.line += lines;
        self.bytes_wanted = 0;
    }
}

/// Whether the byte at `at` is a CR, and the last byte.
fn is_last_cr(bytes: &[u8], at: usize) -> bool {
    at + 1 == bytes.len() && bytes.last() == Some(&b'\r')
}
