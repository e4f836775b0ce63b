//! Finds the rows of a message in one pass over its bytes.
//!
//! A general JSON parser took more time than archiving the rows. This scanner accepts only lists of
//! texts and nulls, and records their spans.

use std::fmt;
use std::ops::Range;

/// The cells of all rows of a message.
#[derive(Debug)]
pub(super) struct ScannedRows {
    /// One span per cell, row after row.
    pub(super) cells: Vec<Span>,
    pub(super) rows: usize,
    /// Whether any text has a `\u` escape, which may be half a surrogate pair.
    pub(super) has_unicode_escape: bool,
    /// The offset of the bracket that closes the list of rows.
    pub(super) end: usize,
}

/// The bytes of a cell's JSON, and its kind, in 8 bytes: a message of short cells has more memory
/// for its spans than for its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u32,
    /// The length, and above it two bits for the kind. A message is under 8 MiB.
    length_and_kind: u32,
}

impl Span {
    const LENGTH_BITS: u32 = 30;

    fn new(range: Range<usize>, kind: Kind) -> Self {
        Self {
            start: range.start as u32,
            length_and_kind: range.len() as u32 | (kind as u32) << Self::LENGTH_BITS,
        }
    }

    pub(super) fn range(self) -> Range<usize> {
        let start = self.start as usize;
        let length = self.length_and_kind & ((1 << Self::LENGTH_BITS) - 1);
        start..start + length as usize
    }

    pub(super) fn kind(self) -> Kind {
        match self.length_and_kind >> Self::LENGTH_BITS {
            0 => Kind::Null,
            1 => Kind::Plain,
            _ => Kind::Escaped,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null = 0,
    /// A text without an escape.
    Plain = 1,
    /// A text with an escape.
    Escaped = 2,
}

/// A byte that is not allowed at its position in a list of rows.
#[derive(Debug)]
pub(super) struct Unexpected {
    at: usize,
    expected: &'static str,
}

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at byte {}", self.expected, self.at)
    }
}

/// Reads `[cell,…],[cell,…]…]`: the list of rows after its opening bracket. All rows must have
/// the same number of cells.
pub(super) fn scan(body: &[u8], start: usize) -> Result<ScannedRows, Unexpected> {
    let mut scanner = Scanner {
        body,
        at: start,
        has_unicode_escape: false,
    };
    // A short cell has about eight bytes with its quotes and comma. The vector grows if this guess
    // is too small.
    let mut cells = Vec::with_capacity((body.len() - start) / 8);
    let (mut rows, mut width) = (0, None);
    if !scanner.next_is(b']') {
        loop {
            let before = cells.len();
            scanner.row(&mut cells)?;
            let found = cells.len() - before;
            if *width.get_or_insert(found) != found {
                return Err(scanner.expected("a row with as many cells as the first row"));
            }
            rows += 1;
            if !scanner.next_is(b',') {
                break;
            }
            scanner.at += 1;
        }
    }
    scanner.take(b']', "another row or the end of the rows")?;
    // A waiting batch keeps its spans.
    cells.shrink_to_fit();
    Ok(ScannedRows {
        cells,
        rows,
        has_unicode_escape: scanner.has_unicode_escape,
        end: scanner.at - 1,
    })
}

struct Scanner<'a> {
    body: &'a [u8],
    at: usize,
    has_unicode_escape: bool,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    /// Whether `byte` follows after any white space.
    fn next_is(&mut self, byte: u8) -> bool {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        self.peek() == Some(byte)
    }

    fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), Unexpected> {
        if !self.next_is(byte) {
            return Err(self.expected(expected));
        }
        self.at += 1;
        Ok(())
    }

    /// Reads a row with at least one cell.
    fn row(&mut self, cells: &mut Vec<Span>) -> Result<(), Unexpected> {
        self.take(b'[', "a row")?;
        loop {
            cells.push(self.cell()?);
            if !self.next_is(b',') {
                return self.take(b']', "another cell or the end of the row");
            }
            self.at += 1;
        }
    }

    fn cell(&mut self) -> Result<Span, Unexpected> {
        let is_text = self.next_is(b'"');
        let start = self.at;
        let kind = match is_text {
            true => self.text()?,
            false if self.body[start..].starts_with(b"null") => {
                self.at += 4;
                Kind::Null
            }
            false => return Err(self.expected("a text or null")),
        };
        Ok(Span::new(start..self.at, kind))
    }

    /// Skips a text with its quotes.
    fn text(&mut self) -> Result<Kind, Unexpected> {
        self.at += 1;
        let mut kind = Kind::Plain;
        loop {
            let rest = &self.body[self.at..];
            let plain = rest.iter().position(|byte| IS_SPECIAL[usize::from(*byte)]);
            self.at += plain.unwrap_or(rest.len());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(kind);
                }
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    self.escape()?;
                }
                _ => return Err(self.expected("a character or the closing quote of a text")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Unexpected> {
        let length = match self.body.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => {
                let digits = self.body.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.expected("four hexadecimal digits after \\u"));
                }
                self.has_unicode_escape = true;
                6
            }
            _ => return Err(self.expected("a JSON escape")),
        };
        self.at += length;
        Ok(())
    }

    fn expected(&self, expected: &'static str) -> Unexpected {
        Unexpected {
            at: self.at,
            expected,
        }
    }
}

/// The bytes that JSON escapes in a text: quote, backslash and control characters (RFC 8259,
/// section 7).
const IS_SPECIAL: [bool; 256] = {
    let mut is_special = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        is_special[control] = true;
        control += 1;
    }
    is_special[b'"' as usize] = true;
    is_special[b'\\' as usize] = true;
    is_special
};
