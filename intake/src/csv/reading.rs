//! A file whose syntax is known: its text, its header, and the state of its current row.
//!
//! Other modules add methods. `header_reading` reads the header, `row` validates the current record
//! and yields its cells, and `rejecting` reports the records that are not rows.

use carga_common::upload::Dialect;

use super::broken::{Broken, Position};
use super::charset::Charset;
use super::detect::Layout;
use super::header::Header;
use super::records::{Next, Records};
use super::source_length::SourceLength;
use super::syntax::Trim;
use super::transcode::{Transcoder, escaped};

/// How cells are taken from a record.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CellRules {
    /// Which blanks around unquoted cells are removed.
    pub(super) trim: Trim,
    /// Whether a row may lack cells at its end.
    pub(super) pad_short_rows: bool,
}

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) dialect: Dialect,
    pub(super) charset: Charset,
    /// Whether the encoding was decided below the header.
    pub(super) is_late: bool,
    pub(super) transcoder: Transcoder,
    pub(super) records: Records,
    pub(super) header: Header,
    /// What the first rows say about the columns.
    pub(super) layout: Layout,
    /// How many lines above the header the option `skip` should skip, if that is not clear enough.
    pub(super) proposed_skip: Option<u64>,
    /// How cells are taken from a record.
    pub(super) cells: CellRules,
    /// Set while the first record is a row that `next` has not yielded yet. The value is the
    /// record's `bad_quote`.
    pub(super) first_row: Option<Option<usize>>,
    /// The first record, if it is a row that cannot be read and was not yielded yet.
    pub(super) first_broken: Option<Broken>,
    /// The position of the first blank line before the first record.
    pub(super) first_blank: Option<Position>,
    /// Blank lines before the first record that are rows and have not been yielded yet.
    pub(super) leading_blank_rows: u64,
    /// The current row is a blank line before the first record.
    pub(super) is_blank: bool,
    /// The cells of the current row that contain doubled quotes, unescaped and joined.
    pub(super) undoubled: String,
    /// The end of each of these cells in `undoubled`.
    pub(super) undoubled_ends: Vec<usize>,
}

impl Reading {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.transcoder.decode(bytes, false, self.records.buffer());
        self.adopt_decision();
    }

    pub(super) fn end(&mut self) {
        self.transcoder.decode(&[], true, self.records.buffer());
        self.adopt_decision();
        match self.transcoder.fault() {
            None => self.records.end(),
            // The last line goes on in an unknown encoding, so it is not a record.
            Some(_) => self.records.cut(),
        }
    }

    /// Marks a cut: the file goes on, but the rest of it is not read.
    pub(super) fn cut(&mut self) {
        self.transcoder.cut(self.records.buffer());
        self.adopt_decision();
        self.records.cut();
    }

    /// Adopts the encoding that the first bytes beyond ASCII have shown. The text so far is ASCII,
    /// which has the same length in every encoding that was possible.
    fn adopt_decision(&mut self) {
        let Some(decision) = self.transcoder.take_decision() else {
            return;
        };
        self.charset = decision.value;
        self.is_late = true;
        self.records.set_length(SourceLength::of(decision.value));
        self.dialect.encoding = decision.value.name().to_owned();
        if let Some(evidence) = &mut self.dialect.evidence {
            evidence.encoding = decision.evidence;
        }
    }

    /// The position of the current row.
    ///
    /// The blank lines before the first record are rows that were read long ago, when the header
    /// was decided. If their line ends differ in length, their offsets are approximate.
    pub(super) fn position(&self) -> Position {
        let record = match &self.first_broken {
            Some(broken) if self.is_blank => broken.position,
            _ => self.records.record_position(),
        };
        let Some(first) = self.first_blank.filter(|_| self.is_blank) else {
            return record;
        };
        let lines = (record.line - first.line).max(1);
        let above = lines.saturating_sub(1 + self.leading_blank_rows);
        Position {
            line: first.line + above,
            offset: first.offset + (record.offset - first.offset) * above / lines,
        }
    }

    pub(super) fn next_record(&mut self) -> Next {
        match self.first_broken.take() {
            Some(broken) => Next::Broken(broken),
            None => self.records.next(),
        }
    }

    pub(super) fn escaped(&self, bytes: &[u8]) -> String {
        escaped(bytes, self.charset)
    }
}
