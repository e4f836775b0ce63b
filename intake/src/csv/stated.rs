//! What the client states about a file.

use super::charset::Charset;
use super::detect::{Given, Stated};
use super::names::Names;
use super::syntax::Syntax;

/// What the client states about a file. Everything else is detected.
#[derive(Debug, Clone, Default)]
pub struct CsvOptions {
    /// The character that separates fields.
    pub delimiter: Option<char>,
    /// The character that quotes fields; `Some(None)` turns quoting off.
    pub quote: Option<Option<u8>>,
    /// The character that hides a quote in a quoted field, besides a doubled quote; `Some(None)` if
    /// there is none.
    pub escape: Option<Option<u8>>,
    /// The encoding of the file.
    pub encoding: Option<Charset>,
    /// How many physical lines stand above the header.
    pub skip: Option<u64>,
    /// Whether the first record names the columns.
    pub header: Option<bool>,
    /// The names of the columns, which replace the file's header.
    pub columns: Option<Vec<String>>,
    /// What happens to names that cannot be used as they are.
    pub names: Names,
    /// Whether blanks around unquoted cells are removed. If it is not stated, only a blank that
    /// follows every delimiter is removed.
    pub trim: Option<bool>,
    /// Whether a row may lack cells at its end, which are then NULL.
    pub pad_short_rows: bool,
}

impl CsvOptions {
    /// The options that detection follows.
    pub(super) fn stated(&self) -> Stated<'_> {
        Stated {
            syntax: Given {
                delimiter: self.delimiter,
                quote: self.quote,
                escape: self.escape,
                names: self.columns.as_ref().map(Vec::len),
            },
            skip: self.skip,
            header: self.header,
            columns: self.columns.as_deref(),
        }
    }

    /// The syntax, if the client states all that would be detected.
    pub(super) fn stated_syntax(&self) -> Option<Syntax> {
        let is_stated = self.encoding.is_some() && self.skip.is_some() && self.header.is_some();
        let syntax = Syntax::new(self.delimiter?, self.quote?);
        is_stated.then(|| syntax.with_escape(self.escape.flatten()))
    }
}
