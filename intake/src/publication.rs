//! Publishes the rows of a file, and stores the rows that are rejected.

use std::sync::Arc;

use bytes::Bytes;
use carga_common::batch::EncodedBatch;
use carga_common::store::Seal;
use carga_common::telemetry::TraceContext;
use carga_common::upload::Upload;
use futures::Stream;

use crate::csv::Rejection;
use crate::decompress::Decompressor;
use crate::file_rows::FileRows;
use crate::heartbeat::ActiveUpload;
use crate::intake::Intake;
use crate::policy::Policy;
use crate::publish::PublishWindow;
use crate::quota::Allowance;
use crate::refusal::Refusal;
use crate::rejects::Rejects;
use crate::rows::{Destination, Encoding, Rows};

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
        let (settings, store) = (self.settings.as_ref(), self.backends.store.as_ref());
        let budget = Arc::clone(&self.publish_budget);
        let figures = Arc::clone(&active.figures);
        let encoding = Encoding {
            key: upload.key(),
            dataset: upload.dataset.as_ref(),
            max_row_bytes: store.max_row_bytes(),
            trace: trace.as_str(),
            limits: settings.batch,
        };
        let (publisher, metrics) = (self.backends.queue.publisher(), Arc::clone(&self.metrics));
        let publication = Publication {
            window: PublishWindow::new(publisher, budget, settings, metrics),
            rejects: Rejects::new(store, upload, figures, policy, settings),
            allowance: file.source().allowance(),
        };
        let mut rows = Rows::new(rows, encoding, publication);
        if let Err(refusal) = rows.read_all(&mut file).await {
            rows.destination.rejects.flush_last().await;
            return Err(refusal);
        }
        let dataset = upload.dataset.as_ref().map(|dataset| &dataset.name);
        let (account, publication) = rows.end(policy, dataset).await?;
        publication.window.finish().await?;
        let source = file.source();
        Ok(Seal {
            rows: account.rows,
            rejected: account.rejected,
            blank_lines: account.blank_lines,
            batches: account.batches,
            bytes: source.bytes_received(),
            sha256: source.sha256(),
            duplicate_of: None,
            dialect: account.changed_dialect(&file),
        })
    }
}

/// The batches of an upload go to the queue, and its rejected rows to the store.
struct Publication<'a> {
    window: PublishWindow,
    rejects: Rejects<'a>,
    allowance: Allowance,
}

impl Publication<'_> {
    /// Compares the rows read so far with what the tenant may still send. Stores all rejected rows
    /// before it refuses the file.
    async fn check_rows(&mut self) -> Result<(), Refusal> {
        let checked = self.allowance.check_rows(self.rejects.figures().rows());
        if checked.is_err() {
            self.rejects.flush().await?;
        }
        checked
    }
}

impl Destination for Publication<'_> {
    fn set_rows(&mut self, rows: u64) {
        self.rejects.figures().set_rows(rows);
    }

    async fn push(&mut self, batch: EncodedBatch) -> Result<(), Refusal> {
        if self.rejects.figures().has_ended() {
            return Err(Refusal::ended_meanwhile());
        }
        self.check_rows().await?;
        self.window.push(batch).await?;
        self.rejects.flush_if_due().await
    }

    async fn reject(&mut self, rejection: Rejection) -> Result<(), Refusal> {
        self.rejects.push(rejection).await?;
        // A file may have rejected rows only, and so no batch.
        self.check_rows().await
    }

    async fn flush(&mut self) -> Result<(), Refusal> {
        self.check_rows().await?;
        self.rejects.flush().await
    }

    fn rejected(&self) -> u64 {
        self.rejects.count()
    }
}
