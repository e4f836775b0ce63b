//! Reads the rows of a file into batches and rejected rows, and waits until every batch is
//! confirmed. The rows of an upload with a dataset are converted first.

use std::sync::Arc;

use bytes::Bytes;
use carga_common::batch::{BatchEncoder, RowOrigin};
use carga_common::dataset::DatasetName;
use carga_common::store::Seal;
use carga_common::telemetry::TraceContext;
use carga_common::typed::{RowTooWide, RowWidth};
use carga_common::upload::{Dialect, Upload};
use futures::Stream;

use crate::csv::{CsvReader, Exceeded, Next, Position, Rejection, Warning};
use crate::decompress::Decompressor;
use crate::file_rows::FileRows;
use crate::heartbeat::ActiveUpload;
use crate::intake::Intake;
use crate::open::FileBytes;
use crate::policy::Policy;
use crate::publish::PublishWindow;
use crate::refusal::Refusal;
use crate::rejects::Rejects;
use crate::typed::{CellFault, Converter};

/// The most warnings about rows of one file that are logged one by one.
const MAX_LOGGED_WARNINGS: u64 = 20;

impl Intake {
    /// Reads a file to its end. When it returns, every batch is confirmed and every rejected
    /// row is in the store.
    pub(crate) async fn publish_rows<S>(
        &self,
        rows: FileRows,
        mut file: Decompressor<S>,
        upload: &Upload,
        active: &ActiveUpload,
        policy: Policy,
        trace: &TraceContext,
    ) -> Result<Seal, Refusal>
    where
        S: Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
    {
        let settings = self.settings.as_ref();
        let FileRows { reader, converter } = rows;
        let (key, limits) = (upload.key(), settings.batch);
        let encoder = match &converter {
            None => BatchEncoder::new(key, &upload.columns, trace.as_str(), limits),
            Some(_) => BatchEncoder::typed(key, &upload.stored_columns(), trace.as_str(), limits),
        };
        let figures = Arc::clone(&active.figures);
        let store = self.backends.store.as_ref();
        let dataset = upload.dataset.as_ref().zip(store.max_row_bytes());
        let width = dataset.and_then(|(dataset, limit)| RowWidth::new(&dataset.columns, limit));
        let budget = Arc::clone(&self.publish_budget);
        let mut rows = Rows {
            reader,
            converter,
            width,
            encoder,
            window: PublishWindow::new(self.backends.queue.publisher(), budget, settings),
            rejects: Rejects::new(store, upload, figures, policy, settings),
            first_reject: None,
            warnings: 0,
        };
        if let Err(refusal) = rows.read_all(&mut file).await {
            rows.rejects.flush_last().await;
            return Err(refusal);
        }
        let dataset = upload.dataset.as_ref().map(|dataset| &dataset.name);
        rows.finish(policy, dataset, &mut file).await
    }
}

/// Reads one file, and publishes its rows.
struct Rows<'a> {
    reader: CsvReader,
    converter: Option<Converter>,
    /// Measures converted rows; `None` if every row fits into the table.
    width: Option<RowWidth>,
    encoder: BatchEncoder,
    window: PublishWindow,
    rejects: Rejects<'a>,
    /// The reason of the first rejected row.
    first_reject: Option<String>,
    /// The number of rows that may contain a mistake.
    warnings: u64,
}

impl Rows<'_> {
    /// Reads to the end of the file. Rows go into batches; malformed records become rejected rows.
    async fn read_all(&mut self, file: &mut impl FileBytes) -> Result<(), Refusal> {
        loop {
            let next = self.reader.next()?;
            self.rejects.figures().set_rows(self.reader.rows_read());
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
            Ok(Some(batch)) => {
                if self.rejects.figures().has_ended() {
                    return Err(Refusal::ended_meanwhile());
                }
                self.window.push(batch).await?;
                self.rejects.flush_if_due().await
            }
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
        self.rejects.push(rejection).await
    }

    /// Publishes the last batch, and waits until all batches are confirmed.
    async fn finish<S>(
        mut self,
        policy: Policy,
        dataset: Option<&DatasetName>,
        file: &mut Decompressor<S>,
    ) -> Result<Seal, Refusal>
    where
        S: Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
    {
        if self.warnings > MAX_LOGGED_WARNINGS {
            let rows = self.warnings;
            tracing::warn!(rows, "only the first warnings about rows were logged");
        }
        let (last, batches) = self.encoder.finish();
        if let Some(batch) = last {
            self.window.push(batch).await?;
        }
        self.rejects.flush().await?;
        let (rows, rejected) = (self.reader.rows_read(), self.rejects.count());
        let first = self.first_reject.as_deref();
        policy.check_share_of_upload(rejected, rows, first, dataset)?;
        self.window.finish().await?;
        let compression = file.compression().map(str::to_owned);
        let source = file.source();
        Ok(Seal {
            rows,
            rejected,
            blank_lines: self.reader.blank_lines(),
            batches,
            bytes: source.bytes_received(),
            sha256: source.sha256(),
            duplicate_of: None,
            dialect: self.reader.changed_dialect().map(|dialect| Dialect {
                compression,
                ..dialect
            }),
        })
    }
}
