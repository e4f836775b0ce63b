//! Detects from the beginning of a file how it is written, with the evidence for each decision.

mod delimiters;
mod header;
mod kinds;
mod layout;
mod quoting;
mod sample;
mod skip;
mod syntax;
mod table;

pub(super) use self::layout::{Index, Layout};
pub(super) use self::sample::Sample;
pub(super) use self::syntax::Given;

use self::header::{FirstRecord, first_record};
use self::sample::SampleRecord;
use self::skip::{Above, above, separator_line};
use super::suspicion::row_like_lines;
use super::syntax::{Syntax, line_end};

const SEPARATOR_LINE: &str = "the first line is a `sep=` line";

/// A decision, and the evidence for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision<T> {
    pub(super) value: T,
    pub(super) evidence: String,
}

pub(super) fn decision<T>(value: T, evidence: impl Into<String>) -> Decision<T> {
    Decision {
        value,
        evidence: evidence.into(),
    }
}

/// Whether a part is at least nine tenths of the whole. Real files have a few damaged records.
fn nearly_all(part: usize, whole: usize) -> bool {
    10 * part >= 9 * whole
}

/// What a client states about the records of its file. Everything else is detected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stated<'a> {
    pub(super) syntax: Given,
    pub(super) skip: Option<u64>,
    pub(super) header: Option<bool>,
    /// The names that replace the file's header.
    pub(super) columns: Option<&'a [String]>,
}

/// How a file is written.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) syntax: Decision<Syntax>,
    /// How many lines above the header are skipped, from the beginning of the sample.
    pub(super) skipped: Decision<u64>,
    /// How many lines above the header `skip` should skip, if that is not clear enough.
    pub(super) proposed_skip: Option<u64>,
    pub(super) header: Decision<bool>,
    pub(super) layout: Layout,
    /// Whether a blank follows every delimiter.
    pub(super) has_blanks: bool,
}

/// Detects how a text is written. Unless the sample is the `whole` file, its last record may be
/// incomplete. If `skip` is stated, the sample begins after these lines.
pub(super) fn detect(text: &[u8], stated: Stated<'_>, whole: bool) -> Found {
    let (separator, rest) = match separator(text, stated) {
        Some((delimiter, rest)) => (Some(delimiter), rest),
        None => (None, text),
    };
    let mut given = stated.syntax;
    given.delimiter = given.delimiter.or(separator);
    let (sample, mut evidence) = syntax::split(rest, given, whole);
    if separator.is_some() && stated.syntax.delimiter.is_none() {
        SEPARATOR_LINE.clone_into(&mut evidence);
    }
    let (above, records) = lines_above(&sample, stated, separator.is_some());
    let has_blanks = syntax::has_blank_after_delimiters(&sample);
    if has_blanks {
        let note = "; a blank follows every delimiter and is not part of the cells";
        evidence.push_str(note);
    }
    let header = header_decision(records, stated);
    let rows = match header.value {
        true => records.get(1..).unwrap_or_default(),
        false => records,
    };
    if let Some((row, lines)) = first_suspicious(rows, sample.syntax) {
        let warning =
            format!("; row {row} has a quoted field with {lines} lines that look like rows");
        evidence.push_str(&warning);
    }
    Found {
        layout: Layout::of(rows, sample.syntax, sample.is_whole),
        has_blanks,
        syntax: decision(sample.syntax, evidence),
        skipped: above.skipped,
        proposed_skip: above.proposed,
        header,
    }
}

/// The delimiter that a first line such as `sep=;` states, and the text below this line. A quote
/// cannot be the delimiter.
fn separator<'a>(text: &'a [u8], stated: Stated<'_>) -> Option<(char, &'a [u8])> {
    if stated.skip.is_some() {
        return None;
    }
    let (end, next) = line_end(text).unwrap_or((text.len(), text.len()));
    let quote = stated.syntax.quote.unwrap_or(Some(b'"')).map(char::from);
    let delimiter = separator_line(&text[..end])?;
    (Some(delimiter) != quote).then_some((delimiter, &text[next..]))
}

/// The lines above the table of a sample, and the records from its header on. A `sep=` line stands
/// above the sample.
fn lines_above<'a, 'b>(
    sample: &'b Sample<'a>,
    stated: Stated<'_>,
    has_separator: bool,
) -> (Above, &'b [SampleRecord<'a>]) {
    let records = &sample.records;
    if let Some(lines) = stated.skip {
        let given = Above {
            skipped: decision(lines, "given"),
            proposed: None,
        };
        return (given, records);
    }
    let mut above = above(sample);
    let skipped = above.skipped.value;
    let start = records
        .iter()
        .position(|record| record.lines_above >= skipped);
    if has_separator {
        let evidence = match skipped {
            0 => SEPARATOR_LINE.to_owned(),
            _ => format!("{SEPARATOR_LINE}; {}", above.skipped.evidence),
        };
        above.skipped = decision(skipped + 1, evidence);
        above.proposed = above.proposed.map(|lines| lines + 1);
    }
    (above, &records[start.unwrap_or(records.len())..])
}

/// The number of the first row with a quoted field that may contain rows, and how many.
fn first_suspicious(rows: &[SampleRecord<'_>], syntax: Syntax) -> Option<(u64, u64)> {
    let of_lines = |(_, row): &(u64, &SampleRecord<'_>)| line_end(row.text).is_some();
    let mut numbered = (1..).zip(rows).filter(of_lines);
    numbered.find_map(|(number, row)| {
        let mut cells = (0..row.width()).map(|field| row.cell(field));
        let lines = cells.find_map(|cell| row_like_lines(cell, syntax, row.width()))?;
        Some((number, lines))
    })
}

fn header_decision(records: &[SampleRecord<'_>], stated: Stated<'_>) -> Decision<bool> {
    if let Some(header) = stated.header {
        return decision(header, "given");
    }
    let first = first_record(records);
    let is_header = match (first.value, stated.columns) {
        (FirstRecord::Header, _) | (FirstRecord::Unknown, None) => true,
        (FirstRecord::Row, _) => false,
        // Without evidence, the first record is not skipped, because it may be a row.
        (FirstRecord::Unknown, Some(columns)) => {
            let has_names = records.first().is_some_and(|record| {
                let mut names = columns.iter().enumerate();
                record.width() == columns.len()
                    && names.all(|(index, name)| {
                        record
                            .cell(index)
                            .trim_ascii()
                            .eq_ignore_ascii_case(name.as_bytes())
                    })
            });
            let evidence = match has_names {
                true => "the first record has the given names",
                false => "assumed: the names are given, and the first record does not repeat them",
            };
            return decision(has_names, evidence);
        }
    };
    decision(is_header, first.evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Stated<'static> = Stated {
        syntax: Given {
            delimiter: None,
            quote: None,
            escape: None,
            names: None,
        },
        skip: None,
        header: None,
        columns: None,
    };

    #[test]
    fn a_separator_line_sets_the_delimiter_and_is_skipped() {
        let found = detect(b"sep=;\nid;name, first\n1;Ada, A\n", NOTHING, true);
        assert_eq!(found.syntax.value.delimiter(), ';');
        assert_eq!((found.skipped.value, found.header.value), (1, true));
        let titled = detect(
            b"sep=,\nReport\n\nid,name,x\n1,Ada,2\n2,Eve,3\n",
            NOTHING,
            true,
        );
        assert_eq!(titled.skipped.value, 3);
    }

    #[test]
    fn given_names_do_not_make_the_first_record_a_header() {
        let names = ["a".to_owned(), "b".to_owned()];
        let stated = Stated {
            columns: Some(&names),
            ..NOTHING
        };
        let header = |text: &str| detect(text.as_bytes(), stated, true).header.value;
        assert!(!header("Ada,London\nEve,Paris\n"));
        assert!(header("A,B\nEve,Paris\n"));
        assert!(header("id,year\n1,2001\n2,2002\n"));
    }
}
