//! Converts the cells of a file into values of a dataset's types, or gives the reason why a cell is
//! not a value of its type.
//!
//! A message has the canonical text of each value, so that the worker needs no rules of the
//! definition and need not parse strictly:
//!
//! | Type | Canonical text |
//! |---|---|
//! | text | the cell as it is |
//! | integer | `-?(0\|[1-9][0-9]*)` in 64 bits, never `-0` |
//! | numeric | the same with a fraction; zeros at its end are kept; no exponent |
//! | float | the shortest digits that give the same 64 bits; never `-0.0` |
//! | boolean | `true` or `false` |
//! | date | `YYYY-MM-DD`, from year 1 to year 9999 |
//! | timestamp | `YYYY-MM-DDTHH:MM:SS.ffffffZ` |
//! | uuid | lower case with hyphens |
//! | json | the cell as it is |
//!
//! # Rules for every type
//!
//! - A cell that equals a word for NULL, with all its blanks, is NULL.
//! - Blanks and tabs around a value are ignored, except in text and json.
//! - Nothing is rounded, cut or moved to make it fit: a value that the type cannot hold exactly is
//!   a fault. Only a float is rounded, to the nearest value of 64 bits.
//! - The message of a fault never contains the cell. It says if the cell is blank.
//!
//! Each type has its own rules in its file.

mod boolean;
mod changed;
mod date;
mod float;
mod json;
mod number;
#[cfg(test)]
mod tests;
mod timestamp;
mod uuid;
pub(crate) mod wording;

use std::sync::Arc;

use carga_common::dataset::{ColumnDefinition, ColumnType, Definition};
use carga_common::typed::is_usual_text;

use boolean::BooleanWords;
use changed::ChangedCells;
use date::DeclaredFormat;
use number::NumberRules;

/// The most characters of a declared word or currency in a message.
const WORD_CHARS: usize = 30;

/// The rules for the cells of one column.
#[derive(Debug, Clone)]
pub struct ColumnRules {
    kind: ColumnType,
    required: bool,
    /// Columns share one list, because it may be long, and a dataset may have many columns.
    null: Arc<[String]>,
    /// Whether the column has a list of its own, which the option `null` does not replace.
    has_own_null: bool,
    number: NumberRules,
    words: BooleanWords,
    format: Option<DeclaredFormat>,
}

impl ColumnRules {
    /// Prepares the rules of a column of this definition.
    pub fn new(definition: &Definition, column: &ColumnDefinition) -> Self {
        Self::with_null(column, definition.null_words(column).into())
    }

    fn with_null(column: &ColumnDefinition, null: Arc<[String]>) -> Self {
        Self {
            kind: column.kind,
            required: column.required,
            null,
            has_own_null: column.null.is_some(),
            number: NumberRules::new(column),
            words: BooleanWords::new(column),
            format: column.format.as_deref().map(DeclaredFormat::new),
        }
    }

    /// Whether a cell means NULL.
    pub fn is_null(&self, cell: &str) -> bool {
        self.null.iter().any(|word| word == cell)
    }

    /// Appends the canonical text of a cell, and returns its span. NULL has none.
    fn convert(&self, cell: &str, text: &mut String) -> Result<Option<(usize, usize)>, Fault> {
        if self.is_null(cell) {
            return self.check_null().map(|()| None);
        }
        let start = text.len();
        canonical(self, cell, text)?;
        Ok(Some((start, text.len())))
    }

    fn check_null(&self) -> Result<(), Fault> {
        match self.required {
            true => Err(Fault::missing_value()),
            false => Ok(()),
        }
    }
}

/// Why a cell cannot be stored in its column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `wrong_type`, `out_of_range` or `missing_value`.
    pub code: &'static str,
    /// The explanation, for people. It does not contain the cell.
    pub message: String,
}

impl Fault {
    fn wrong_type(message: impl Into<String>) -> Self {
        Self {
            code: "wrong_type",
            message: message.into(),
        }
    }

    fn out_of_range(message: impl Into<String>) -> Self {
        Self {
            code: "out_of_range",
            message: message.into(),
        }
    }

    /// The fault of a cell without a value. Such cells are often meant as NULL.
    fn blank(rules: &ColumnRules, cell: &str) -> Self {
        let kind = rules.kind;
        let (state, text) = match cell.is_empty() {
            true => ("is empty", "`\"\"`"),
            false => ("has only blanks", "their text, with all its blanks,"),
        };
        let lists = match rules.has_own_null {
            true => "the list `null` of the column",
            false => "the list `null` of the definition, or to the option `null` of the upload",
        };
        Self::wrong_type(format!(
            "expected a value of type {kind}, and the cell {state}; if such cells mean NULL, add {text} to {lists}"
        ))
    }

    fn missing_value() -> Self {
        Self {
            code: "missing_value",
            message: "the column is required, and the cell is missing or means NULL".to_owned(),
        }
    }

    fn in_column(self, column: usize) -> CellFault {
        CellFault {
            column,
            code: self.code,
            message: self.message,
        }
    }
}

/// A fault of one cell of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellFault {
    /// The index of the file's column, from 0.
    pub column: usize,
    /// `wrong_type`, `out_of_range` or `missing_value`.
    pub code: &'static str,
    /// The explanation, for people. It does not contain the cell.
    pub message: String,
}

/// Appends the canonical text of a cell that is not NULL. A cell with a fault appends nothing.
pub fn canonical(rules: &ColumnRules, cell: &str, out: &mut String) -> Result<(), Fault> {
    // A closure is compiled into the loop; the array `[' ', '\t']` is searched for each character.
    let value = cell.trim_matches(|character| matches!(character, ' ' | '\t'));
    let converted = match rules.kind {
        ColumnType::Text => {
            out.push_str(cell);
            Ok(())
        }
        ColumnType::Integer => number::integer(&rules.number, value, out),
        ColumnType::Numeric => number::numeric(&rules.number, value, out),
        ColumnType::Float => float::canonical(&rules.number, value, out),
        ColumnType::Boolean => boolean::canonical(&rules.words, value, out),
        ColumnType::Date => date::canonical(rules.format.as_ref(), value, out),
        ColumnType::Timestamp => timestamp::canonical(rules.format.as_ref(), value, out),
        ColumnType::Uuid => uuid::canonical(value, out),
        ColumnType::Json => json::canonical(cell, out),
    };
    // Not before the conversion, because an empty text may be a word for true or false.
    converted.map_err(|fault| match cell.trim().is_empty() {
        true => Fault::blank(rules, cell),
        false => fault,
    })
}

/// Converts the rows of one file, one after the other, into the columns of a dataset.
#[derive(Debug)]
pub struct Converter {
    /// The rules of each column of the dataset.
    rules: Vec<ColumnRules>,
    /// A column of the file and the column of the dataset that it fills, in the file's order.
    pairs: Vec<(usize, usize)>,
    /// The canonical texts of the current row. Rows share the buffer, so that a row allocates
    /// nothing.
    text: String,
    /// The span of each column of the dataset in `text`; `None` for NULL.
    spans: Vec<Option<(usize, usize)>>,
    changed: ChangedCells,
}

impl Converter {
    /// Prepares a converter. `sources` has the index of the file's column for each column of the
    /// dataset, or `None` for a column that the file lacks. That column is always NULL.
    pub fn new(definition: &Definition, sources: &[Option<usize>], file_columns: usize) -> Self {
        let shared: Arc<[String]> = definition.null.as_slice().into();
        let columns = definition.columns.iter();
        let rules: Vec<_> = columns
            .map(|column| match &column.null {
                Some(own) => ColumnRules::with_null(column, own.as_slice().into()),
                None => ColumnRules::with_null(column, Arc::clone(&shared)),
            })
            .collect();
        let sources = sources.iter().take(rules.len()).enumerate();
        let mut pairs: Vec<_> = sources
            .filter_map(|(column, source)| source.map(|source| (source, column)))
            .filter(|(source, _)| *source < file_columns)
            .collect();
        pairs.sort_unstable();
        Self {
            spans: vec![None; rules.len()],
            rules,
            pairs,
            text: String::new(),
            changed: ChangedCells::default(),
        }
    }

    /// Converts a row. The cells are in the file's order, and cells that are missing at the end are
    /// NULL. Returns the fault of the first cell that has one.
    pub fn convert<'a>(&mut self, cells: impl Iterator<Item = &'a str>) -> Result<(), CellFault> {
        self.text.clear();
        self.spans.fill(None);
        self.changed.clear();
        let mut pairs = self.pairs.iter().peekable();
        for (source, cell) in cells.enumerate() {
            // `None` until a column of the dataset takes the cell. An ignored cell has no value.
            let mut is_usual = None;
            while let Some((_, column)) = pairs.next_if(|(wanted, _)| *wanted == source) {
                let rules = &self.rules[*column];
                let converted = rules.convert(cell, &mut self.text);
                let span = converted.map_err(|fault| fault.in_column(source))?;
                let value = span.map(|(start, end)| &self.text[start..end]);
                let is_same = is_usual_text(rules.kind, value, cell);
                is_usual = Some(is_same && is_usual.unwrap_or(true));
                self.spans[*column] = span;
            }
            if !is_usual.unwrap_or(cell.is_empty()) {
                self.changed.push(source, cell);
            }
        }
        for (source, column) in pairs {
            let checked = self.rules[*column].check_null();
            checked.map_err(|fault| fault.in_column(*source))?;
        }
        Ok(())
    }

    /// The canonical texts of the row that was converted last, in the definition's order. NULL is
    /// `None`.
    pub fn cells(&self) -> impl Iterator<Item = Option<&str>> {
        let spans = self.spans.iter();
        spans.map(move |span| span.map(|(start, end)| &self.text[start..end]))
    }

    /// The changed cells of the row that was converted last, each with the index of the file's
    /// column. Their text is not the usual one (see [`carga_common::typed::usual_text`]).
    pub fn changed(&self) -> impl Iterator<Item = (u32, &str)> {
        self.changed.iter()
    }
}
