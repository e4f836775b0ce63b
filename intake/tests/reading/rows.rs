//! The promises about the first rows and the encoding of a file, and about the text of a rejected
//! row.

use carga_common::rejects::RejectedRow;
use carga_intake::csv::CsvOptions;

use crate::limits::LIMITS;
use crate::outcome::{read, utf8};

#[test]
fn a_rejected_row_keeps_its_original_text() {
    let file = b"a,b\n1\n2,\"x\"y\n3,\xff\"\n4,\"x";
    let outcome = read(file, &[2], utf8(), LIMITS).unwrap();
    let kept = |row: &RejectedRow| {
        row.raw
            .clone()
            .or(row.fields.as_ref().map(|row| row.join("|")))
    };
    let kept: Vec<String> = outcome.rejected.iter().filter_map(kept).collect();
    assert_eq!(kept, ["1", "2,\"x\"y", "3|\\xFF\"", "4,\"x"]);
}

#[test]
fn without_a_header_the_first_record_is_checked_like_any_other() {
    let options = CsvOptions {
        header: Some(false),
        ..utf8()
    };
    let outcome = read(b"\"a\"b,c\n1,2\n", &[1], options.clone(), LIMITS).unwrap();
    assert_eq!(outcome.rejected[0].code, "bad_quote");
    assert_eq!(outcome.rows, [(2, vec!["1".to_owned(), "2".to_owned()])]);
    // If the file has one column, blank lines are rows, even before the first record.
    let outcome = read(b"\n\na\n\nb\n", &[1], options, LIMITS).unwrap();
    let cells: Vec<&str> = outcome
        .rows
        .iter()
        .map(|(_, cells)| cells[0].as_str())
        .collect();
    assert_eq!(cells, ["", "", "a", "", "b"]);
    assert_eq!((outcome.rows_read, outcome.blank_lines), (5, 0));
}

#[test]
fn an_escape_character_that_is_also_the_delimiter_hides_no_quotes() {
    let options = CsvOptions {
        escape: Some(Some(b',')),
        ..CsvOptions::default()
    };
    let outcome = read(b"a,b\n1,\"x\"\n2,\"y\"\n", &[3], options, LIMITS).unwrap();
    let cells: Vec<&str> = outcome
        .rows
        .iter()
        .map(|(_, row)| row[1].as_str())
        .collect();
    assert_eq!(cells, ["x", "y"]);
}

#[test]
fn a_broken_header_of_several_lines_is_refused_and_not_cut() {
    for file in ["\"a\nb\",\"c\n1,2\n", "\"a\nb\",\"c\"d\n1,2\n"] {
        let options = CsvOptions {
            delimiter: Some(','),
            header: Some(true),
            ..CsvOptions::default()
        };
        let refused = read(file.as_bytes(), &[], options, LIMITS).unwrap_err();
        let code = refused.failure.code;
        assert!(
            ["unclosed_quote", "bad_quote"].contains(&code.as_str()),
            "{code}"
        );
    }
}

#[test]
fn a_short_first_row_without_a_header_does_not_set_the_number_of_columns() {
    let options = CsvOptions {
        header: Some(false),
        pad_short_rows: true,
        ..CsvOptions::default()
    };
    let outcome = read(
        b"1\n1,2,3\n4,5,6\n7,8,9\n1,2,3\n4,5,6\n7,8,9\n1,2,3\n4,5,6\n7,8,9\n1,2,3\n",
        &[],
        options,
        LIMITS,
    )
    .unwrap();
    assert_eq!((outcome.rows.len(), outcome.rejected.len()), (11, 0));
}

/// Detection examines the first bytes alone, however many have arrived when it runs.
#[test]
fn detection_does_not_depend_on_how_the_file_arrives() {
    let ascii = "1;2\n".repeat(16_384 + 10);
    let later = b"caf\xe9,\xe9;\xe9\n1,2\n".repeat(10_000);
    let file = [&b"a;b\n"[..], ascii.as_bytes(), &later].concat();
    let options = CsvOptions::default();
    let at_once = read(&file, &[], options.clone(), LIMITS).unwrap();
    assert_eq!(at_once.rows.len(), 16_394 + 10_000);
    let (_, late) = &at_once.rows[16_394];
    assert_eq!(late, &["café,é", "é"]);
    assert_eq!(at_once.rejected.len(), 10_000);
    for sizes in [&[1000][..], &[65_536], &[65_535, 1, 7]] {
        let in_pieces = read(&file, sizes, options.clone(), LIMITS).unwrap();
        assert_eq!(in_pieces, at_once);
    }
}
