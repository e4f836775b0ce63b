//! The promises of the CSV reader: it reads a valid file as the `csv` crate does, the result
//! does not depend on how the bytes arrive, and every row is accounted for.

mod limits;

use std::io;
use std::iter::Cycle;
use std::slice::Iter;
use std::time::{Duration, Instant};

use bytes::Bytes;
use carga_common::rejects::RejectedRow;
use carga_intake::csv::{CsvLimits, CsvOptions, Encoding, Next};
use carga_intake::open::{FileBytes, open};
use carga_intake::refusal::Refusal;
use csv_async::{AsyncReaderBuilder, AsyncWriterBuilder, StringRecord, Terminator};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio_util::io::StreamReader;

use self::limits::{LIMITS, limit};

/// The result of reading a file.
#[derive(Debug, PartialEq)]
struct Outcome {
    columns: Vec<String>,
    rows: Vec<(u64, Vec<String>)>,
    rejected: Vec<RejectedRow>,
    rows_read: u64,
    blank_lines: u64,
    /// The code of the fault that ended the reading.
    fault: Option<String>,
}

/// A file in memory that arrives in pieces of these sizes.
struct Pieces<'a> {
    rest: &'a [u8],
    sizes: Cycle<Iter<'a, usize>>,
}

impl<'a> Pieces<'a> {
    fn next_piece(&mut self) -> Option<&'a [u8]> {
        let size = self.sizes.next().copied().unwrap_or(self.rest.len());
        let (piece, rest) = self.rest.split_at(size.min(self.rest.len()));
        self.rest = rest;
        (!piece.is_empty()).then_some(piece)
    }
}

impl FileBytes for Pieces<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        Ok(self.next_piece().map(Bytes::copy_from_slice))
    }

    fn compression(&self) -> Option<&'static str> {
        None
    }
}

/// Reads a file that arrives in pieces of these sizes, repeated in a cycle. Without sizes, it
/// arrives in one piece.
fn read(
    file: &[u8],
    sizes: &[usize],
    options: CsvOptions,
    limits: CsvLimits,
) -> Result<Outcome, Refusal> {
    let sizes = sizes.iter().cycle();
    let mut pieces = Pieces { rest: file, sizes };
    // Nothing here waits, so the future is ready at once.
    let (mut reader, _) = ready(open(&mut pieces, options, limits))?;
    let mut outcome = Outcome {
        columns: reader.columns().to_vec(),
        rows: Vec::new(),
        rejected: Vec::new(),
        rows_read: 0,
        blank_lines: 0,
        fault: None,
    };
    loop {
        match reader.next() {
            Ok(Next::More) => match pieces.next_piece() {
                Some(piece) => reader.push(piece),
                None => reader.end(),
            },
            Ok(Next::Row) => {
                let cells = reader.cells().map(str::to_owned).collect();
                outcome.rows.push((reader.rows_read(), cells));
            }
            Ok(Next::Rejected(rejection)) => outcome.rejected.push(rejection.row),
            Ok(Next::End) => break,
            Err(fault) => {
                outcome.fault = Some(fault.code.to_owned());
                break;
            }
        }
    }
    outcome.rows_read = reader.rows_read();
    outcome.blank_lines = reader.blank_lines();
    Ok(outcome)
}

/// Checks that every row is stored or rejected exactly once, and that each rejected row has its
/// reason and its text.
fn check_accounts(outcome: &Outcome) {
    let stored = outcome.rows.iter().map(|(number, _)| *number);
    let rejected = outcome.rejected.iter().map(|row| row.row);
    let mut numbers: Vec<u64> = stored.chain(rejected).collect();
    numbers.sort_unstable();
    if outcome.fault.is_none() {
        assert!(
            numbers.iter().copied().eq(1..=outcome.rows_read),
            "{numbers:?}"
        );
    }
    for (_, cells) in &outcome.rows {
        assert_eq!(cells.len(), outcome.columns.len());
    }
    let mut last = 0;
    for row in &outcome.rejected {
        assert!(row.row > last, "{row:?}");
        assert!(!row.code.is_empty() && !row.message.is_empty(), "{row:?}");
        assert!(row.raw.is_some() != row.fields.is_some(), "{row:?}");
        last = row.row;
    }
}

fn utf8() -> CsvOptions {
    CsvOptions {
        delimiter: Some(','),
        encoding: Encoding::for_label(b"utf-8"),
        ..CsvOptions::default()
    }
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        prop::collection::vec(1usize..5, 1..4),
        prop::collection::vec(1usize..200, 1..8),
    ]
}

/// The output of a future over memory, which never waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    future
        .now_or_never()
        .unwrap_or_else(|| panic!("reading from memory waited"))
}

async fn written_by_csv_async(
    records: impl Iterator<Item = Vec<String>>,
    terminator: Terminator,
) -> csv_async::Result<Vec<u8>> {
    let mut writer = AsyncWriterBuilder::new()
        .terminator(terminator)
        .create_writer(Vec::new());
    for record in records {
        writer.write_record(record).await?;
    }
    let written = writer.into_inner().await;
    Ok(written.map_err(|error| io::Error::other(error.to_string()))?)
}

/// The rows as csv-async reads them from the same pieces.
async fn read_by_csv_async(file: &[u8], sizes: &[usize]) -> csv_async::Result<Vec<Vec<String>>> {
    let sizes = sizes.iter().cycle();
    let mut pieces = Pieces { rest: file, sizes };
    let pieces = stream::iter(std::iter::from_fn(|| pieces.next_piece()));
    let pieces = StreamReader::new(pieces.map(Ok::<_, io::Error>));
    let reader = AsyncReaderBuilder::new().create_reader(pieces);
    let row = |row: StringRecord| row.iter().map(str::to_owned).collect();
    let rows = reader.into_records().map_ok(row);
    rows.try_collect().await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_valid_file_is_read_as_csv_async_reads_it(
        rows in prop::collection::vec(prop::collection::vec("[a-z ,\"\n\ré🦀;'\\\\]{0,8}", 3), 0..30),
        crlf in any::<bool>(),
        sizes in sizes(),
    ) {
        let terminator = if crlf { Terminator::CRLF } else { Terminator::default() };
        let records = std::iter::once(["a", "b", "c"].map(str::to_owned).to_vec()).chain(rows.clone());
        let file = ready(written_by_csv_async(records, terminator)).unwrap();
        let outcome = read(&file, &sizes, utf8(), LIMITS).unwrap();
        prop_assert!(outcome.rejected.is_empty(), "{:?}", outcome.rejected);
        let found: Vec<Vec<String>> = outcome.rows.into_iter().map(|(_, cells)| cells).collect();
        prop_assert_eq!(&found, &rows);
        prop_assert_eq!(found, ready(read_by_csv_async(&file, &sizes)).unwrap());
    }

    #[test]
    fn any_bytes_are_accounted_for_and_read_the_same_however_they_arrive(
        file in prop::collection::vec(prop_oneof![
            6 => prop::sample::select(b"ab,;\"\n\r".to_vec()),
            1 => any::<u8>(),
        ], 0..600),
        sizes in sizes(),
        quote in prop_oneof![Just(None), Just(Some(None)), Just(Some(Some(b'\'')))],
        header in prop_oneof![Just(None), Just(Some(false))],
        label in prop_oneof![Just(None), Just(Some("utf-8")), Just(Some("utf-16le")), Just(Some("shift_jis"))],
        delimiter in prop_oneof![Just(None), Just(Some(',')), Just(Some('é'))],
        row_bytes in prop_oneof![Just(20usize), Just(64), Just(1 << 20)],
    ) {
        let encoding = label.and_then(|label| Encoding::for_label(label.as_bytes()));
        let options = CsvOptions { delimiter, quote, encoding, header };
        let limits = CsvLimits {
            row_bytes: limit(row_bytes),
            header_bytes: limit(200),
            field_bytes: limit(row_bytes / 2),
            ..LIMITS
        };
        let at_once = read(&file, &[], options, limits).map_err(|refusal| refusal.failure);
        let in_pieces = read(&file, &sizes, options, limits).map_err(|refusal| refusal.failure);
        prop_assert_eq!(&at_once, &in_pieces);
        if let Ok(outcome) = at_once {
            check_accounts(&outcome);
        }
    }

    /// Mixes faulty records with valid ones. Each fault is reported with its code and position,
    /// and nothing else is rejected.
    #[test]
    fn every_faulty_record_is_rejected_alone_with_its_line_and_offset(
        plan in prop::collection::vec((0usize..7, "[a-zé]{1,6}"), 1..60),
        sizes in sizes(),
    ) {
        let mut file = b"a,b\n".to_vec();
        let mut line = 2;
        let (mut rows, mut faults) = (Vec::new(), Vec::new());
        for (number, (kind, word)) in (1..).zip(&plan) {
            let position = (number, line, file.len() as u64);
            line += 1;
            let (record, code) = match kind {
                0 => (format!("{word}\n").into_bytes(), "too_few_fields"),
                1 => (format!("{word},1,2\n").into_bytes(), "too_many_fields"),
                2 => ([word.as_bytes(), b"\xff,1\n"].concat(), "undecodable"),
                3 => (format!("{word},\0\n").into_bytes(), "nul_character"),
                4 => (format!("{word},\"x\"y\n").into_bytes(), "bad_quote"),
                5 => {
                    rows.push((number, vec![word.clone(), "1\n2".to_owned()]));
                    line += 1;
                    (format!("{word},\"1\n2\"\n").into_bytes(), "")
                }
                _ => {
                    rows.push((number, vec![word.clone(), "\"".to_owned()]));
                    (format!("{word},\"\"\"\"\n").into_bytes(), "")
                }
            };
            if !code.is_empty() {
                faults.push((position, code));
            }
            file.extend(record);
        }
        let outcome = read(&file, &sizes, utf8(), LIMITS).unwrap();
        prop_assert_eq!(&outcome.rows, &rows);
        let found: Vec<_> = outcome
            .rejected
            .iter()
            .map(|row| ((row.row, row.line, row.offset), row.code.as_str()))
            .collect();
        prop_assert_eq!(found, faults);
        check_accounts(&outcome);
    }
}

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
    let outcome = read(b"\"a\"b,c\n1,2\n", &[1], options, LIMITS).unwrap();
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

/// Detection examines the first bytes alone, however many have arrived when it runs.
#[test]
fn detection_does_not_depend_on_how_the_file_arrives() {
    let ascii = "1;2\n".repeat(16_384 + 10);
    let later = b"caf\xe9,\xe9;\xe9\n1,2\n".repeat(10_000);
    let file = [&b"a;b\n"[..], ascii.as_bytes(), &later].concat();
    let options = CsvOptions::default();
    let at_once = read(&file, &[], options, LIMITS).unwrap();
    assert_eq!(at_once.rows.len(), 16_394);
    assert_eq!(at_once.rejected.len(), 20_000);
    assert!(
        at_once.rejected[0]
            .message
            .contains("encoding=windows-1252")
    );
    for sizes in [&[1000][..], &[65_536], &[65_535, 1, 7]] {
        assert_eq!(read(&file, sizes, options, LIMITS).unwrap(), at_once);
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

/// How long to fuzz if CARGA_FUZZ_SECS is not set.
const FUZZ_SECS: u64 = 10;

/// A file from `fixtures/` with some bytes replaced, removed or repeated.
fn mutated(fixtures: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let file = prop::sample::select(fixtures);
    let changes = prop::collection::vec(
        (
            any::<prop::sample::Index>(),
            0usize..9,
            prop_oneof![
                2 => prop::sample::select(b"\",;\n\r\0\xff'|\t".to_vec()),
                1 => any::<u8>(),
            ],
        ),
        0..12,
    );
    (file, changes).prop_map(|(mut file, changes)| {
        for (index, length, byte) in changes {
            if file.is_empty() {
                break;
            }
            let at = index.index(file.len());
            let end = (at + length).min(file.len());
            match length {
                0..3 => file[at] = byte,
                3..6 => drop(file.drain(at..end)),
                _ => {
                    let twice = file[at..end].to_vec();
                    file.splice(at..at, twice);
                }
            }
        }
        file
    })
}

/// Reads mutated files for a limited time. The reader never panics, every row is accounted for,
/// and the size of the pieces makes no difference.
#[test]
fn mutated_files_are_accounted_for_and_read_the_same_in_pieces() {
    let seconds = std::env::var("CARGA_FUZZ_SECS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(FUZZ_SECS));
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures");
    let fixtures: Vec<Vec<u8>> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(fixtures.len() > 50);
    let limits = CsvLimits {
        row_bytes: limit(200),
        field_bytes: limit(100),
        header_bytes: limit(100),
        ..LIMITS
    };
    let labels = [
        "",
        "utf-8",
        "utf-16be",
        "windows-1252",
        "gb18030",
        "iso-2022-jp",
    ];
    let strategy = (
        mutated(fixtures),
        sizes(),
        prop::sample::select(labels.to_vec()),
    );
    let mut runner = TestRunner::default();
    let mut files = 0;
    while Instant::now() < end {
        let (file, sizes, label) = strategy.new_tree(&mut runner).unwrap().current();
        let options = CsvOptions {
            encoding: Encoding::for_label(label.as_bytes()),
            ..CsvOptions::default()
        };
        let at_once = read(&file, &[], options, limits).map_err(|refusal| refusal.failure);
        let in_pieces = read(&file, &sizes, options, limits).map_err(|refusal| refusal.failure);
        assert_eq!(
            at_once,
            in_pieces,
            "{:?} in {sizes:?} as {label:?}",
            file.escape_ascii().to_string()
        );
        if let Ok(outcome) = at_once {
            check_accounts(&outcome);
        }
        files += 1;
    }
    println!("{files} files");
}
