//! Finds the fields and the end of one record.
//!
//! The syntax is RFC 4180, extended to what real files contain. Records end with LF, CRLF or
//! CR, and a quote inside an unquoted field is text. Unlike lenient parsers, the scanner
//! reports text after a closing quote, and a quote that is never closed.

use memchr::{memchr, memchr2};

use super::field_ends::FieldEnds;
use super::{Field, Fields, Syntax, line_ends};

/// The result of [`Syntax::scan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::csv) enum Scan {
    /// A complete record.
    Whole(Extent),
    /// The bytes end before the record does. `open_quote` is the index of the quote that is
    /// still open.
    Cut { open_quote: Option<usize> },
    /// A quoted field runs over line ends, and text other than blanks follows its closing quote.
    /// The two quotes probably do not belong together, so the scan ends here.
    Stray {
        /// The index of the opening quote.
        open_quote: usize,
        /// The index of the field.
        field: usize,
    },
}

/// The extent of a record, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::csv) struct Extent {
    /// The length without the line end.
    pub(in crate::csv) content: usize,
    /// The length with the line end, which is the start of the next record.
    pub(in crate::csv) next: usize,
    /// The number of line ends inside quoted fields.
    pub(in crate::csv) inner_lines: u64,
    /// The index of the first field that has text after its closing quote.
    pub(in crate::csv) bad_quote: Option<usize>,
}

/// A quoted field, from its opening quote to the delimiter or the line end after it.
struct Quoted {
    field: Field,
    end: usize,
    inner_lines: u64,
    /// Whether text other than blanks follows the closing quote.
    has_text_after: bool,
}

impl Syntax {
    /// Finds the fields of the first record in `bytes`. `at_end` means that the file ends with
    /// them.
    pub(in crate::csv) fn scan(&self, bytes: &[u8], at_end: bool, fields: &mut Fields) -> Scan {
        fields.clear();
        let mut ends = FieldEnds::new(bytes, self.encoded[0]);
        let (mut inner_lines, mut bad_quote) = (0, None);
        let mut at = 0;
        loop {
            let open_quote = match bytes.get(at) {
                // Blanks between a delimiter and a quote are not part of the field.
                Some(b' ') => self.quote_after_blanks(bytes, at),
                Some(first) => (Some(*first) == self.quote).then_some(at),
                None => None,
            };
            if let Some(open_quote) = open_quote {
                let quoted = match self.quoted(bytes, open_quote, at_end, &mut ends) {
                    Ok(quoted) => quoted,
                    Err(Incomplete::Cut(open_quote)) => return Scan::Cut { open_quote },
                    Err(Incomplete::Stray) => {
                        let field = fields.count();
                        return Scan::Stray { open_quote, field };
                    }
                };
                if quoted.has_text_after {
                    bad_quote = bad_quote.or(Some(fields.count()));
                }
                inner_lines += quoted.inner_lines;
                fields.push(quoted.field);
                at = quoted.end;
            } else {
                let Some(end) = self.field_end(bytes, at, at_end, &mut ends) else {
                    return Scan::Cut { open_quote: None };
                };
                fields.push(Field::unquoted(at, end));
                at = end;
            }
            match bytes.get(at) {
                None | Some(b'\n' | b'\r') => break,
                Some(_) => at += self.width,
            }
        }
        match after_line_end(bytes, at, at_end) {
            None => Scan::Cut { open_quote: None },
            Some(next) => Scan::Whole(Extent {
                content: at,
                next,
                inner_lines,
                bad_quote,
            }),
        }
    }

    /// Reads the quoted field whose quote is at `open_quote`.
    #[inline(always)]
    fn quoted(
        &self,
        bytes: &[u8],
        open_quote: usize,
        at_end: bool,
        ends: &mut FieldEnds<'_>,
    ) -> Result<Quoted, Incomplete> {
        let start = open_quote + 1;
        let (close, doubled) = self
            .closing_quote(bytes, start, at_end)
            .ok_or(Incomplete::Cut(Some(open_quote)))?;
        let inner_lines = line_ends(&bytes[start..close]);
        let after = close + 1;
        if inner_lines > 0 && self.is_text(&bytes[after..]) {
            return Err(Incomplete::Stray);
        }
        let end = self
            .field_end(bytes, after, at_end, ends)
            .ok_or(Incomplete::Cut(None))?;
        Ok(Quoted {
            field: Field {
                start,
                end: close,
                doubled,
            },
            end,
            inner_lines,
            has_text_after: end > after && !is_blank(&bytes[after..end]),
        })
    }

    /// The end of an unquoted field: a delimiter, a line end, or the end of the file. `None` if
    /// more bytes are needed.
    // Inlined by hand, and so are the two others: several callers of `scan` keep the compiler from
    // doing it, which costs a tenth of the reader's instructions.
    #[inline(always)]
    fn field_end(
        &self,
        bytes: &[u8],
        mut at: usize,
        at_end: bool,
        ends: &mut FieldEnds<'_>,
    ) -> Option<usize> {
        while let Some(found) = ends.next(at) {
            let byte = bytes[found];
            if matches!(byte, b'\n' | b'\r') {
                return Some(found);
            }
            if byte == self.encoded[0] {
                if self.width == 1 {
                    return Some(found);
                }
                let rest = &bytes[found..];
                if rest.starts_with(&self.encoded[..self.width]) {
                    return Some(found);
                }
                if !at_end && rest.len() < self.width {
                    return None;
                }
            }
            at = found + 1;
        }
        at_end.then_some(bytes.len())
    }

    /// The index of a quote that only blanks separate from `at`. Such blanks are spaces: a tab is
    /// often a delimiter.
    #[cold]
    fn quote_after_blanks(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let is_blank = |byte: &u8| *byte == b' ' && *byte != self.encoded[0];
        let blanks = bytes[at..].iter().take_while(|byte| is_blank(byte)).count();
        let quote = at + blanks;
        let is_quote = bytes.get(quote).is_some() && bytes.get(quote).copied() == self.quote;
        is_quote.then_some(quote)
    }

    /// Whether the bytes after a closing quote are text, and neither a delimiter, a part of one
    /// nor a line end. Some programs write blanks between the quote and the delimiter, so blanks
    /// alone do not show that the quotes do not belong together.
    #[cold]
    fn is_text(&self, bytes: &[u8]) -> bool {
        let delimiter = &self.encoded[..self.width];
        let is_blank = |byte: u8| matches!(byte, b' ' | b'\t') && byte != self.encoded[0];
        let Some(blanks) = bytes.iter().position(|byte| !is_blank(*byte)) else {
            return false;
        };
        let rest = &bytes[blanks..];
        !matches!(rest, [b'\n' | b'\r', ..])
            && !rest.starts_with(delimiter)
            && !delimiter.starts_with(rest)
    }

    /// The index of the closing quote, and whether doubled quotes precede it. A quote that is
    /// the last byte may turn out to be a doubled one.
    #[inline(always)]
    fn closing_quote(&self, bytes: &[u8], mut at: usize, at_end: bool) -> Option<(usize, bool)> {
        let quote = self.quote?;
        if let Some(escape) = self.escape {
            return closing_quote_escaped(bytes, at, at_end, quote, escape);
        }
        let mut doubled = false;
        loop {
            let close = at + memchr(quote, bytes.get(at..)?)?;
            match bytes.get(close + 1) {
                Some(byte) if *byte == quote => {
                    doubled = true;
                    at = close + 2;
                }
                None if !at_end => return None,
                _ => return Some((close, doubled)),
            }
        }
    }
}

/// The index after the line end at `at`, or after the end of the file. `None` if a CR is the last
/// byte and may be half of a CRLF.
#[inline(always)]
fn after_line_end(bytes: &[u8], at: usize, at_end: bool) -> Option<usize> {
    match (bytes.get(at), bytes.get(at + 1)) {
        (None, _) => Some(at),
        (Some(b'\r'), Some(b'\n')) => Some(at + 2),
        (Some(b'\r'), None) if !at_end => None,
        _ => Some(at + 1),
    }
}

/// Why a quoted field cannot be read.
enum Incomplete {
    /// The bytes end before the field does. The value is the index of the quote that is open.
    Cut(Option<usize>),
    /// The field has line ends, and text follows its closing quote.
    Stray,
}

/// Like [`Syntax::closing_quote`], in a file in which an escape character hides a quote.
#[inline(never)]
fn closing_quote_escaped(
    bytes: &[u8],
    mut at: usize,
    at_end: bool,
    quote: u8,
    escape: u8,
) -> Option<(usize, bool)> {
    let mut doubled = false;
    loop {
        let close = at + memchr2(quote, escape, bytes.get(at..)?)?;
        match (bytes[close], bytes.get(close + 1)) {
            (_, None) if !at_end => return None,
            (byte, Some(_)) if byte == escape && escape != quote => {
                doubled = true;
                at = close + 2;
            }
            (byte, Some(next)) if byte == quote && *next == quote => {
                doubled = true;
                at = close + 2;
            }
            (byte, _) if byte == quote => return Some((close, doubled)),
            // An escape character at the end of the file.
            _ => return None,
        }
    }
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' ' | b'\t'))
}
