//! A second reader, which the tests compare with the real one.
//!
//! It is simple and slow: it has the whole text, and it looks at one character after another. It
//! shares no code with the real reader. Only the dialect is not its own decision.

use carga_common::upload::Dialect;

/// How a text is split into records and cells.
#[derive(Debug)]
pub(crate) struct Grammar {
    delimiter: char,
    quote: Option<char>,
    escape: Option<char>,
    /// Whether all blanks around unquoted cells are removed, if that is stated.
    trim: Option<bool>,
    /// Whether one blank after each delimiter is not part of the cell.
    has_blanks: bool,
}

/// A record as the oracle finds it. A blank line is a record without text.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// The record without its line end.
    pub(crate) text: &'a str,
    /// The index in the text at which the record begins.
    pub(crate) start: usize,
    /// The cells; `None` if the quotes do not belong together.
    pub(crate) cells: Option<Vec<String>>,
}

/// One field at the beginning of a text.
#[derive(Debug)]
enum Field {
    /// A field of this many bytes. If it has no cell, text follows its closing quote.
    Closed { length: usize, cell: Option<String> },
    /// The quote at this index was opened by mistake, so the record ends with its line.
    Open(usize),
}

impl Grammar {
    /// The grammar of this dialect. `None` if one character has two meanings.
    pub(crate) fn of(dialect: &Dialect, trim: Option<bool>) -> Option<Self> {
        let evidence = dialect.evidence.as_ref();
        let delimiter = dialect.delimiter.chars().next()?;
        let quote = dialect.quote.chars().next();
        let escape = dialect.escape.as_ref().and_then(|it| it.chars().next());
        let is_unique = ![quote, escape].contains(&Some(delimiter));
        is_unique.then_some(Self {
            delimiter,
            quote,
            escape,
            trim,
            has_blanks: evidence.is_some_and(|it| {
                let note = "a blank follows every delimiter";
                it.delimiter.contains(note)
            }),
        })
    }

    /// The records below the skipped lines, including the header and blank lines.
    pub(crate) fn records<'a>(&self, text: &'a str, skipped_lines: u64) -> Vec<Record<'a>> {
        let mut start = 0;
        for _ in 0..skipped_lines {
            start += through_line(&text[start..]);
        }
        let mut records = Vec::new();
        while start < text.len() {
            let rest = &text[start..];
            let (length, cells) = self.first_record(rest);
            records.push(Record {
                text: &rest[..length],
                start,
                cells,
            });
            start += length + through_line(&rest[length..]);
        }
        records
    }

    /// The length of the first record without its line end, and its cells.
    fn first_record(&self, text: &str) -> (usize, Option<Vec<String>>) {
        let mut cells = Vec::new();
        let mut is_faulty = false;
        let mut at = 0;
        loop {
            match self.field(&text[at..], cells.len()) {
                Field::Closed { length, cell } => {
                    is_faulty |= cell.is_none();
                    cells.push(cell.unwrap_or_default());
                    at += length;
                }
                Field::Open(quote) => {
                    let quote = at + quote;
                    return (quote + line_length(&text[quote..]), None);
                }
            }
            match text[at..].strip_prefix(self.delimiter) {
                Some(rest) => at = text.len() - rest.len(),
                None => return (at, (!is_faulty).then_some(cells)),
            }
        }
    }

    fn field(&self, text: &str, index: usize) -> Field {
        let blanks = match self.delimiter {
            ' ' => 0,
            _ => text.len() - text.trim_start_matches(' ').len(),
        };
        if let Some(quote) = self.quote
            && text[blanks..].starts_with(quote)
        {
            return self.quoted_field(text, blanks, quote);
        }
        let length = self.field_length(text);
        let text = &text[..length];
        let cell = match (self.trim, self.has_blanks && index > 0) {
            (Some(true), _) => text.trim_ascii(),
            (None, true) => text.strip_prefix(' ').unwrap_or(text),
            _ => text,
        };
        let cell = Some(cell.to_owned());
        Field::Closed { length, cell }
    }

    /// The field whose opening quote is at the index `open`.
    fn quoted_field(&self, text: &str, open: usize, quote: char) -> Field {
        let mut cell = String::new();
        // Each character before the opening quote is a blank, which is one byte.
        let mut characters = text.char_indices().skip(open + 1).peekable();
        while let Some((at, character)) = characters.next() {
            let next = characters.peek().map(|(_, next)| *next);
            if Some(character) == self.escape {
                let Some(next) = next else {
                    break;
                };
                if !self.needs_escape(next) {
                    cell.push(character);
                }
                cell.push(next);
                characters.next();
            } else if character != quote {
                cell.push(character);
            } else if next == Some(quote) {
                cell.push(quote);
                characters.next();
            } else {
                return self.closed_field(text, open, at, cell);
            }
        }
        Field::Open(open)
    }

    /// The field with quotes at the indexes `open` and `close`.
    fn closed_field(&self, text: &str, open: usize, close: usize, cell: String) -> Field {
        let after = &text[close + 1..];
        let after = &after[..self.field_length(after)];
        let has_text = after
            .chars()
            .any(|character| character != ' ' && character != '\t');
        if has_text && text[open..close].contains(['\n', '\r']) {
            return Field::Open(open);
        }
        Field::Closed {
            length: close + 1 + after.len(),
            cell: (!has_text).then_some(cell),
        }
    }

    /// Whether an escape character before this one is not part of the cell.
    fn needs_escape(&self, character: char) -> bool {
        [self.quote, self.escape].contains(&Some(character))
            || [self.delimiter, '\n', '\r'].contains(&character)
    }

    /// The length of the text before the first delimiter or line end.
    fn field_length(&self, text: &str) -> usize {
        let end = text.find([self.delimiter, '\n', '\r']);
        end.unwrap_or(text.len())
    }
}

/// The number of physical lines.
pub(crate) fn lines(text: &str) -> u64 {
    let (mut rest, mut lines) = (text, 0);
    while !rest.is_empty() {
        rest = &rest[through_line(rest)..];
        lines += 1;
    }
    lines
}

/// The length of the first line with its line end.
fn through_line(text: &str) -> usize {
    let length = line_length(text);
    let line_end = match &text[length..] {
        "" => 0,
        rest if rest.starts_with("\r\n") => 2,
        _ => 1,
    };
    length + line_end
}

/// The length of the first line without its line end.
fn line_length(text: &str) -> usize {
    text.find(['\n', '\r']).unwrap_or(text.len())
}
