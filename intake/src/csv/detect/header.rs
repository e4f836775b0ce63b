//! Decides whether the first record of a file names the columns.
//!
//! A name is usually a text. So the first record is a row if its cells have the kinds of the cells
//! below them, and a header if they have other kinds. Where the kinds say nothing, for example in
//! a file of texts, the first record is taken for a header, and the evidence says so.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::kinds::{Kind, pattern};
use super::sample::SampleRecord;
use super::{Decision, decision, nearly_all};

/// How many rows below the first record are compared with it.
const MAX_ROWS: usize = 200;

/// How many columns vote.
const MAX_COLUMNS: usize = 1000;

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
    let columns = first.width().min(MAX_COLUMNS);
    let votes: Vec<Vote> = (0..columns)
        .map(|column| vote(first, &rows, column))
        .collect();
    // A number above numbers says less than a time above times.
    let is_number = |column: usize| Kind::of(first.cell(column)) == Kind::Number;
    let mut for_rows = (0..columns).filter(|column| votes[*column] == Vote::Row);
    let only_numbers = for_rows.all(is_number);
    if only_numbers && let Some(found) = names_in_spite_of_values(first, &rows) {
        return found;
    }
    let count = |wanted| votes.iter().filter(|vote| **vote == wanted).count();
    let (for_header, mut for_row) = (count(Vote::Header), count(Vote::Row));
    // A single name may also be a value of its column, and a column may have no name.
    let repeated = count(Vote::Repeated);
    if for_row > 0 || repeated > 1 {
        for_row += repeated + count(Vote::Empty);
    }
    let mut cells = (1..columns).map(|column| first.cell(column).trim_ascii());
    let are_whole = cells.all(|cell| cell.iter().all(u8::is_ascii_digit));
    let is_series = are_whole && are_different(&numbers(first));
    if only_numbers && is_series && votes[0] == Vote::Header && for_row >= for_header {
        let evidence = "assumed: the first field differs in kind from those below it, and the numbers of the others do not";
        return decision(FirstRecord::Unknown, evidence);
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
/// four cells in five are equal, or two in three of a record of texts.
fn repeats(first: &SampleRecord<'_>, row: &SampleRecord<'_>) -> bool {
    let width = first.width().min(row.width());
    let is_equal = |column: &usize| {
        let cell = first.cell(*column).trim_ascii();
        !cell.is_empty() && cell.eq_ignore_ascii_case(row.cell(*column).trim_ascii())
    };
    let equal = (0..width).filter(is_equal).count();
    let is_text = |column| !Kind::of(row.cell(column)).is_value();
    5 * equal >= 4 * first.width() || width > 2 && 3 * equal >= 2 * width && (0..width).all(is_text)
}

/// Whether the first record names the columns although it has numbers above numbers.
fn names_in_spite_of_values(
    first: &SampleRecord<'_>,
    rows: &[&SampleRecord<'_>],
) -> Option<Decision<FirstRecord>> {
    let header = |evidence: &str| Some(decision(FirstRecord::Header, evidence));
    let unknown = |evidence: &str| Some(decision(FirstRecord::Unknown, evidence));
    let is_rare = |is: fn(&SampleRecord<'_>) -> bool| {
        let matching = rows.iter().filter(|row| is(row)).count();
        2 * matching < rows.len()
    };
    if has_index(first, rows) {
        return header("the first field is empty, and every row below it has an index there");
    }
    let numbers = numbers(first);
    let has_text = (0..first.width()).any(|column| Kind::of(first.cell(column)) == Kind::Text);
    if has_years(first) && is_rare(has_years) && first.width() > 1 {
        let is_repeated = numbers.iter().all(|number| *number == numbers[0]);
        return match is_repeated {
            true => unknown("assumed: the number of the first record may be a year"),
            false => {
                header("the numbers of the first record are years, and those below it are not")
            }
        };
    }
    let is_even = is_series(first) && is_rare(is_series);
    let ascends = ascends(first) && is_rare(ascends);
    match numbers.as_slice() {
        // Data frames number their columns so.
        [0, 1, ..] if is_even => header("the numbers of the first record count from 0"),
        _ if has_text && (is_even || ascends) => {
            unknown("assumed: the numbers of the first record ascend, and those below it do not")
        }
        _ => None,
    }
}

/// Whether the first record has nothing above an index, and could have names above the rest:
/// neither times nor decimals.
fn has_index(first: &SampleRecord<'_>, rows: &[&SampleRecord<'_>]) -> bool {
    let may_be_name = |column| {
        let cell = first.cell(column).trim_ascii();
        match Kind::of(cell) {
            Kind::Number => cell.iter().all(u8::is_ascii_digit),
            kind => !kind.is_value(),
        }
    };
    first.width() > 1
        && first.cell(0).trim_ascii().is_empty()
        && rows.iter().all(|row| !row.cell(0).trim_ascii().is_empty())
        && (1..first.width()).all(may_be_name)
}

fn are_different(numbers: &[i64]) -> bool {
    numbers.iter().collect::<HashSet<_>>().len() == numbers.len()
}

/// Whether a record has at least four whole numbers, each greater than the one before.
fn ascends(record: &SampleRecord<'_>) -> bool {
    let numbers = numbers(record);
    numbers.len() > 3 && numbers.is_sorted_by(|one, next| one < next)
}

/// The whole numbers of a record.
fn numbers(record: &SampleRecord<'_>) -> Vec<i64> {
    let cells = (0..record.width()).map(|column| record.cell(column).trim_ascii());
    cells
        .filter_map(|cell| std::str::from_utf8(cell).ok()?.parse().ok())
        .collect()
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
        filled_count > 0 && nearly_all(count, filled_count)
    };
    let is_value_column = [Kind::Number, Kind::Time, Kind::Boolean]
        .into_iter()
        .any(most);
    match kind {
        Kind::Missing => Vote::None,
        // An empty cell above values may be a header without a name. An empty cell above mostly
        // empty cells is more likely a row's.
        Kind::Empty if filled_count == 0 => Vote::None,
        Kind::Empty if 2 * filled_count < below.len() => Vote::Empty,
        Kind::Empty => Vote::None,
        Kind::Text if is_value_column => Vote::Header,
        Kind::Text => text_vote(cell, rows, column),
        value if most(value) => Vote::Row,
        _ if is_value_column => Vote::Header,
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
        if filled.len() > 1 && nearly_all(same.count(), filled.len()) {
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
            (
                "2024-01-05,rent,2000\n2024-01-06,food,18\n2024-01-07,food,21\n",
                FirstRecord::Row,
            ),
            ("A-1,2000,x 1\nA-2,15,x 2\nA-3,16,x 3\n", FirstRecord::Row),
            ("2000\n150\n1700\n90\n", FirstRecord::Row),
            ("plan,2020\na,5\nb,6\n", FirstRecord::Unknown),
            (
                "Ada,10,20,30\nBob,12,25,31\nEve,11,19,28\n",
                FirstRecord::Unknown,
            ),
            (
                "start,21.5,60,0\n1,21.6,61,0\n2,21.7,62,0\n",
                FirstRecord::Row,
            ),
            (
                "Land,0,1,5,10,15\nNO,10,15,12,13,14\nSE,9,8,1,6,5\n",
                FirstRecord::Unknown,
            ),
            ("10,20,30\n15,22,41\n11,19,35\n", FirstRecord::Row),
            ("0,1,2\n15,22,41\n11,19,35\n", FirstRecord::Header),
            (
                ",2024-01-01,Opening,100.00\nD1,2024-01-02,Food,-5.00\nD2,2024-01-03,Rent,-50.00\n",
                FirstRecord::Row,
            ),
            (
                "date,city,n,m\n2024-01-01,Oslo,1,2\nDate,City,n,m\n2024-01-03,Oslo,1,2\n",
                FirstRecord::Header,
            ),
            (
                "Date,0,5,10,20\n2024-01-01,5.1,5.2,5.3,5.4\n2024-01-02,5,5,5,5\n",
                FirstRecord::Unknown,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(decided(text), expected, "{text}");
        }
    }
}
