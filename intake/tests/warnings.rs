//! The promises about quoted fields whose lines look like rows: the row is stored as it is, and
//! the reader warns.

#![allow(clippy::unwrap_used)]

mod limits;

use carga_intake::csv::{CsvOpening, CsvOptions, CsvReader, CutQuote, Next, Warning};

use self::limits::LIMITS;

/// A reader that has read the header of a file. Only these bytes of the file have arrived.
fn opened(file: &str, is_whole: bool) -> CsvReader {
    let mut opening = CsvOpening::new(CsvOptions::default(), LIMITS);
    opening.push(file.as_bytes());
    if is_whole {
        opening.end();
    }
    let opened = opening.open().unwrap();
    opened.unwrap_or_else(|| panic!("no header"))
}

/// Reads a file without faults, and returns the number of its rows and the warnings.
fn read(file: &str) -> (u64, Vec<Warning>) {
    let mut reader = opened(file, true);
    let mut warnings = Vec::new();
    loop {
        match reader.next().unwrap() {
            Next::Row => warnings.extend(reader.warning()),
            Next::Rejected(rejection) => panic!("{rejection:?}"),
            Next::More | Next::End => return (reader.rows_read(), warnings),
        }
    }
}

fn rows(numbers: std::ops::Range<usize>) -> String {
    numbers
        .map(|number| format!("{number},nail,{number}\n"))
        .collect()
}

#[test]
fn a_row_whose_quoted_field_has_lines_like_rows_is_stored_with_a_warning() {
    let file = format!(
        "id,name,price\n{}10,\"5 inch nail,10\n{}6000,nail 14\",6000\n{}",
        rows(0..10),
        rows(11..6000),
        rows(6001..7000)
    );
    let (rows, warnings) = read(&file);
    assert_eq!(rows, 10 + 1 + 999);
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    let found = (warning.row, warning.line, warning.code);
    assert_eq!(found, (11, 12, "suspicious_quote"));
    assert!(warning.message.contains("5989 lines"), "{warning:?}");
}

#[test]
fn one_line_in_ten_need_not_look_like_a_row() {
    let swallowed = |misfit: &str| {
        let lines = format!("{}{misfit}\n{}", rows(1..50), rows(51..100));
        read(&format!("a,b,c\n0,\"x,0\n{lines}100,x\",y\n")).1.len()
    };
    assert_eq!(swallowed("50,nail"), 1);
    assert_eq!(swallowed(&"text\n".repeat(20)), 0);
}

#[test]
fn multi_line_text_is_read_without_a_warning() {
    for file in [
        // An address, of which not every line has a comma.
        "id,address\n1,\"Acme, Inc.\n12 Main St, Apt 4\nAustin\nTexas\nUSA\"\n",
        // Lines with other numbers of delimiters.
        "a,b,c\n1,\"one\n,,,\n,\nx,y\n\n\",2\n",
        // Too few lines to tell.
        "a,b\n1,\"x\n1,2\n3,4\ny\"\n",
        // In a file with one column, any line looks like a row.
        "text\n\"one\ntwo\nthree\nfour\nfive\"\n",
        // Lines of several fields that are not many lines of one.
        "a,b\n\"x\n1,2\ny\",\"x\n1,2\ny\"\n",
    ] {
        assert_eq!(read(file), (1, Vec::new()), "{file}");
    }
}

#[test]
fn a_sample_with_such_a_field_is_told_by_the_evidence() {
    let file = format!("a,b,c\n1,2,3\n2,\"x,0\n{}9,x\",y\n", rows(3..9));
    let evidence = |file: &str| {
        let dialect = opened(file, true).dialect().clone();
        dialect.evidence.unwrap().delimiter
    };
    let found = evidence(&file);
    assert!(
        found.ends_with("; row 2 has a quoted field with 6 lines that look like rows"),
        "{found}"
    );
    assert!(!evidence("a,b,c\n1,2,3\n").contains("quoted"));
}

#[test]
fn a_quote_that_is_open_at_a_cut_is_reported_if_lines_follow_it() {
    let cut = |end: &str| {
        // Enough rows for a sample.
        let file = format!("a,b,c\n{}{end}", rows(0..10_000));
        let mut reader = opened(&file, false);
        while let Next::Row = reader.next().unwrap() {}
        (reader.cut_quote(), reader.rows_read())
    };
    let (found, read) = cut(&format!("1,\"oops,1\n{}2,x", rows(0..5)));
    let Some(CutQuote::Rejected(rejection)) = &found else {
        panic!("{found:?}");
    };
    let row = &rejection.row;
    assert_eq!((row.row, row.line, read), (10_001, 10_002, 10_001));
    assert_eq!(row.code, "unclosed_quote");
    assert_eq!(row.raw.as_deref(), Some("1,\"oops,1"));
    assert!(row.message.contains("5 lines"), "{row:?}");

    let (found, read) = cut("1,\"Dear Sir,\nthank you");
    let Some(CutQuote::Warning(warning)) = &found else {
        panic!("{found:?}");
    };
    let position = (warning.row, warning.line, read);
    assert_eq!(position, (10_001, 10_002, 10_000));
    assert_eq!(warning.code, "unclosed_quote");

    // A row that is merely cut is not a problem.
    for end in ["", "1,x", "1,\"x, y", "1,\"x\ny\",z"] {
        let (found, _) = cut(end);
        assert!(found.is_none(), "{end:?}: {found:?}");
    }
}
