//! Decides whether single quotes enclose fields, and whether a backslash escapes quotes.

use super::super::syntax::{Syntax, line_end};
use super::nearly_all;
use super::sample::{Sample, SampleRecord, most_frequent_width};

/// The number of fields in these quotes, if nearly all fields that begin with the quote also end
/// with it. An apostrophe at the beginning of a text has no partner.
pub(super) fn quoted_fields(sample: &Sample<'_>) -> usize {
    let quoted = sample.records.iter().map(|record| {
        let fields = record.fields.iter();
        fields
            .filter(|field| record.is_quoted(field, sample.syntax))
            .count()
    });
    let malformed = sample
        .records
        .iter()
        .filter(|record| record.is_malformed)
        .count();
    let quoted: usize = quoted.sum();
    if 10 * malformed > sample.records.len() || !needs_quotes(sample) {
        return 0;
    }
    quoted
}

/// Whether the quotes are needed: one of the fields contains a delimiter or a line end, or nearly
/// all cells of a column are quoted. Two cells such as `'yes'` alone may be texts.
fn needs_quotes(sample: &Sample<'_>) -> bool {
    let mut delimiter = [0; 4];
    let delimiter = sample
        .syntax
        .delimiter()
        .encode_utf8(&mut delimiter)
        .as_bytes();
    let widest = sample.records.iter().map(SampleRecord::width).max();
    // For each column, the cells that are not empty, and those that are quoted.
    let mut columns = vec![(0_usize, 0_usize); widest.unwrap_or(0)];
    for record in sample.records.iter().skip(1) {
        for (field, (filled, quoted)) in record.fields.iter().zip(&mut columns) {
            let text = &record.text[field.start..field.end];
            let is_quoted = record.is_quoted(field, sample.syntax);
            let splits = text.windows(delimiter.len()).any(|part| part == delimiter);
            if is_quoted && (splits || line_end(text).is_some()) {
                return true;
            }
            *filled += usize::from(is_quoted || !text.is_empty());
            *quoted += usize::from(is_quoted);
        }
    }
    columns
        .iter()
        .any(|(filled, quoted)| *quoted > 1 && nearly_all(*quoted, *filled))
}

/// The backslash, if it makes nearly all malformed records of the sample well formed.
pub(super) fn escape(text: &[u8], syntax: Syntax, whole: bool) -> Option<u8> {
    const BACKSLASH: u8 = b'\\';
    let quote = syntax.quote()?;
    if !text.windows(2).any(|pair| pair == [BACKSLASH, quote]) {
        return None;
    }
    let malformed = |syntax| {
        let sample = Sample::split(text, syntax, whole);
        let width = most_frequent_width(&sample.records);
        // A header may have one name less than its rows have fields.
        let is_bad = |(index, record): &(usize, &SampleRecord<'_>)| {
            record.is_malformed || *index > 0 && record.width() != width
        };
        // A quote that is never closed hides all records after it.
        (
            sample.records.iter().enumerate().filter(is_bad).count(),
            sample.records.len(),
        )
    };
    let (before, records) = malformed(syntax);
    let (after, more_records) = malformed(syntax.with_escape(Some(BACKSLASH)));
    let is_better = before > 0 && 10 * after <= before && more_records >= records / 2;
    is_better.then_some(BACKSLASH)
}
