//! How a file separates and quotes its fields, and how a record is split accordingly.

mod field_ends;
mod fields;
mod scan;

use memchr::memchr2;

pub(super) use self::fields::{Field, Fields, Trim};
pub(super) use self::scan::{Extent, Scan};

/// The delimiter, the quote and the escape character of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    delimiter: char,
    /// The delimiter in UTF-8; usually one byte.
    encoded: [u8; 4],
    width: usize,
    quote: Option<u8>,
    /// The character that makes the next one part of a quoted field. A doubled quote does the same
    /// in any case.
    escape: Option<u8>,
}

impl Syntax {
    /// A syntax in which only a doubled quote stands for a quote.
    pub(super) fn new(delimiter: char, quote: Option<u8>) -> Self {
        let mut encoded = [0; 4];
        let width = delimiter.encode_utf8(&mut encoded).len();
        Self {
            delimiter,
            encoded,
            width,
            quote,
            escape: None,
        }
    }

    pub(super) fn with_escape(self, escape: Option<u8>) -> Self {
        Self { escape, ..self }
    }

    pub(super) fn delimiter(&self) -> char {
        self.delimiter
    }

    pub(super) fn quote(&self) -> Option<u8> {
        self.quote
    }

    pub(super) fn escape(&self) -> Option<u8> {
        self.escape
    }

    /// Whether the first character of a text inside a quoted field would be misread without an
    /// escape character.
    pub(super) fn needs_escape(&self, text: &[u8]) -> bool {
        let is_special =
            |byte| matches!(byte, b'\n' | b'\r') || [self.quote, self.escape].contains(&Some(byte));
        text.first().is_none_or(|first| is_special(*first))
            || text.starts_with(&self.encoded[..self.width])
    }

    /// The same fields without quotes, to read a line as text.
    pub(super) fn unquoted(&self) -> Self {
        Self {
            quote: None,
            ..*self
        }
    }
}

/// Counts the line ends: LF, CRLF and CR.
pub(super) fn line_ends(bytes: &[u8]) -> u64 {
    let mut count = 0;
    let mut rest = bytes;
    while let Some((_, next)) = line_end(rest) {
        count += 1;
        rest = &rest[next..];
    }
    count
}

/// The index of the first line end, and the index where the next line begins.
pub(super) fn line_end(bytes: &[u8]) -> Option<(usize, usize)> {
    let at = memchr2(b'\n', b'\r', bytes)?;
    let width = if bytes[at..].starts_with(b"\r\n") {
        2
    } else {
        1
    };
    Some((at, at + width))
}

#[cfg(test)]
mod tests;
