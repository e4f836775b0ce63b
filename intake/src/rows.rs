//! Reads the rows of a file into batches and rejected rows, and waits until every batch is
//! confirmed.

use std::sync::Arc;

use bytes::Bytes;
use carga_common::batch::BatchEncoder;
use carga_common::store::Seal;
use carga_common::telemetry::TraceContext;
use carga_common::upload::{Dialect, Upload};
use futures::Stream;

use crate::csv::{CsvReader, Exceeded, Next, Warning};
use crate::decompress::Decompressor;
use crate::heartbeat::ActiveUpload;
use crate::intake::Intake;
use crate::open::FileBytes;
use crate::policy::Policy;
use crate::publish::PublishWindow;
use crate::refusal::Refusal;
use crate::rejects::Rejects;

/// The most warnings about rows of one file that are logged one by one.
const MAX_LOGGED_WARNINGS: u64 = 20;

impl Intake {
    /// Reads a file to its end. When it returns, every batch is confirmed and every rejected
    /// row is in the store.
    pub(crate) async fn publish_rows<S>(
        &self,
        reader: CsvReader,
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
        let (key, columns) = (upload.key(), &upload.columns);
        let figures = Arc::clone(&active.figures);
        let store = self.backends.store.as_ref();
        let budget = Arc::clone(&self.publish_budget);
        let mut rows = Rows {
            reader,
            encoder: BatchEncoder::new(key, columns, trace.as_str(), settings.batch),
            window: PublishWindow::new(self.backends.queue.publisher(), budget, settings),
            rejects: Rejects::new(store, upload, figures, policy, settings),
            warnings: 0,
        };
        if let Err(refusal) = rows.read_all(&mut file).await {
            rows.rejects.flush_last().await;
            return Err(refusal);
        }
        rows.finish(policy, &mut file).await
    }
}

/// Reads one file, and publishes its rows.
struct Rows<'a> {
    reader: CsvReader,
    encoder: BatchEncoder,
    window: PublishWindow,
    rejects: Rejects<'a>,
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
                Next::Rejected(row) => self.rejects.push(*row).await?,
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
        let missing = self.reader.missing_cells();
        match self.encoder.push_short(row, cells, missing) {
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
                let exceeded = Exceeded {
                    limit: error.limit as u64,
                    actual: error.actual as u64,
                };
                let rejection = self.reader.reject("row_too_large", message, exceeded);
                self.rejects.push(rejection).await
            }
        }
    }

    /// Publishes the last batch, and waits until all batches are confirmed.
    async fn finish<S>(
        mut self,
        policy: Policy,
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
        policy.check_share(rejected, rows)?;
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
