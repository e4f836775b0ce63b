//! The promises about any file: how it is read does not depend on the pieces in which it arrives.

use std::io;

use carga_intake::csv::CsvLimits;
use csv_async::{AsyncReaderBuilder, AsyncWriterBuilder, StringRecord, Terminator};
use futures::{StreamExt, TryStreamExt, stream};
use proptest::prelude::*;
use tokio_util::io::StreamReader;

use crate::limits::{LIMITS, limit};
use crate::outcome::{Pieces, check_accounts, read, ready, utf8};
use crate::strategies::{options, sizes};

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
    let mut pieces = Pieces::new(file, sizes);
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
            6 => prop::sample::select(b"ab12,;\"' \\#\n\r".to_vec()),
            1 => any::<u8>(),
        ], 0..600),
        sizes in sizes(),
        options in options(),
        row_bytes in prop_oneof![Just(20usize), Just(64), Just(1 << 20)],
    ) {
        let limits = CsvLimits {
            row_bytes: limit(row_bytes),
            header_bytes: limit(200),
            field_bytes: limit(row_bytes / 2),
            ..LIMITS
        };
        let at_once = read(&file, &[], options.clone(), limits).map_err(|refusal| refusal.failure);
        let in_pieces = read(&file, &sizes, options, limits).map_err(|refusal| refusal.failure);
        prop_assert_eq!(&at_once, &in_pieces);
        if let Ok(outcome) = at_once {
            check_accounts(&outcome);
        }
    }

    /// Mixes faulty records with valid ones. Each fault is reported with its code and position,
    /// and nothing else is rejected. At least one record in eight is valid: if nine in ten had one
    /// field too many, the reader would take the header to be at fault.
    #[test]
    fn every_faulty_record_is_rejected_alone_with_its_line_and_offset(
        plan in prop::collection::vec((0usize..7, "[a-zé]{1,6}"), 1..60),
        sizes in sizes(),
    ) {
        let mut file = b"a,b\n".to_vec();
        let mut line = 2;
        let (mut rows, mut faults) = (Vec::new(), Vec::new());
        for (number, (kind, word)) in (1..).zip(&plan) {
            let kind = if number % 8 == 1 { 6 } else { *kind };
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
