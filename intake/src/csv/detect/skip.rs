//! Finds the lines above the header: titles, notes, comments, blank lines and `sep=;`.
//!
//! Such lines have other fields than the table below them. Lines are skipped only if they cannot be
//! data; otherwise the header is the first record, and the preview proposes the option `skip`.

use super::header::{FirstRecord, first_record};
use super::sample::{Sample, SampleRecord};
use super::table::{MAX_TITLES, Table, table};
use super::{Decision, decision};

/// The lines above the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Above {
    /// How many physical lines are skipped.
    pub(super) skipped: Decision<u64>,
    /// How many lines seem to stand above the header, if that is more than are skipped.
    pub(super) proposed: Option<u64>,
}

impl Above {
    fn nothing(evidence: &str) -> Self {
        Self {
            skipped: decision(0, evidence),
            proposed: None,
        }
    }
}

/// The delimiter in a first line such as `sep=;`, which Excel reads and many programs write.
pub(super) fn separator_line(line: &[u8]) -> Option<char> {
    let line = line.strip_prefix(b"\"").unwrap_or(line);
    let line = std::str::from_utf8(line).ok()?;
    let value = line
        .get(..4)
        .filter(|name| name.eq_ignore_ascii_case("sep="));
    let value = &line[value?.len()..];
    let value = value.strip_suffix('"').unwrap_or(value);
    let mut characters = value.chars();
    match (characters.next(), characters.next()) {
        (Some(delimiter), None) => Some(delimiter),
        (None, None) => None,
        _ => (value == "\\t").then_some('\t'),
    }
}

/// How many comments stand above the table. A comment just above it may be its header, as in
/// `#name,position`.
fn comments(records: &[SampleRecord<'_>]) -> usize {
    let is_comment = |record: &&SampleRecord<'_>| record.text.starts_with(b"#");
    let count = records.iter().take_while(is_comment).count();
    let (comments, rest) = records.split_at(count);
    let (Some(last), Some(first)) = (comments.last(), rest.first()) else {
        return 0;
    };
    let is_text = |comment: &&SampleRecord<'_>| comment.text.starts_with(b"# ");
    let is_uneven = |comment: &SampleRecord<'_>| comment.width() != first.width();
    // A blank follows each comma of a sentence, and hardly any comma of a header.
    let is_prose = (1..last.width()).all(|field| last.cell(field).starts_with(b" "));
    let may_be_header = !is_uneven(last) && !is_prose;
    let all_texts = comments.iter().all(|comment| is_text(&comment));
    if all_texts && comments.iter().any(is_uneven) && !may_be_header {
        return count;
    }
    // A comment that has the width of the table may also be its header, or a row.
    let is_note = |comment: &&SampleRecord<'_>| {
        is_uneven(comment) || is_text(comment) || comment.text.starts_with(b"##")
    };
    let has_header = count > 1 || is_text(&last);
    if has_header && first_record(rest).value == FirstRecord::Header {
        return comments.iter().take_while(is_note).count();
    }
    let of_table = comments
        .iter()
        .position(|comment| comment.width() == first.width());
    match last.width() == first.width() {
        true => of_table.unwrap_or(0),
        false => count,
    }
}

/// Decides how many lines stand above the header of the table.
pub(super) fn above(sample: &Sample<'_>) -> Above {
    let comments = comments(&sample.records);
    let records = &sample.records[comments..];
    let found = table(records);
    let start = found.map_or(0, |table| without_padded_titles(records, table));
    let start = match start {
        0 => below_padded_notes(records).unwrap_or(0),
        start => start,
    };
    let (titles, rest) = records.split_at(start);
    let (Some(header), Some(table)) = (rest.first(), found) else {
        return above_comments(sample, comments, "the file has no table of several columns");
    };
    if titles.is_empty() {
        return above_comments(
            sample,
            comments,
            "the first record has the width of the table",
        );
    }
    let (lines, width) = (header.lines_above, table.width);
    let first = first_record(rest).value;
    if titles.iter().any(|title| title.is_malformed) || may_be_header(titles, rest, width, first) {
        let evidence = "the first record may be a header with another number of fields";
        return above_comments(sample, comments, evidence);
    }
    match reason(titles, rest, width, first).filter(|_| titles.len() <= MAX_TITLES) {
        Some(reason) => Above {
            skipped: decision(
                lines,
                format!(
                    "above the table of {width} columns, {} skipped: {reason}",
                    count_lines(lines)
                ),
            ),
            proposed: None,
        },
        None => Above {
            skipped: decision(
                0,
                format!(
                    "skip={lines} would skip lines that have other fields than the table of {width} columns below them; they may be data"
                ),
            ),
            proposed: Some(lines),
        },
    }
}

/// Whether the line just above the table may be its header: it lacks one field, as above rows with
/// a trailing delimiter or an index, has more fields than the rows, or has as many at another
/// delimiter. Above a blank line it is not, and a line of as many words as the table has columns is
/// a title if a header follows it. `first` is what the table's first record is.
fn may_be_header(
    titles: &[SampleRecord<'_>],
    table: &[SampleRecord<'_>],
    width: usize,
    first: FirstRecord,
) -> bool {
    let Some(last) = titles.last().filter(|_| !table[0].after_blank) else {
        return false;
    };
    let at_other = [b',', b';', b'\t', b'|', b' ']
        .into_iter()
        .any(|delimiter| {
            let parts = last.text.split(|byte| *byte == delimiter);
            last.width() == 1 && parts.count() == width
        });
    last.filled() > 1 && last.width() + 1 >= width || first != FirstRecord::Header && at_other
}

/// The subject of a sentence about skipped lines.
fn count_lines(lines: u64) -> String {
    match lines {
        1 => "1 line is".to_owned(),
        _ => format!("{lines} lines are"),
    }
}

/// The result if only comments are skipped.
fn above_comments(sample: &Sample<'_>, comments: usize, otherwise: &str) -> Above {
    match sample.records.get(comments).filter(|_| comments > 0) {
        Some(first) => {
            let lines = first.lines_above;
            Above {
                skipped: decision(lines, format!("{} skipped: comments", count_lines(lines))),
                proposed: None,
            }
        }
        None => Above::nothing(otherwise),
    }
}

/// The index of the table's first record. A title may be padded to the width of the table, as in
/// `Report,,,`.
fn without_padded_titles(records: &[SampleRecord<'_>], table: Table) -> usize {
    let of_table = &records[table.start..];
    let full = of_table.iter().filter(|record| record.filled() > 1).count();
    // In a sparse table, a record with one value is a row.
    if table.width < 3 || 2 * full <= of_table.len() {
        return table.start;
    }
    let mut start = table.start;
    while let [first, second, _, ..] = &records[start..]
        && first.filled() <= 1
        && (first.filled() == 0 || second.after_blank || second.filled() <= 1)
    {
        start += 1;
    }
    start
}

/// The first record below an empty one, if it is a header and every record above it has fewer
/// values. So begins a table below notes that are padded to its width.
fn below_padded_notes(records: &[SampleRecord<'_>]) -> Option<usize> {
    const MAX_NOTES: usize = 20;
    let is_start = |start: &usize| {
        let (notes, table) = records.split_at(*start);
        let [header, _, ..] = table else { return false };
        let is_apart = header.after_blank || notes.last().is_some_and(|note| note.filled() == 0);
        is_apart
            && notes.iter().all(|note| note.filled() < header.filled())
            && first_record(table).value == FirstRecord::Header
    };
    (1..records.len().min(MAX_NOTES)).rfind(is_start)
}

/// Whether the records above a table are a table of their own: one has most of the names of the
/// header below, or at least three even records have a header or are rows. Above a table that is
/// much longer, such records describe it.
fn is_table(titles: &[SampleRecord<'_>], table: &[SampleRecord<'_>]) -> bool {
    let header = &table[0];
    let shares_names = |title: &SampleRecord<'_>| {
        let is_shared = |column: &usize| {
            let cell = title.cell(*column).trim_ascii();
            !cell.is_empty() && cell.eq_ignore_ascii_case(header.cell(*column).trim_ascii())
        };
        let shared = (0..title.width()).filter(is_shared).count();
        title.filled() > 1 && 2 * shared > title.filled()
    };
    // Excel pads every record to the same width, and an empty one stands between the tables.
    let filled = titles.split(|title| title.filled() == 0).next();
    let filled = filled.unwrap_or_default();
    let width = filled.first().map_or(0, SampleRecord::filled);
    let is_even = width > 1 && filled.iter().all(|title| title.filled() == width);
    titles.iter().any(shares_names)
        || filled.len() > 2
            && is_even
            && table.len() < 4 * titles.len()
            && first_record(filled).value != FirstRecord::Unknown
}

/// Why the records above a table cannot be data, if that is clear. `first` is what the table's
/// first record is.
fn reason(
    titles: &[SampleRecord<'_>],
    table: &[SampleRecord<'_>],
    width: usize,
    first: FirstRecord,
) -> Option<&'static str> {
    if titles.iter().any(|title| title.filled() >= width) || is_table(titles, table) {
        return None;
    }
    let is_apart = table[0].after_blank || first != FirstRecord::Row;
    if width > 2 && is_apart && titles.iter().all(|title| title.filled() <= 1) {
        return Some("one field each, like titles");
    }
    if table[0].after_blank && first != FirstRecord::Row {
        return Some("a blank line stands between them and the table");
    }
    (first == FirstRecord::Header).then_some("fewer fields than the table, and a header follows")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv::syntax::Syntax;

    fn found(text: &str) -> (u64, Option<u64>) {
        let sample = Sample::split(text.as_bytes(), Syntax::new(',', Some(b'"')), true);
        let above = above(&sample);
        (above.skipped.value, above.proposed)
    }

    #[test]
    fn lines_that_cannot_be_data_are_skipped() {
        let cases = [
            ("id,name,x\n1,a,2\n2,b,3\n", 0),
            ("Sales report\n\nid,name,x\n1,a,2\n2,b,3\n", 2),
            ("Sales report\nby region\nid,name,x\n1,a,2\n2,b,3\n", 2),
            ("Sales by region\n\nid,name,x\n1,a,2\n2,b,3\n", 2),
            ("Report,,\n\nid,name,x\n1,a,2\n2,b,3\n", 2),
            ("# made by x\n# on Monday, early\nid,name\n1,a\n2,b\n", 2),
            ("Station,KSEA\n\nday,temp,wind,rain\n1,5,6,0\n2,7,8,0\n", 2),
            ("Report,2024\nid,name,x,y\n1,a,2,3\n2,b,3,4\n", 1),
            (
                "Report:,Sales,,\n,,,\nRegion,Q1,Q2,Q3\nNorth,1,2,3\nSouth,4,5,6\n",
                2,
            ),
            (
                "Monthly Sales Report\nregion,q1,q2\nNorth,1,2\nSouth,3,4\n",
                1,
            ),
            (
                "# logger 7, firmware 2\ntime,temp\n10:00,5.0\n10:01,5.1\n",
                1,
            ),
            (
                "# by X\n# of Smith, Jones\nname,city\nAda,London\nEve,Rome\n",
                2,
            ),
            ("##v4\n##x\n#CHROM,POS\nchr1,1900\nchr2,15000\n", 2),
            ("# by X\n# gene,organism\nTP53,human\nKRAS,mouse\n", 1),
            (
                "Konto,DE12,\nName,Ada,\nFrom,1.1.2024,\n\nDay,Text,Sum\n2.1.2024,a,-4\n3.1.2024,b,5\n",
                4,
            ),
            (
                "From:,2024-01-01\nTo:,2024-01-31\nUnit:,CHF\nName:,Ada\n\nDay,Text,In,Out\n2024-01-02,a,,4\n2024-01-03,b,5,\n\nDisclaimer:\nNone.\n",
                5,
            ),
            (
                "day,killed,hurt\n1,2,3\n2,3,4\n\nNotes:\n1. Provisional.\n2. As of May.\n3. x\n",
                0,
            ),
            ("a,b,c\n1,x,2\n1,x,2,3\n1,x,2\n1,x,2\n", 0),
            ("#name,position\nx,1\ny,2\n", 0),
            ("##made\n##by\n#name,position\nx,1\ny,2\n", 2),
        ];
        for (text, lines) in cases {
            assert_eq!(found(text), (lines, None), "{text}");
        }
    }

    #[test]
    fn a_header_with_other_fields_than_the_rows_is_neither_skipped_nor_proposed() {
        for text in [
            "a,b\n1,x,5\n2,y,6\n",
            "id,score\nA,absent,\nB,5,\nC,6,\n",
            "name;city;zip\na,Ada,London\nb,Eve,Paris\n",
            "\"name,city,zip\nAda,London,x\nEve,Paris,y\n",
            "email,,\na@x,,\nb@x,,\nc@x,,\n",
            "#rust,5\n#go,7\njava,3\nperl,4\n",
            "#tag,n\n#rust,5\n#go,7\njava,1996\nperl,30\nruby,12\n",
        ] {
            assert_eq!(found(text), (0, None), "{text}");
        }
    }

    #[test]
    fn lines_that_may_be_data_are_proposed_and_not_skipped() {
        let cases = [
            ("a,b\nx,y,z,u\np,q,r,s\n", 1),
            ("name\nAda,London\nEve,Paris\n", 1),
            ("Title\n1,2,3\n4,5,6\n", 1),
            (
                "Name,City\nAda,London\nBob,Paris\n\nName,City,Zip,Phone\nEve,Rome,1,5\nJoe,Oslo,2,6\nMax,Bern,3,7\n",
                4,
            ),
            (
                "Region,Sales,,\nNorth,100,,\nSouth,200,,\n,,,\nProduct,Units,Price,Total\nA,1,5,5\nB,2,6,12\n",
                4,
            ),
        ];
        for (text, lines) in cases {
            assert_eq!(found(text), (0, Some(lines)), "{text}");
        }
    }

    #[test]
    fn a_separator_line_names_the_delimiter() {
        assert_eq!(separator_line(b"sep=;"), Some(';'));
        assert_eq!(separator_line(b"\"sep=,\""), Some(','));
        assert_eq!(separator_line(b"SEP=\\t"), Some('\t'));
        assert_eq!(separator_line(b"sep=\t"), Some('\t'));
        for other in ["sep=", "separator=;", "sep=;;", "se", "ä"] {
            assert_eq!(separator_line(other.as_bytes()), None, "{other}");
        }
    }
}
