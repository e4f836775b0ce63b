//! What the rows of a sample say about the columns.

use std::collections::HashSet;

use super::super::syntax::Syntax;
use super::kinds::Kind;
use super::nearly_all;
use super::sample::SampleRecord;

/// With fewer rows, a header with another number of names is not doubted, even if they are all rows
/// of the file.
const MIN_ROWS: usize = 3;

/// The same for a sample that is not the whole file.
const MIN_ROWS_OF_PART: usize = 10;

/// First fields that are an index of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::csv) enum Index {
    /// As programs write it without a name: it counts from 0, is quoted, or has a name for each
    /// row.
    Written,
    /// It counts from 1, and texts follow it.
    BeforeTexts,
    /// It counts from 1, and the fields after it have values.
    BeforeValues,
}

/// The shape of the rows below a header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::csv) struct Layout {
    /// The number of fields that nearly all rows have; `None` if they do not agree.
    width: Option<usize>,
    is_trusted: bool,
    /// For each field, whether every row has nothing in it.
    empty: Vec<bool>,
    /// The kind of index in the first column, as data frames write it; `None` if it is not an
    /// index.
    index: Option<Index>,
}

impl Layout {
    pub(in crate::csv) fn of(rows: &[SampleRecord<'_>], syntax: Syntax, is_whole: bool) -> Self {
        let widest = rows.iter().map(SampleRecord::width).max().unwrap_or(0);
        let mut counts = vec![0_usize; widest + 1];
        let mut empty = vec![true; widest];
        for row in rows {
            counts[row.width()] += 1;
            for (field, empty) in row.fields.iter().zip(&mut empty) {
                *empty &= field.start == field.end;
            }
        }
        let most_common = counts.iter().enumerate().max_by_key(|(_, count)| **count);
        let agreed =
            most_common.filter(|(_, count)| **count > 0 && nearly_all(**count, rows.len()));
        let enough = if is_whole { MIN_ROWS } else { MIN_ROWS_OF_PART };
        Self {
            width: agreed.map(|(width, _)| width),
            is_trusted: rows.len() >= enough,
            empty,
            index: index(rows, syntax),
        }
    }

    /// The same layout without a width, for rows that may lack cells at their end.
    pub(in crate::csv) fn without_width(self) -> Self {
        Self {
            width: None,
            ..self
        }
    }

    /// The number of fields of the rows, if the sample has enough rows to trust it more than the
    /// number of names in the header.
    pub(in crate::csv) fn trusted_width(&self) -> Option<usize> {
        self.width.filter(|_| self.is_trusted)
    }

    /// Whether no row of the sample has a value in this field.
    pub(in crate::csv) fn is_empty(&self, field: usize) -> bool {
        self.empty.get(field).copied().unwrap_or(true)
    }

    /// The number of fields after the first `name_count`, if there are any and all are empty in
    /// every row.
    pub(in crate::csv) fn empty_after(&self, name_count: usize) -> Option<usize> {
        let more = self.empty.get(name_count..)?;
        if more.is_empty() {
            return None;
        }
        more.iter().all(|is_empty| *is_empty).then_some(more.len())
    }

    pub(in crate::csv) fn index(&self) -> Option<Index> {
        self.index
    }
}

/// The kind of index in the first column, as data frames write it without a name; `None` if the
/// column is not an index.
fn index(rows: &[SampleRecord<'_>], syntax: Syntax) -> Option<Index> {
    if rows.len() < MIN_ROWS || rows.iter().any(|row| row.width() < 2) {
        return None;
    }
    let is_quoted = |row: &SampleRecord<'_>| {
        let first = row.fields.first();
        first.is_some_and(|first| row.is_quoted(first, syntax))
    };
    let all_quoted = rows.iter().all(is_quoted);
    let number = |row: &SampleRecord<'_>| std::str::from_utf8(row.cell(0)).ok()?.parse().ok();
    let numbers: Option<Vec<usize>> = rows.iter().map(number).collect();
    if let Some(numbers) = numbers {
        let first = numbers.first().copied().unwrap_or(0);
        let counts = first <= 1 && numbers.iter().copied().eq(first..first + numbers.len());
        let are_texts = rows.iter().all(|row| Kind::of(row.cell(1)) == Kind::Text);
        return counts.then_some(match (first == 0 || all_quoted, are_texts) {
            (true, _) => Index::Written,
            (false, true) => Index::BeforeTexts,
            (false, false) => Index::BeforeValues,
        });
    }
    let names: HashSet<&[u8]> = rows.iter().map(|row| row.cell(0)).collect();
    let is_value = |row: &SampleRecord<'_>, field| {
        let kind = Kind::of(row.cell(field));
        kind.is_value() || matches!(kind, Kind::Missing | Kind::Empty)
    };
    let is_named = |row: &SampleRecord<'_>| {
        Kind::of(row.cell(0)) == Kind::Text && (1..row.width()).all(|field| is_value(row, field))
    };
    // R writes such names in quotes, or separates them by tabs. In other files, the first column
    // may be any column of texts.
    let may_be_r = all_quoted || matches!(syntax.delimiter(), '\t' | ' ');
    let are_names = names.len() == rows.len() && rows.iter().all(is_named);
    (may_be_r && are_names).then_some(Index::Written)
}
