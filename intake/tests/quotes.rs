//! The promises about quotes that were opened by mistake: such a quote costs its own line, and
//! the time stays linear however many there are.

#![allow(clippy::unwrap_used)]

mod limits;

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use carga_intake::csv::{Charset, CsvLimits, CsvOpening, CsvOptions, CsvReader, Next};
use carga_intake::csv::{FileFault, Rejection};

use self::limits::{LIMITS, limit};

/// A reader behind the header of a file that has arrived as a whole.
fn opened(file: &str, limits: CsvLimits) -> Result<CsvReader, FileFault> {
    let options = CsvOptions {
        delimiter: Some(','),
        encoding: Some(Charset::UTF_8),
        header: Some(true),
        skip: Some(0),
        ..CsvOptions::default()
    };
    let mut opening = CsvOpening::new(options, limits);
    opening.push(file.as_bytes());
    opening.end();
    Ok(opening.open()?.unwrap_or_else(|| panic!("no header")))
}

/// Reads a file, and returns its rows and rejected rows.
fn read(file: &str) -> (Vec<Vec<String>>, Vec<Rejection>) {
    let mut reader = opened(file, LIMITS).unwrap();
    let (mut rows, mut rejected) = (Vec::new(), Vec::new());
    loop {
        match reader.next().unwrap() {
            Next::Row => rows.push(reader.cells().map(str::to_owned).collect()),
            Next::Rejected(rejection) => rejected.push(*rejection),
            Next::More | Next::End => return (rows, rejected),
        }
    }
}

/// The codes of the rejected rows, with their lines.
fn faults(rejected: &[Rejection]) -> Vec<(u64, &str)> {
    let rows = rejected.iter().map(|rejection| &rejection.row);
    rows.map(|row| (row.line, row.code.as_str())).collect()
}

#[test]
fn a_stray_quote_costs_its_own_line() {
    const ROWS: usize = 20_000;
    let mut file = "id,name,price\n".to_owned();
    for number in 0..ROWS {
        let name = match number {
            10 => "\"5 inch nail",
            5000 => "\"Doe, John\"",
            _ => "nail",
        };
        writeln!(file, "{number},{name},{number}").unwrap();
    }
    let (rows, rejected) = read(&file);
    assert_eq!(rows.len(), ROWS - 1);
    let [rejection] = &rejected[..] else {
        panic!("{} rejected rows", rejected.len());
    };
    let row = &rejection.row;
    assert_eq!(
        (row.row, row.line, row.code.as_str()),
        (11, 12, "bad_quote")
    );
    assert_eq!(row.column.as_deref(), Some("name"));
    assert_eq!(row.raw.as_deref(), Some("10,\"5 inch nail,10"));
    assert_eq!(rows[4999], ["5000", "Doe, John", "5000"]);
}

#[test]
fn the_rows_around_a_stray_quote_are_read_whatever_its_surroundings_are() {
    for line_end in ["\n", "\r\n", "\r"] {
        for bad in [
            // The quote that closes the field is at the beginning of a line, or in the middle.
            "1,\"x\n\"2\",two",
            "1,\"x\n2,\"two\"",
            // Between the quotes are doubled ones and a blank line.
            "1,\"x\n2,\"\"\n\n2,\"two\"",
            // The field is not the first one with a quote.
            "\"1\n\",\"x\n2,\"two\"",
            // The second line has a stray quote, too.
            "1,\"x\n1,\"x\n2,\"two\"",
        ] {
            let file = format!("a,b\n0,zero\n{bad}\n3,three\n").replace('\n', line_end);
            let (rows, rejected) = read(&file);
            let names: Vec<&str> = rows.iter().map(|row| row[1].as_str()).collect();
            assert_eq!(names.first(), Some(&"zero"), "{file:?}");
            assert!(names.ends_with(&["two", "three"]), "{file:?}: {names:?}");
            assert!(!rejected.is_empty(), "{file:?}");
            let codes = faults(&rejected);
            assert!(
                codes.iter().all(|(_, code)| *code == "bad_quote"),
                "{codes:?}"
            );
        }
    }
}

/// Some programs write blanks between the closing quote and the delimiter.
#[test]
fn blanks_after_a_field_of_several_lines_are_not_part_of_it() {
    for line_end in ["\n", "\r\n", "\r"] {
        for (text, name) in [
            ("\"first line\nsecond\" ,x,y", "x"),
            ("\"first line\nsecond\"\t \t,x,y", "x"),
            ("1,\"first line\nsecond,x\" ,y", "first line\nsecond,x"),
        ] {
            for end in ["", "\n3,three,3\n"] {
                let file = format!("a,b,c\n0,zero,0\n{text}{end}").replace('\n', line_end);
                let (rows, rejected) = read(&file);
                assert!(rejected.is_empty(), "{file:?}");
                let names: Vec<&str> = rows.iter().map(|row| row[1].as_str()).collect();
                let expected = if end.is_empty() { 2 } else { 3 };
                let name = name.replace('\n', line_end);
                assert_eq!(
                    names,
                    &["zero", name.as_str(), "three"][..expected],
                    "{file:?}"
                );
            }
        }
    }
}

/// Each byte arrives alone, so the reader must not decide before it has seen what follows.
#[test]
fn only_blanks_that_are_not_the_delimiter_may_precede_the_delimiter() {
    const FIRST: usize = 12;
    for (delimiter, text, stored, faulty) in [
        ('\t', "\"x\ny\" \tz", 1, 0),
        (' ', "\"x\ny\"\t z", 1, 0),
        // The blank after the quote is the delimiter.
        ('\t', "\"x\ny\"\tz", 1, 0),
        (' ', "\"x\ny\" z", 1, 0),
        // Text follows the blanks, so each line is a record of its own.
        (',', "\"x,0\ny\"  z,1", 1, 1),
    ] {
        let options = CsvOptions {
            delimiter: Some(delimiter),
            quote: Some(Some(b'"')),
            encoding: Some(Charset::UTF_8),
            skip: Some(0),
            header: Some(false),
            ..CsvOptions::default()
        };
        let mut opening = CsvOpening::new(options, LIMITS);
        // Enough records to open the file.
        opening.push(format!("a{delimiter}b\n").repeat(FIRST).as_bytes());
        let mut reader = opening.open().unwrap().unwrap();
        let mut bytes = text.bytes();
        let (mut rows, mut rejected) = (0, 0);
        loop {
            match reader.next().unwrap() {
                Next::Row => rows += 1,
                Next::Rejected(rejection) => {
                    assert_eq!(rejection.row.code, "bad_quote");
                    rejected += 1;
                }
                Next::More => match bytes.next() {
                    Some(byte) => reader.push(&[byte]),
                    None => reader.end(),
                },
                Next::End => break,
            }
        }
        assert_eq!((rows, rejected), (FIRST + stored, faulty), "{text:?}");
    }
}

#[test]
fn text_after_a_closing_quote_on_the_same_line_takes_no_other_line_away() {
    let (rows, rejected) = read("a,b\n\"x\"y,\"1\n2\"\n3,4\n");
    assert_eq!(rows, [["3", "4"]]);
    assert_eq!(faults(&rejected), [(2, "bad_quote")]);
    assert_eq!(rejected[0].row.raw.as_deref(), Some("\"x\"y,\"1\n2\""));
}

/// Counts the rejected rows of a file, which are too many to keep.
fn count_rejected(file: &str, limits: CsvLimits, code: &str) -> usize {
    let mut reader = opened(file, limits).unwrap();
    let mut count = 0;
    loop {
        match reader.next().unwrap() {
            Next::Row => {}
            Next::Rejected(rejection) => {
                assert_eq!(rejection.row.code, code);
                count += 1;
            }
            Next::More | Next::End => return count,
        }
    }
}

/// Held while time is measured, so that the tests do not slow each other down.
static MEASURING: Mutex<()> = Mutex::new(());

/// Checks that a file of twice the size takes about twice the time. Quadratic time would be four
/// times as long.
fn assert_linear(read: impl Fn(usize), size: usize) {
    let _measuring = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let fastest = |size| {
        let runs = (0..3).map(|_| {
            let start = Instant::now();
            read(size);
            start.elapsed()
        });
        runs.min().unwrap_or_default()
    };
    let (once, twice) = (fastest(size), fastest(2 * size));
    // Small differences are noise.
    let most = 3 * once + Duration::from_millis(500);
    assert!(twice <= most, "{once:?} for {size}, {twice:?} for twice");
}

/// Each quote is closed by the quote of the next line, with text after it.
#[test]
fn many_stray_quotes_are_read_in_linear_time() {
    let read = |lines: usize| {
        let file = format!("a,b\n{}", "x,\"y\n".repeat(lines));
        let mut reader = opened(&file, LIMITS).unwrap();
        let mut rejected = 0;
        while !matches!(reader.next().unwrap(), Next::More | Next::End) {
            rejected += 1;
        }
        assert_eq!(rejected, lines);
    };
    assert_linear(read, 200_000);
}

/// Each quote is closed by the quote of the next line, with blanks and text after it.
#[test]
fn stray_quotes_with_blanks_after_them_are_read_in_linear_time() {
    let read = |lines: usize| {
        let line = format!("\"{}x\n", " ".repeat(200));
        let file = format!("a,b\n{}1,\"2\"\n", line.repeat(lines));
        assert_eq!(count_rejected(&file, LIMITS, "bad_quote"), lines);
    };
    assert_linear(read, 10_000);
}

/// Each quote is closed a hundred lines below, and the lines between the quotes have doubled
/// quotes.
#[test]
fn stray_quotes_that_are_closed_far_below_are_read_in_linear_time() {
    let read = |blocks: usize| {
        let block = format!("x,\"y\n{}x,\"y\"\n", "x,\"\"\n".repeat(100));
        let file = format!("a,b\n{}", block.repeat(blocks));
        assert_eq!(count_rejected(&file, LIMITS, "bad_quote"), blocks);
    };
    assert_linear(read, 2_000);
}

/// Each unclosed quote makes the reader look ahead to the limit of a row. The lines that it
/// passes have doubled quotes, and must not make it look ahead again.
#[test]
fn many_unclosed_quotes_are_read_in_linear_time() {
    let limits = CsvLimits {
        row_bytes: limit(1000),
        ..LIMITS
    };
    let read = |blocks: usize| {
        let block = format!("x,\"y\n{}", "x,\"\"\n".repeat(250));
        let file = format!("a,b\n{}", block.repeat(blocks));
        assert_eq!(count_rejected(&file, limits, "unclosed_quote"), blocks);
    };
    assert_linear(read, 1_000);
}

/// One quote that is never closed, above many rows.
#[test]
fn the_rows_below_an_unclosed_quote_are_read_in_linear_time() {
    let read = |lines: usize| {
        let file = format!("a,b\nx,\"y\n{}", "x,\"\"\n".repeat(lines));
        assert_eq!(count_rejected(&file, LIMITS, "unclosed_quote"), 1);
    };
    assert_linear(read, 100_000);
}
