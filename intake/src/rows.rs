//! Reads the rows of a file into batches and rejected rows. The rows for a dataset are converted
//! first. An upload and a validation read a file with the same code.

use carga_common::batch::{BatchEncoder, BatchLimits, EncodedBatch, RowOrigin};
use carga_common::dataset::DatasetName;
use carga_common::typed::{RowTooWide, RowWidth};
use carga_common::upload::{Dialect, UploadDataset, UploadKey};

use crate::csv::{CsvReader, Exceeded, Next, Position, Rejection, Warning};
use crate::file_rows::FileRows;
use crate::open::FileBytes;
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::typed::{CellFault, Converter};

/// The most warnings about rows of one file that are logged one by one.
const MAX_LOGGED_WARNINGS: u64 = 20;

/// Takes the batches and the rejected rows of a file while it is read.
pub(crate) trait Destination: Send {
    /// Called after each record with the number of rows read so far, including rejected rows.
    fn set_rows(&mut self, rows: u64);

    /// Takes a batch.
    fn push(&mut self, batch: EncodedBatch) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Takes a rejected row. Fails if this row is a reason to refuse the file.
    fn reject(&mut self, rejection: Rejection) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Called at the end of the file, before the rejected rows are compared with all rows.
    fn flush(&mut self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The number of rejected rows so far.
    fn rejected(&self) -> u64;
}

/// How the rows of a file become batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoding<'a> {
    /// The upload that the batches name.
    pub(crate) key: UploadKey,
    /// The dataset for which the rows are converted.
    pub(crate) dataset: Option<&'a UploadDataset>,
    /// The largest row that the table of a dataset takes; `None` if there is no limit.
    pub(crate) max_row_bytes: Option<usize>,
    /// The W3C `traceparent` of every batch.
    pub(crate) trace: &'a str,
    /// When a batch closes.
    pub(crate) limits: BatchLimits,
}

/// The account of a file that was read to its end.
#[derive(Debug)]
pub(crate) struct Account {
    /// Rows read, including rejected rows.
    pub(crate) rows: u64,
    /// Rejected rows.
    pub(crate) rejected: u64,
    /// Empty lines, which are not records.
    pub(crate) blank_lines: u64,
    pub(crate) batches: u32,
    /// The dialect without the compression, if it has changed since the header was read.
    dialect: Option<Dialect>,
}

impl Account {
    /// The dialect of the whole file, if it has changed since the header was read.
    pub(crate) fn changed_dialect(&self, file: &impl FileBytes) -> Option<Dialect> {
        let dialect = self.dialect.clone()?;
        Some(Dialect {
            compression: file.compression().map(str::to_owned),
            ..dialect
        })
    }
}

/// Reads one file.
pub(crate) struct Rows<D> {
    reader: CsvReader,
    converter: Option<Converter>,
    /// Measures converted rows; `None` if every row fits into the table.
    width: Option<RowWidth>,
    encoder: BatchEncoder,
    pub(crate) destination: D,
    /// The reason of the first rejected row.
    first_reject: Option<String>,
    /// The number of rows that may contain a mistake.
    warnings: u64,
}

impl<D: Destination> Rows<D> {
    pub(crate) fn new(rows: FileRows, encoding: Encoding<'_>, destination: D) -> Self {
        let FileRows { reader, converter } = rows;
        let Encoding {
            key,
            dataset,
            max_row_bytes,
            trace,
            limits,
        } = encoding;
        let encoder = match dataset {
            None => BatchEncoder::new(key, reader.columns(), trace, limits),
            Some(dataset) => {
                let names = dataset.columns.iter().map(|column| column.name.clone());
                BatchEncoder::typed(key, &names.collect::<Vec<_>>(), trace, limits)
            }
        };
        let table = dataset.zip(max_row_bytes);
        Self {
            reader,
            converter,
            width: table.and_then(|(dataset, limit)| RowWidth::new(&dataset.columns, limit)),
            encoder,
            destination,
            first_reject: None,
            warnings: 0,
        }
    }

    /// Reads to the end of the file. Rows go into batches; malformed records become rejected rows.
    pub(crate) async fn read_all(&mut self, file: &mut impl FileBytes) -> Result<(), Refusal> {
        loop {
            let next = self.reader.next()?;
            self.destination.set_rows(self.reader.rows_read());
            match next {
                Next::More => match file.next().await? {
                    Some(bytes) => self.reader.push(&bytes),
                    None => self.reader.end(),
                },
                Next::End => return Ok(()),
                Next::Rejected(row) => self.reject(*row).await?,
                Next::Row => {
                    self.log_warning();
                    self.encode_row().await?;
                }
            }
        }
    }

    /// Logs the warning about the current row, if there is one.
    fn log_warning(&mut self) {
        let Some(warning) = self.reader.warning() else {
            return;
        };
        self.warnings += 1;
        if self.warnings <= MAX_LOGGED_WARNINGS {
            let Warning {
                row,
                line,
                code,
                message,
            } = warning;
            tracing::warn!(row, line, code, "{message}");
        }
    }

    async fn encode_row(&mut self) -> Result<(), Refusal> {
        let (row, cells) = (self.reader.rows_read(), self.reader.cells());
        let encoded = match &mut self.converter {
            None => {
                let missing = self.reader.missing_cells();
                self.encoder.push_short(row, cells, missing)
            }
            // The converter takes cells that the row lacks at its end for NULL.
            Some(converter) => match converter.convert(cells) {
                Ok(()) => {
                    let width = self.width.as_ref();
                    let measured = width.map_or(Ok(()), |width| width.check(converter.cells()));
                    if let Err(error) = measured {
                        let RowTooWide { limit, actual } = error;
                        return self.reject_large(error.to_string(), limit, actual).await;
                    }
                    let Position { line, offset } = self.reader.position();
                    let origin = RowOrigin {
                        line,
                        offset,
                        changed: converter.changed(),
                    };
                    self.encoder.push_typed(row, converter.cells(), origin)
                }
                Err(fault) => return self.reject_cell(fault).await,
            },
        };
        match encoded {
            Ok(None) => Ok(()),
            Ok(Some(batch)) => self.destination.push(batch).await,
            Err(error) => {
                let message = format!("{error} (CARGA_BATCH_BYTES)");
                self.reject_large(message, error.limit, error.actual).await
            }
        }
    }

    /// Rejects the current row, because it is too large to be sent or stored.
    async fn reject_large(
        &mut self,
        message: String,
        limit: usize,
        actual: usize,
    ) -> Result<(), Refusal> {
        let exceeded = Exceeded {
            limit: limit as u64,
            actual: actual as u64,
        };
        let rejection = self.reader.reject("row_too_large", message, exceeded);
        self.reject(rejection).await
    }

    /// Rejects the current row, because one of its cells cannot be converted.
    async fn reject_cell(&mut self, fault: CellFault) -> Result<(), Refusal> {
        let CellFault {
            column,
            code,
            message,
        } = fault;
        let rejection = self.reader.reject_cell(column, code, message);
        self.reject(rejection).await
    }

    async fn reject(&mut self, rejection: Rejection) -> Result<(), Refusal> {
        if self.first_reject.is_none() {
            self.first_reject = Some(rejection.row.reason());
        }
        self.destination.reject(rejection).await
    }

    /// Hands over the last batch, and compares the rejected rows with all rows.
    pub(crate) async fn end(
        mut self,
        policy: Policy,
        dataset: Option<&DatasetName>,
    ) -> Result<(Account, D), Refusal> {
        if self.warnings > MAX_LOGGED_WARNINGS {
            let rows = self.warnings;
            tracing::warn!(rows, "only the first warnings about rows were logged");
        }
        let (last, batches) = self.encoder.finish();
        if let Some(batch) = last {
            self.destination.push(batch).await?;
        }
        self.destination.flush().await?;
        let (rows, rejected) = (self.reader.rows_read(), self.destination.rejected());
        let first = self.first_reject.as_deref();
        policy.check_share_of_upload(rejected, rows, first, dataset)?;
        let account = Account {
            rows,
            rejected,
            blank_lines: self.reader.blank_lines(),
            batches,
            dialect: self.reader.changed_dialect(),
        };
        Ok((account, self.destination))
    }
}
