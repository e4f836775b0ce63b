//! A body becomes batches in the queue.
//!
//! `body` reads the socket, `form` finds the file in it, `source` counts, hashes and limits its bytes, `rows` makes rows of
//! them, `carga_common::batch` makes batches of rows, and `publish` sees to it that each becomes durable. This module puts
//! them in a row and decides how an upload begins and ends.

pub(crate) mod body;
mod file;
pub(crate) mod form;
pub(crate) mod live;
pub(crate) mod options;
mod publish;
mod rows;
mod source;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use carga_common::batch::BatchEncoder;
use carga_common::completion::{finish_if_complete, remove_rows};
use carga_common::error::{ErrorKind, PortError};
use carga_common::patience::patiently;
use carga_common::store::{NewUpload, Seal};
use carga_common::telemetry::TraceContext;
use carga_common::upload::{Dialect, Status, Upload, UploadId};
use futures::{Stream, TryStreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tracing::Instrument;

pub use self::file::{LocalFile, LocalIntake};
use self::form::{Encoding, Form};
use self::live::LiveGuard;
use self::options::Options;
use self::publish::PublishWindow;
use self::rows::{RowLimits, RowReader};
use self::source::FileSource;
use crate::problem::{ApiError, Refusal};
use crate::state::ApiState;

/// A client waits this long for its refusal while the database is away; then the lease has to do.
const RECORD_DEADLINE: Duration = Duration::from_secs(10);

/// What is known of an upload before its body is read.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) id: UploadId,
    pub(crate) encoding: Encoding,
    pub(crate) options: Options,
    pub(crate) headers: HeaderMap,
    pub(crate) content_length: Option<u64>,
    pub(crate) body: Body,
    /// One of the uploads at once: kept until the upload has ended, also when its client has gone long before.
    pub(crate) slot: OwnedSemaphorePermit,
}

/// Receives an upload to its end, whatever becomes of the client: a connection that drops is an end like any other.
pub(crate) async fn receive(state: ApiState, incoming: Incoming) -> Result<Upload, ApiError> {
    let span = tracing::info_span!("upload", upload.id = %incoming.id);
    let (idle, out_of_time) = (state.settings.body_idle, state.out_of_time.clone());
    let tasks = state.tasks.clone();
    let intake = async move {
        let Incoming {
            id,
            encoding,
            options,
            headers,
            content_length,
            body,
            slot,
        } = incoming;
        let _slot = slot;
        let body = body.into_data_stream();
        let body = body.map_err(|error| body::incomplete(&error.to_string()));
        let pieces = body::pieces(body, idle, out_of_time);
        let intake = Intake {
            state,
            id,
            options,
            headers,
        };
        match encoding {
            // hyper has counted the body against its length: what ends without an error is whole.
            Encoding::Raw => intake.load(pieces, content_length, async || Ok(())).await,
            Encoding::Form => intake.form(pieces).await,
        }
    };
    match tasks.spawn(intake.instrument(span)).await {
        Ok(received) => received,
        Err(panic) => {
            tracing::error!(%panic, "receiving an upload broke off");
            Err(Refusal::internal().into())
        }
    }
}

#[derive(Debug)]
struct Intake {
    state: ApiState,
    id: UploadId,
    options: Options,
    headers: HeaderMap,
}

impl Intake {
    async fn form(
        mut self,
        pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send + 'static,
    ) -> Result<Upload, ApiError> {
        let mut form = Form::open(self.headers.get(header::CONTENT_TYPE), pieces).await?;
        let file = form.file(&mut self.options).await?;
        let pieces = form.pieces(file);
        self.load(pieces, None, async || form.end().await).await
    }

    /// From the first byte of the file to the seal. `end` checks that the request ends where the file does.
    async fn load(
        self,
        pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
        bytes_total: Option<u64>,
        end: impl AsyncFnOnce() -> Result<(), Refusal>,
    ) -> Result<Upload, ApiError> {
        let limits = RowLimits::default();
        let source = FileSource::new(
            pieces,
            self.state.settings.max_upload_bytes,
            limits.header(),
        );
        let mut rows = RowReader::open(source, limits).await?;
        let dialect = Dialect::rfc4180(rows.source().has_byte_order_mark());
        let upload = self
            .create(rows.columns().to_vec(), dialect, bytes_total)
            .await?;

        let live = self.state.live.enter(upload.id, upload.epoch);
        rows.report_to(Arc::clone(&live.upload));
        let sealed = async {
            let seal = self.publish_rows(&mut rows, &upload, &live).await?;
            // The file's part must be let go before the form can go on.
            drop(rows);
            end().await?;
            self.options.check_sha256(seal.sha256)?;
            self.seal(&upload, &seal).await
        };
        match sealed.await {
            Ok(sealed) => Ok(self.finish(sealed).await),
            Err(refusal) => self.fail(upload, &live, refusal).await,
        }
    }

    async fn create(
        &self,
        columns: Vec<String>,
        dialect: Dialect,
        bytes_total: Option<u64>,
    ) -> Result<Upload, ApiError> {
        let new = NewUpload {
            id: self.id,
            filename: self.options.filename.clone(),
            dialect,
            columns,
            bytes_total,
        };
        let store = &self.state.backends.store;
        match store.create(&new).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                // Somebody was quicker with the same id.
                let other = store.upload(self.id).await?;
                let status = other.map(|upload| upload.status);
                Err(ApiError {
                    refusal: Refusal::id_used(self.id, status),
                    upload: Some(self.id),
                })
            }
            created => Ok(created?),
        }
    }

    /// Every row into a batch, every batch confirmed.
    async fn publish_rows<S>(
        &self,
        rows: &mut RowReader<S>,
        upload: &Upload,
        live: &LiveGuard,
    ) -> Result<Seal, Refusal>
    where
        S: Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
    {
        let settings = &self.state.settings;
        let traceparent = self
            .headers
            .get("traceparent")
            .and_then(|value| value.to_str().ok());
        let trace = TraceContext::from_header(traceparent);
        let (id, epoch, columns) = (upload.id, upload.epoch, &upload.columns);
        let mut encoder = BatchEncoder::new(id, epoch, columns, trace.as_str(), settings.batch);
        let mut window = PublishWindow::new(
            self.state.backends.queue.publisher(),
            Arc::clone(&self.state.publish_budget),
            settings,
        );
        loop {
            let pushed = match rows.next().await? {
                None => break,
                Some(cells) => encoder.push(cells),
            };
            let full = pushed.map_err(|error| {
                let refusal = Refusal::unprocessable("row_too_large", error.to_string());
                rows.here(refusal.limit(error.limit as u64, error.actual as u64))
            })?;
            rows.row_done();
            live.upload.set_rows(encoder.rows_pushed());
            if let Some(batch) = full {
                if live.upload.has_ended() {
                    return Err(ended_meanwhile());
                }
                window.push(batch).await?;
            }
        }
        let total_rows = encoder.rows_pushed();
        let (last, batches) = encoder.finish();
        if let Some(batch) = last {
            window.push(batch).await?;
        }
        window.finish().await?;
        Ok(Seal {
            rows: total_rows,
            batches,
            bytes: rows.source().bytes_received(),
            sha256: rows.source().sha256(),
        })
    }

    /// Everything is durable in the queue, so a database that is away for a moment is worth waiting for. Returns the upload
    /// as it is now.
    async fn seal(&self, upload: &Upload, seal: &Seal) -> Result<Upload, Refusal> {
        let store = self.state.backends.store.as_ref();
        let deadline = sleep(self.state.settings.publish_deadline);
        let (id, epoch) = (upload.id, upload.epoch);
        if !patiently(deadline, || store.seal(id, epoch, seal)).await? {
            return Err(ended_meanwhile());
        }
        Ok(Upload {
            status: Status::Processing,
            rows_read: seal.rows,
            batches_total: Some(seal.batches),
            bytes_received: seal.bytes,
            sha256: Some(seal.sha256),
            ..upload.clone()
        })
    }

    /// The upload may be complete already, when it is small or its workers are quick. Nothing that goes wrong here may become
    /// a refusal: the file is accepted, and a client that sent it again would have its rows twice.
    async fn finish(&self, sealed: Upload) -> Upload {
        let backends = &self.state.backends;
        let (store, archive) = (backends.store.as_ref(), backends.archive.as_ref());
        if let Err(error) = finish_if_complete(store, archive, sealed.id).await {
            tracing::warn!(
                error = error.chain(),
                "the upload is left to the workers to complete"
            );
        }
        match store.upload(sealed.id).await {
            Ok(Some(upload)) => upload,
            _ => sealed,
        }
    }

    /// Ends the upload as failed and has its rows removed, without making the client wait for that. What the client is told is
    /// what the record says: if somebody else has ended it, or a seal was committed whose answer was lost, that is it.
    async fn fail(
        self,
        upload: Upload,
        live: &LiveGuard,
        refusal: Refusal,
    ) -> Result<Upload, ApiError> {
        let store = Arc::clone(&self.state.backends.store);
        let (id, epoch) = (upload.id, upload.epoch);
        let last = Some(live.upload.beat());
        let recorded = async {
            let failure = &refusal.failure;
            let ours = patiently(sleep(RECORD_DEADLINE), || {
                store.fail(id, epoch, failure, last)
            })
            .await?;
            let found = if ours { None } else { store.upload(id).await? };
            Ok::<_, PortError>(found)
        };
        let refusal = match recorded.await {
            Ok(None) => {
                tracing::info!(
                    code = refusal.failure.code,
                    row = refusal.failure.row,
                    "upload failed"
                );
                self.state.tasks.spawn(async move {
                    if let Err(error) = remove_rows(store.as_ref(), id).await {
                        tracing::warn!(upload.id = %id, error = error.chain(), "rows are left to the sweeper to remove");
                    }
                });
                refusal
            }
            Ok(Some(found)) => match found.failure {
                None => return Ok(found),
                Some(failure) => Refusal { failure, ..refusal },
            },
            // Nothing was sealed, since that needs room as well. The lease runs out, and a sweeper ends the upload when there
            // is room to.
            Err(error) if error.kind() == ErrorKind::Full => {
                tracing::error!(error = error.chain(), "no room to record the failure");
                refusal
            }
            // Its lease runs out, and a sweeper ends it; unless it was sealed.
            Err(error) => {
                tracing::error!(error = error.chain(), "the failure could not be recorded");
                let message = format!(
                    "it is not known yet what became of the upload; ask GET /uploads/{id} before you send the file again"
                );
                Refusal::unavailable("outcome_unknown", message)
            }
        };
        Err(ApiError {
            refusal,
            upload: Some(id),
        })
    }
}

/// Somebody else has ended the upload: a sweeper that saw no sign of life, or a dead batch. Its record says which.
fn ended_meanwhile() -> Refusal {
    Refusal::unprocessable("interrupted", "the upload has ended meanwhile")
}
