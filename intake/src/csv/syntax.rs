//! Finds the fields and the end of one record.
//!
//! The syntax is RFC 4180, extended to what real files contain. Records end with LF, CRLF or
//! CR, and a quote inside an unquoted field is text. Unlike lenient parsers, the scanner
//! reports text after a closing quote, and a quote that is never closed.

use memchr::{memchr, memchr2};

/// The delimiter and the quote of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    /// The delimiter in UTF-8; usually one byte.
    encoded: [u8; 4],
    width: usize,
    quote: Option<u8>,
}

/// The span of a field's text without its quotes, in bytes from the start of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The field contains doubled quotes.
    pub(super) doubled: bool,
}

impl Field {
    pub(super) fn unquoted(start: usize, end: usize) -> Self {
        Self {
            start,
            end,
            doubled: false,
        }
    }
}

/// The fields of a record. Fields beyond a maximum are counted but not kept, because a record of
/// nothing but delimiters would otherwise take 24 times its own memory.
#[derive(Debug)]
pub(super) struct Fields {
    kept: Vec<Field>,
    count: usize,
    max: usize,
}

impl Fields {
    pub(super) fn new(max: usize) -> Self {
        Self {
            kept: Vec::new(),
            count: 0,
            max,
        }
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.count = 0;
    }

    #[inline(always)]
    pub(super) fn push(&mut self, field: Field) {
        if self.count < self.max {
            self.kept.push(field);
        }
        self.count += 1;
    }

    /// The first fields, up to the maximum.
    pub(super) fn kept(&self) -> &[Field] {
        &self.kept
    }

    /// The number of all fields.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

/// The result of [`Syntax::scan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
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
pub(super) struct Extent {
    /// The length without the line end.
    pub(super) content: usize,
    /// The length with the line end, which is the start of the next record.
    pub(super) next: usize,
    /// The number of line ends inside quoted fields.
    pub(super) inner_lines: u64,
    /// The index of the first field that has text or blanks after its closing quote.
    pub(super) bad_quote: Option<usize>,
}

impl Syntax {
    pub(super) fn new(delimiter: char, quote: Option<u8>) -> Self {
        let mut encoded = [0; 4];
        let width = delimiter.encode_utf8(&mut encoded).len();
        Self {
            encoded,
            width,
            quote,
        }
    }

    pub(super) fn quote(&self) -> Option<u8> {
        self.quote
    }

    /// Finds the fields of the first record in `bytes`. `at_end` means that the file ends with
    /// them.
    pub(super) fn scan(&self, bytes: &[u8], at_end: bool, fields: &mut Fields) -> Scan {
        fields.clear();
        let mut inner_lines = 0;
        let mut bad_quote = None;
        let mut at = 0;
        loop {
            let mut field = Field {
                start: at,
                end: at,
                doubled: false,
            };
            if bytes.get(at).is_some() && bytes.get(at).copied() == self.quote {
                let open_quote = at;
                let Some((close, doubled)) = self.closing_quote(bytes, at + 1, at_end) else {
                    return Scan::Cut {
                        open_quote: Some(at),
                    };
                };
                field.start = at + 1;
                field.doubled = doubled;
                let lines = line_ends(&bytes[at + 1..close]);
                at = close + 1;
                if lines > 0 && self.is_text(&bytes[at..]) {
                    let field = fields.count();
                    return Scan::Stray { open_quote, field };
                }
                inner_lines += lines;
                let Some(field_end) = self.field_end(bytes, at, at_end) else {
                    return Scan::Cut { open_quote: None };
                };
                if field_end > at {
                    bad_quote = bad_quote.or(Some(fields.count()));
                }
                field.end = close;
                at = field_end;
            } else {
                let Some(field_end) = self.field_end(bytes, at, at_end) else {
                    return Scan::Cut { open_quote: None };
                };
                field.end = field_end;
                at = field_end;
            }
            fields.push(field);
            let next = match bytes.get(at..) {
                None | Some([]) => at,
                Some([b'\n', ..]) => at + 1,
                Some([b'\r', b'\n', ..]) => at + 2,
                Some([b'\r']) if !at_end => return Scan::Cut { open_quote: None },
                Some([b'\r', ..]) => at + 1,
                Some(_) => {
                    at += self.width;
                    continue;
                }
            };
            return Scan::Whole(Extent {
                content: at,
                next,
                inner_lines,
                bad_quote,
            });
        }
    }

    /// The end of an unquoted field: a delimiter, a line end, or the end of the file. `None` if
    /// more bytes are needed.
    // Inlined by hand, and so are the two others: several callers of `scan` keep the compiler from
    // doing it, which costs a tenth of the reader's instructions.
    #[inline(always)]
    fn field_end(&self, bytes: &[u8], mut at: usize, at_end: bool) -> Option<usize> {
        let first = self.encoded[0];
        while let Some(byte) = bytes.get(at) {
            if *byte == first {
                if self.width == 1 {
                    return Some(at);
                }
                let rest = &bytes[at..];
                if rest.starts_with(&self.encoded[..self.width]) {
                    return Some(at);
                }
                if !at_end && rest.len() < self.width {
                    return None;
                }
            } else if *byte == b'\n' || *byte == b'\r' {
                return Some(at);
            }
            at += 1;
        }
        at_end.then_some(at)
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
mod tests {
    use super::*;

    fn scan(text: &str, at_end: bool) -> (Scan, Vec<Field>) {
        let mut fields = Fields::new(usize::MAX);
        let scan = Syntax::new(',', Some(b'"')).scan(text.as_bytes(), at_end, &mut fields);
        (scan, fields.kept)
    }

    fn texts(text: &str) -> Vec<&str> {
        let (_, fields) = scan(text, true);
        let text = |field: &Field| &text[field.start..field.end];
        fields.iter().map(text).collect()
    }

    #[test]
    fn a_record_ends_at_lf_crlf_cr_or_the_end_of_the_file() {
        for (text, next) in [("a,b\nc", 4), ("a,b\r\nc", 5), ("a,b\rc", 4), ("a,b", 3)] {
            let (found, _) = scan(text, true);
            let Scan::Whole(extent) = found else {
                panic!("{found:?}");
            };
            assert_eq!((extent.content, extent.next), (3, next), "{text:?}");
            assert_eq!(texts(text), ["a", "b"]);
        }
    }

    #[test]
    fn a_record_that_may_continue_is_cut_until_the_file_ends() {
        for text in ["a,b", "a,b\r", "a,\"b\""] {
            assert!(matches!(scan(text, false).0, Scan::Cut { .. }), "{text:?}");
            assert!(matches!(scan(text, true).0, Scan::Whole(_)), "{text:?}");
        }
    }

    #[test]
    fn quoted_fields_contain_delimiters_line_ends_and_doubled_quotes() {
        let text = "\"a,\r\nb\",\"c\"\"d\"\n";
        let (found, fields) = scan(text, false);
        let Scan::Whole(extent) = found else {
            panic!("{found:?}");
        };
        assert_eq!(extent.inner_lines, 1);
        assert_eq!(extent.bad_quote, None);
        assert_eq!(texts(text), ["a,\r\nb", "c\"\"d"]);
        assert_eq!([fields[0].doubled, fields[1].doubled], [false, true]);
    }

    #[test]
    fn a_quote_in_an_unquoted_field_is_text_and_text_after_a_closing_quote_is_reported() {
        assert_eq!(texts("5\" pipe,x"), ["5\" pipe", "x"]);
        let (found, _) = scan("ok,\"a\"b,\"c\"\n", false);
        assert!(
            matches!(found, Scan::Whole(extent) if extent.bad_quote == Some(1) && extent.next == 12)
        );
    }

    #[test]
    fn fields_beyond_the_maximum_are_counted_but_not_kept() {
        let mut fields = Fields::new(3);
        let scan = Syntax::new(',', None).scan(b"a,b,c,d,e\n", false, &mut fields);
        assert!(matches!(scan, Scan::Whole(_)));
        assert_eq!((fields.kept().len(), fields.count()), (3, 5));
    }

    #[test]
    fn an_unclosed_quote_is_reported_with_its_index() {
        for at_end in [false, true] {
            let (found, _) = scan("a,\"b\nc,d\n", at_end);
            assert_eq!(
                found,
                Scan::Cut {
                    open_quote: Some(2)
                }
            );
        }
    }

    #[test]
    fn a_delimiter_may_be_any_character_and_quoting_may_be_off() {
        let mut fields = Fields::new(usize::MAX);
        let text = "a§\"b¤§c".as_bytes();
        let found = Syntax::new('§', None).scan(text, true, &mut fields);
        assert!(matches!(found, Scan::Whole(_)));
        let text = |field: &Field| std::str::from_utf8(&text[field.start..field.end]).unwrap();
        assert_eq!(
            fields.kept.iter().map(text).collect::<Vec<_>>(),
            ["a", "\"b¤", "c"]
        );
    }
}
