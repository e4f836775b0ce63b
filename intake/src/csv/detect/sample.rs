//! The records at the beginning of a file, split with one syntax.

use std::collections::BTreeMap;

use super::super::syntax::{Field, Fields, Scan, Syntax, line_end, line_ends};

/// How many records are examined.
const MAX_RECORDS: usize = 1000;

/// A quote that is not closed within this many bytes is taken for a stray quote.
const MAX_QUOTED: usize = 16 << 10;

/// Records of the beginning of a file, without blank lines.
#[derive(Debug)]
pub(in crate::csv) struct Sample<'a> {
    pub(in crate::csv) syntax: Syntax,
    pub(in crate::csv) records: Vec<SampleRecord<'a>>,
    /// Whether the sample has every record of the file.
    pub(in crate::csv) is_whole: bool,
}

/// One record of a sample.
#[derive(Debug)]
pub(in crate::csv) struct SampleRecord<'a> {
    /// The record without its line end.
    pub(in crate::csv) text: &'a [u8],
    pub(in crate::csv) fields: Vec<Field>,
    /// How many physical lines stand above the record.
    pub(in crate::csv) lines_above: u64,
    /// Whether a blank line stands directly above the record.
    pub(in crate::csv) after_blank: bool,
    /// Whether text follows the closing quote of a field, or a quote is not closed. Then only the
    /// fields before it are known.
    pub(in crate::csv) is_malformed: bool,
}

impl<'a> Sample<'a> {
    /// Splits the text. Unless the text is the `whole` file, its last record may be incomplete
    /// and is left out. A single record is kept.
    pub(in crate::csv) fn split(text: &'a [u8], syntax: Syntax, whole: bool) -> Self {
        let mut sample = Self {
            syntax,
            records: Vec::new(),
            is_whole: false,
        };
        let mut rest = text;
        let mut lines_above = 0;
        // A sample is small, so all fields are kept.
        let mut fields = Fields::new(usize::MAX);
        while sample.records.len() < MAX_RECORDS {
            let mut after_blank = false;
            while let Some((0, next)) = line_end(rest) {
                after_blank = true;
                lines_above += 1;
                rest = &rest[next..];
            }
            if rest.is_empty() {
                sample.is_whole = whole;
                break;
            }
            let (content, next, is_malformed) = match syntax.scan(rest, whole, &mut fields) {
                Scan::Whole(extent) => (extent.content, extent.next, extent.bad_quote.is_some()),
                // A quote that is not closed costs its own line, as it does in an import.
                Scan::Stray { open_quote, .. } => through_line(rest, open_quote),
                // In the header, a quote that stays open for this long would hide all records.
                Scan::Cut {
                    open_quote: Some(open_quote),
                } if whole || sample.records.is_empty() && rest.len() - open_quote > MAX_QUOTED => {
                    through_line(rest, open_quote)
                }
                Scan::Cut { .. } if sample.records.is_empty() => (rest.len(), rest.len(), false),
                Scan::Cut { .. } => break,
            };
            sample.records.push(SampleRecord {
                text: &rest[..content],
                fields: fields.kept().to_vec(),
                lines_above,
                after_blank,
                is_malformed,
            });
            lines_above += line_ends(&rest[..next]);
            rest = &rest[next..];
        }
        sample
    }
}

/// The extent of a record that ends with the line of this quote.
fn through_line(rest: &[u8], open_quote: usize) -> (usize, usize, bool) {
    match line_end(&rest[open_quote..]) {
        Some((content, next)) => (open_quote + content, open_quote + next, true),
        None => (rest.len(), rest.len(), true),
    }
}

impl SampleRecord<'_> {
    pub(in crate::csv) fn width(&self) -> usize {
        self.fields.len()
    }

    /// The text of a field without its quotes; empty if there is no such field.
    pub(in crate::csv) fn cell(&self, index: usize) -> &[u8] {
        let field = self.fields.get(index);
        field.map_or(&[], |field| &self.text[field.start..field.end])
    }

    /// Whether a field stands in quotes.
    pub(super) fn is_quoted(&self, field: &Field, syntax: Syntax) -> bool {
        let before = field.start.checked_sub(1).and_then(|at| self.text.get(at));
        before.is_some() && before.copied() == syntax.quote()
    }

    /// The number of fields that contain more than blanks.
    pub(in crate::csv) fn filled(&self) -> usize {
        let is_filled = |field: &&Field| !self.text[field.start..field.end].trim_ascii().is_empty();
        self.fields.iter().filter(is_filled).count()
    }
}

/// The records above the footer: notes of one field at the end. They are a footer only below at
/// least two even records of several fields, and if a blank line stands above them or these records
/// have more than two fields.
pub(super) fn without_footer<'a, 'b>(records: &'b [SampleRecord<'a>]) -> &'b [SampleRecord<'a>] {
    let end = records.iter().rposition(|record| record.width() > 1);
    let (above, footer) = records.split_at(end.map_or(0, |last| last + 1));
    let ([.., second_last, last], Some(note)) = (above, footer.first()) else {
        return records;
    };
    let is_even = second_last.width() == last.width();
    let (is_split, is_wide) = (records[0].width() > 1, last.width() > 2);
    let is_footer = match note.after_blank {
        true => is_split || is_wide,
        false => is_split && is_wide,
    };
    match is_even && is_footer {
        true => above,
        false => records,
    }
}

/// The number of fields that most of the records with several fields have.
pub(super) fn most_frequent_width(records: &[SampleRecord<'_>]) -> usize {
    let mut counts = BTreeMap::<usize, usize>::new();
    for record in records.iter().filter(|record| record.width() > 1) {
        *counts.entry(record.width()).or_default() += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|(width, count)| (*count, *width));
    most.map_or(1, |(width, _)| width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, whole: bool) -> Sample<'_> {
        Sample::split(text.as_bytes(), Syntax::new(',', Some(b'"')), whole)
    }

    #[test]
    fn records_know_their_lines_and_the_blank_lines_above_them() {
        let sample = split("title\n\n\na,\"b\nc\"\n1,2\n", true);
        let found: Vec<_> = sample
            .records
            .iter()
            .map(|record| (record.lines_above, record.after_blank, record.width()))
            .collect();
        assert_eq!(found, [(0, false, 1), (3, true, 2), (5, false, 2)]);
        assert!(sample.is_whole);
    }

    #[test]
    fn a_record_that_may_go_on_is_left_out_unless_it_is_the_only_one() {
        assert_eq!(split("a,b\n1,2", false).records.len(), 1);
        assert_eq!(split("a,b\n1,2", true).records.len(), 2);
        assert_eq!(split("a,b", false).records.len(), 1);
    }

    #[test]
    fn an_unclosed_quote_costs_its_own_line() {
        let sample = split("a,b\n1,\"x\n2,y\n3,z\n", true);
        let widths: Vec<_> = sample.records.iter().map(SampleRecord::width).collect();
        assert_eq!(widths, [2, 1, 2, 2]);
        assert!(sample.records[1].is_malformed);
    }
}
