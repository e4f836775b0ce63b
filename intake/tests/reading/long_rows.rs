//! The promises about rows near the limit and beyond it, and about rows that arrive slowly.

use std::time::{Duration, Instant};

use carga_intake::csv::CsvLimits;

use crate::limits::{LIMITS, limit};
use crate::outcome::{Outcome, check_accounts, read, utf8};

/// Near the limit, a reader could mistake a line end or the next row for a part of the row.
#[test]
fn a_row_near_the_limit_leaves_the_rows_around_it_intact() {
    const LIMIT: usize = 20;
    let limits = CsvLimits {
        row_bytes: limit(LIMIT),
        ..LIMITS
    };
    let rows = |outcome: &Outcome| -> Vec<String> {
        let cell = |(_, cells): &(u64, Vec<String>)| cells[1].clone();
        outcome.rows.iter().map(cell).collect()
    };
    for line_end in ["\n", "\r\n", "\r"] {
        for length in 1..=LIMIT * 3 {
            let x = "x".repeat(length);
            let shapes = [
                format!("a,{x}"),
                format!("a,\"{x}\""),
                format!("a,\"{x}"),
                format!("a,{}\"x{line_end}x\"", "x".repeat(length)),
                format!("\"a{line_end}\",\"{x}\""),
                format!("\"a{line_end}\",\"{x}"),
            ];
            for (shape, row) in shapes.into_iter().enumerate() {
                // No later row has a quote that could close an open one.
                let file = ["a,b", "1,one", &row, "2,two", "3,three", ""].join(line_end);
                for sizes in [&[][..], &[1], &[LIMIT], &[LIMIT + 1], &[7, 3]] {
                    let outcome = read(file.as_bytes(), sizes, utf8(), limits).unwrap();
                    let context = format!("{shape} {length} {line_end:?} {sizes:?}: {outcome:?}");
                    check_accounts(&outcome);
                    let found = rows(&outcome);
                    assert_eq!(found.first().map(String::as_str), Some("one"), "{context}");
                    assert!(
                        found.ends_with(&["two".to_owned(), "three".to_owned()]),
                        "{context}"
                    );
                    let physical = file.split(line_end).count() - 1;
                    let most = physical as u64 - 1;
                    assert!(outcome.rows_read <= most, "{context}");
                    if shape == 0 {
                        // The limit counts bytes, including the line end.
                        let fits = row.len() + line_end.len() <= LIMIT;
                        assert_eq!(outcome.rejected.is_empty(), fits, "{context}");
                        assert_eq!(outcome.rows_read, 4, "{context}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_long_row_is_rejected_and_an_endless_row_fails_the_file() {
    let limits = CsvLimits {
        row_bytes: limit(1000),
        field_bytes: limit(500),
        ..LIMITS
    };
    let row_of = |length| [&b"a,b\n\""[..], &vec![b'x'; length], b"\n1,2\n"].concat();
    for sizes in [&[7][..], &[100], &[]] {
        let outcome = read(&row_of(10_000), sizes, utf8(), limits).unwrap();
        assert_eq!(outcome.fault, None);
        assert_eq!(outcome.rejected[0].code, "row_too_large");
        assert!(outcome.rejected[0].message.contains("10002 bytes"));
        assert_eq!(outcome.rows, [(2, vec!["1".to_owned(), "2".to_owned()])]);

        let outcome = read(&row_of(20_000), sizes, utf8(), limits).unwrap();
        assert_eq!(outcome.fault.as_deref(), Some("row_too_large"));
    }
}

/// A client that sends single bytes makes the reader look at the same record again and again. The
/// total time must still be linear.
#[test]
fn a_record_that_arrives_in_single_bytes_is_read_in_linear_time() {
    let start = Instant::now();
    let file = format!("a,b\n1,{}\n", "x".repeat(60_000));
    let outcome = read(file.as_bytes(), &[1], utf8(), LIMITS).unwrap();
    assert_eq!(outcome.rows.len(), 1);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}
