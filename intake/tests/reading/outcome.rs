//! Reads a file that arrives in pieces, and checks the account of its rows.

use std::iter::Cycle;
use std::slice::Iter;

use bytes::Bytes;
use carga_common::rejects::RejectedRow;
use carga_common::upload::Dialect;
use carga_intake::csv::{Charset, CsvLimits, CsvOptions, Next};
use carga_intake::open::{FileBytes, open};
use carga_intake::refusal::Refusal;
use futures::FutureExt;

/// Stands for a cell that a short row lacks.
pub(crate) const MISSING: &str = "(missing)";

/// The result of reading a file.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<(u64, Vec<String>)>,
    pub(crate) rejected: Vec<RejectedRow>,
    pub(crate) rows_read: u64,
    pub(crate) blank_lines: u64,
    /// The code of the fault that ended the reading.
    pub(crate) fault: Option<String>,
}

/// A file in memory that arrives in pieces of these sizes.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    rest: &'a [u8],
    sizes: Cycle<Iter<'a, usize>>,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(file: &'a [u8], sizes: &'a [usize]) -> Self {
        let sizes = sizes.iter().cycle();
        Self { rest: file, sizes }
    }

    pub(crate) fn next_piece(&mut self) -> Option<&'a [u8]> {
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
pub(crate) fn read(
    file: &[u8],
    sizes: &[usize],
    options: CsvOptions,
    limits: CsvLimits,
) -> Result<Outcome, Refusal> {
    let read = read_with_dialect(file, sizes, options, limits);
    read.map(|(outcome, _)| outcome)
}

/// Like [`read`], with the dialect that the reader has used.
pub(crate) fn read_with_dialect(
    file: &[u8],
    sizes: &[usize],
    options: CsvOptions,
    limits: CsvLimits,
) -> Result<(Outcome, Dialect), Refusal> {
    let mut pieces = Pieces::new(file, sizes);
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
                let missing = std::iter::repeat_n(MISSING, reader.missing_cells());
                let cells = reader.cells().chain(missing).map(str::to_owned).collect();
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
    Ok((outcome, reader.dialect().clone()))
}

/// Checks that every row is stored or rejected exactly once, and that each rejected row has its
/// reason and its text.
pub(crate) fn check_accounts(outcome: &Outcome) {
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

pub(crate) fn utf8() -> CsvOptions {
    CsvOptions {
        delimiter: Some(','),
        quote: Some(Some(b'"')),
        escape: Some(None),
        encoding: Some(Charset::UTF_8),
        skip: Some(0),
        header: Some(true),
        ..CsvOptions::default()
    }
}

/// The output of a future over memory, which never waits.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    future
        .now_or_never()
        .unwrap_or_else(|| panic!("reading from memory waited"))
}
