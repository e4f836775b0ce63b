//! Decides whether the first record of a file names the columns.
//!
//! A name is usually a text. So the first record is a row if its cells have the kinds of the cells
//! below them, and a header if they have other kinds. Where the kinds say nothing, for example in
//! a file of texts, the first record is taken for a header, and the evidence says so.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::Decision;
use super::decision;
use super::kinds::{Kind, pattern};
use super::sample::SampleRecord;

/// How many rows below the first record are compared with it.
const MAX_ROWS: usize = 200;

/// How many columns vote.
const MAX_COLUMNS: usize = 1000;

/// Nine rows in ten must agree on the kind of a column.
const TENTHS: usize = 9;

/// What the first record of a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstRecord {
    /// It names the columns.
    Header,
    /// It is a row.
    Row,
    /// Nothing speaks for either.
    Unknown,
}

/// What one column says about its first cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vote {
    Header,
    Row,
    /// The cell occurs again below.
    Repeated,
    /// The cell is empty, and so are most below it.
    Empty,
    None,
}

/// Decides whether the first of these records names the columns, with the evidence.
pub(super) fn first_record(records: &[SampleRecord<'_>]) -> Decision<FirstRecord> {
    let Some((first, rows)) = records.split_first() else {
        return decision(FirstRecord::Unknown, "the file has no records");
    };
    let is_other = |row: &&SampleRecord<'_>| !repeats(first, row);
    let rows: Vec<_> = rows.iter().take(MAX_ROWS).filter(is_other).collect();
    if rows.is_empty() {
        return only_record(first);
    }
    if let Some(evidence) = names_in_spite_of_values(first, &rows) {
        return decision(FirstRecord::Header, evidence);
    }
    let columns = first.width().min(MAX_COLUMNS);
    let votes: Vec<Vote> = (0..columns)
        .map(|column| vote(first, &rows, column))
        .collect();
    let count = |wanted| votes.iter().filter(|vote| **vote == wanted).count();
    let (for_header, mut for_row) = (count(Vote::Header), count(Vote::Row));
    // A single name may also be a value of its column, and a column may have no name.
    let repeated = count(Vote::Repeated);
    if for_row > 0 || repeated > 1 {
        for_row += repeated + count(Vote::Empty);
    }
    let (kind, relation, deciding) = match for_row.cmp(&for_header) {
        Ordering::Greater => (FirstRecord::Row, "fits the rows below it", for_row),
        Ordering::Less => (
            FirstRecord::Header,
            "differs in kind from the rows below it",
            for_header,
        ),
        Ordering::Equal if for_row > 0 => {
            let evidence =
                format!("assumed: {for_row} columns speak for a row, and as many for a header");
            return decision(FirstRecord::Unknown, evidence);
        }
        Ordering::Equal => {
            let evidence = "assumed: the first record has cells of the same kinds as the rows";
            return decision(FirstRecord::Unknown, evidence);
        }
    };
    let evidence = format!("the first record {relation} in {deciding} of {columns} columns");
    decision(kind, evidence)
}

/// Whether a record repeats the first one, as joined files repeat their header between the rows:
/// four cells in five are equal.
fn repeats(first: &SampleRecord<'_>, row: &SampleRecord<'_>) -> bool {
    let columns = 0..first.width();
    let is_equal = |column: &usize| {
        let cell = first.cell(*column).trim_ascii();
        !cell.is_empty() && cell == row.cell(*column).trim_ascii()
    };
    first.width() == row.width() && 5 * columns.filter(is_equal).count() >= 4 * first.width()
}

/// Why the first record names the columns although it has numbers above numbers.
fn names_in_spite_of_values(
    first: &SampleRecord<'_>,
    rows: &[&SampleRecord<'_>],
) -> Option<&'static str> {
    let has_index = first.width() > 1
        && first.cell(0).trim_ascii().is_empty()
        && rows.iter().all(|row| !row.cell(0).trim_ascii().is_empty());
    if has_index {
        return Some("the first field is empty, and every row below it has an index there");
    }
    let share = |is: fn(&SampleRecord<'_>) -> bool| {
        let matching = rows.iter().filter(|row| is(row)).count();
        2 * matching < rows.len()
    };
    if has_years(first) && share(has_years) {
        return Some("the numbers of the first record are years, and those below it are not");
    }
    (is_series(first) && share(is_series))
        .then_some("the numbers of the first record ascend evenly, and those below it do not")
}

/// Whether all numbers of a record may be years.
fn has_years(record: &SampleRecord<'_>) -> bool {
    let cells = (0..record.width()).map(|column| record.cell(column).trim_ascii());
    let mut numbers = cells
        .filter(|cell| Kind::of(cell) == Kind::Number)
        .peekable();
    let is_year = |cell: &[u8]| {
        let year = std::str::from_utf8(cell)
            .ok()
            .and_then(|cell| cell.parse::<u16>().ok());
        year.is_some_and(|year| (1800..=2100).contains(&year))
    };
    numbers.peek().is_some() && numbers.all(is_year)
}

/// A file with one record: it is a row if it has values and no texts.
fn only_record(first: &SampleRecord<'_>) -> Decision<FirstRecord> {
    let mut kinds = (0..first.width()).map(|column| Kind::of(first.cell(column)));
    let has_text = kinds.clone().any(|kind| kind == Kind::Text);
    match !has_text && kinds.any(Kind::is_value) {
        true => decision(FirstRecord::Row, "the only record has values and no texts"),
        false => decision(FirstRecord::Unknown, "assumed: the file has one record"),
    }
}

fn vote(first: &SampleRecord<'_>, rows: &[&SampleRecord<'_>], column: usize) -> Vote {
    let cell = first.cell(column);
    let kind = Kind::of(cell);
    let cells = || rows.iter().map(|row| row.cell(column));
    let below: Vec<Kind> = cells().map(Kind::of).collect();
    let filled = below
        .iter()
        .filter(|kind| !matches!(kind, Kind::Empty | Kind::Missing));
    let filled_count = filled.clone().count();
    let most = |wanted: Kind| {
        let count = filled.clone().filter(|kind| **kind == wanted).count();
        filled_count > 0 && 10 * count >= TENTHS * filled_count
    };
    match kind {
        Kind::Missing => Vote::None,
        // An index without a name is a header's; an empty cell above empty cells is a row's.
        Kind::Empty if filled_count == 0 => Vote::None,
        Kind::Empty if 2 * filled_count < below.len() => Vote::Empty,
        Kind::Empty => Vote::None,
        Kind::Text
            if [Kind::Number, Kind::Time, Kind::Boolean]
                .into_iter()
                .any(most) =>
        {
            Vote::Header
        }
        Kind::Text => text_vote(cell, rows, column),
        value if most(value) => Vote::Row,
        _ if filled_count > 0
            && [Kind::Number, Kind::Time, Kind::Boolean]
                .into_iter()
                .any(most) =>
        {
            Vote::Header
        }
        _ => Vote::None,
    }
}

/// A text is a value if it has the pattern of the texts below it, such as `A-17` above `A-18`, or
/// if it occurs again below.
fn text_vote(cell: &[u8], rows: &[&SampleRecord<'_>], column: usize) -> Vote {
    let filled: HashSet<&[u8]> = rows
        .iter()
        .map(|row| row.cell(column).trim_ascii())
        .filter(|cell| !cell.is_empty())
        .collect();
    if let Some(own) = pattern(cell) {
        let same = filled
            .iter()
            .filter(|other| pattern(other).as_deref() == Some(&own[..]));
        if filled.len() > 1 && 10 * same.count() >= TENTHS * filled.len() {
            return Vote::Row;
        }
    }
    match filled.len() > 1 && filled.contains(cell.trim_ascii()) {
        true => Vote::Repeated,
        false => Vote::None,
    }
}

/// Whether a record has three numbers or more that ascend evenly, as years and indexes do that
/// name columns.
fn is_series(record: &SampleRecord<'_>) -> bool {
    let cells = (0..record.width()).map(|column| record.cell(column).trim_ascii());
    let numbers: Option<Vec<i64>> = cells
        .filter(|cell| Kind::of(cell) == Kind::Number)
        .map(|cell| std::str::from_utf8(cell).ok()?.parse().ok())
        .collect();
    let Some([first, second, rest @ ..]) = numbers.as_deref() else {
        return false;
    };
    let Some(step) = second.checked_sub(*first).filter(|step| *step > 0) else {
        return false;
    };
    let mut last = *second;
    !rest.is_empty()
        && rest.iter().all(|number| {
            let is_next = last.checked_add(step) == Some(*number);
            last = *number;
            is_next
        })
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::*;
    use crate::csv::syntax::Syntax;

    fn decided(text: &str) -> FirstRecord {
        let sample = Sample::split(text.as_bytes(), Syntax::new(',', Some(b'"')), true);
        first_record(&sample.records).value
    }

    #[test]
    fn the_kinds_of_cells_tell_a_header_from_a_row() {
        let cases = [
            ("id,name\n1,Ada\n2,Eve\n", FirstRecord::Header),
            ("0,name0,2024-01-01\n1,name1,2024-01-02\n", FirstRecord::Row),
            ("name,city\nAda,London\nEve,Paris\n", FirstRecord::Unknown),
            ("a,b\n", FirstRecord::Unknown),
            ("1,2\n", FirstRecord::Row),
            (",a,b\n0,1,2\n1,3,4\n", FirstRecord::Header),
            (
                ",0,1,2\n0,0.5,0.7,0.1\n1,0.2,0.3,0.4\n",
                FirstRecord::Header,
            ),
            (
                "country,1960,1961,1962\nNO,5,6,8\nSE,7,5,9\n",
                FirstRecord::Header,
            ),
            ("1,2,3\n4,5,6\n7,8,9\n", FirstRecord::Row),
            ("month,2018-01,2018-02\nx,5,6\ny,7,8\n", FirstRecord::Header),
            ("A-1,x\nA-2,y\nA-3,z\n", FirstRecord::Row),
            (
                "red,big\ngreen,big\nred,small\nblue,big\n",
                FirstRecord::Row,
            ),
            ("q1,q2\n1,5\n2,3\n", FirstRecord::Header),
            ("NA,5\n3,6\n4,7\n", FirstRecord::Row),
            (
                "day,city,n\n2024-01-01,Oslo,5\nday,\"city\",n\n2024-01-02,Rome,6\n",
                FirstRecord::Header,
            ),
            (
                "Region,2019,2020\nNorth,100,120\nSouth,90,95\n",
                FirstRecord::Header,
            ),
            ("Item,2021,2020\na,5,6\nb,7,8\n", FirstRecord::Header),
            (",0\n0,0.5\n1,0.6\n", FirstRecord::Header),
            ("col1,col2\nval1,val2\nval3,val4\n", FirstRecord::Unknown),
            (
                "name,city,\nAda,Rome,\nEve,Oslo,call back\nBob,Bern,\n",
                FirstRecord::Unknown,
            ),
            ("Ada,absent,5\nEve,3,6\nBob,4,7\n", FirstRecord::Unknown),
            ("5,,x\n6,,y\n7,3,z\n", FirstRecord::Row),
        ];
        for (text, expected) in cases {
            assert_eq!(decided(text), expected, "{text}");
        }
    }
}
