//! A body becomes batches in the queue.
//!
//! `body` reads the socket, `form` finds the file in it, `source` counts, hashes and limits its bytes, `expand` undoes compression,
//! [`crate::csv`] makes rows of them, `carga_common::batch` makes batches of rows, `publish` sees to it that each becomes durable, and
//! `rejects` that every row that is none is kept. This module puts them in a row and decides how an upload begins and ends.

pub(crate) mod body;
mod expand;
mod file;
pub(crate) mod form;
pub(crate) mod live;
pub(crate) mod options;
mod policy;
pub(crate) mod preview;
mod publish;
mod rejects;
mod source;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use carga_common::batch::BatchEncoder;
use carga_common::error::{ErrorKind, PortError};
use carga_common::lifecycle::{finish_if_complete, remove_rows};
use carga_common::retry::retry_while_unavailable;
use carga_common::store::{NewUpload, Seal, Store};
use carga_common::telemetry::TraceContext;
use carga_common::upload::{Dialect, Status, Upload, UploadId};
use futures::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tracing::Instrument;

use self::expand::Expanded;
pub use self::file::{LocalFile, LocalIntake};
use self::form::{Encoding, Form};
use self::live::LiveGuard;
use self::options::Options;
pub use self::preview::{Preview, preview_file};
use self::publish::PublishWindow;
use self::rejects::Rejects;
use self::source::FileSource;
use crate::csv::{CsvOpening, CsvReader, Next};
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
        let pieces = body::of_request(body, idle, out_of_time);
        let mut intake = Intake {
            state,
            id,
            options,
            headers,
        };
        match encoding {
            // hyper has counted the body against its length: what ends without an error is whole.
            Encoding::Raw(charset) => {
                intake.options.default_encoding(charset);
                intake.load(pieces, content_length, async || Ok(())).await
            }
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
        let settings = Arc::clone(&self.state.settings);
        let source = FileSource::new(pieces, settings.max_upload_bytes);
        let mut file = Expanded::open(source, settings.limits).await?;
        let mut opening = CsvOpening::new(self.options.csv, settings.limits);
        let reader = loop {
            if let Some(reader) = opening.open()? {
                break reader;
            }
            match file.next().await? {
                Some(bytes) => opening.push(&bytes),
                None => opening.end(),
            }
        };
        let dialect = Dialect {
            compression: file.compression().map(str::to_owned),
            ..reader.dialect().clone()
        };
        let upload = self
            .create(reader.columns().to_vec(), dialect, bytes_total)
            .await?;

        let live = self.state.live.enter(upload.key());
        file.source().report_to(Arc::clone(&live.upload));
        let sealed = async {
            let seal = self.publish_rows(reader, file, &upload, &live).await?;
            // The file's part is let go by now, so that the form can go on.
            end().await?;
            self.options.check_sha256(seal.sha256)?;
            let seal = self.compare(&upload, seal).await?;
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

    /// Every row into a batch or among the rejected, every batch confirmed.
    async fn publish_rows<S>(
        &self,
        mut reader: CsvReader,
        mut file: Expanded<S>,
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
        let (key, columns) = (upload.key(), &upload.columns);
        let mut encoder = BatchEncoder::new(key, columns, trace.as_str(), settings.batch);
        let backends = &self.state.backends;
        let budget = Arc::clone(&self.state.publish_budget);
        let mut window = PublishWindow::new(backends.queue.publisher(), budget, settings);
        let mut rejects = Rejects::new(
            backends.store.as_ref(),
            upload,
            Arc::clone(&live.upload),
            self.options.policy,
            settings,
        );
        let read = read_rows(
            &mut reader,
            &mut file,
            &mut encoder,
            &mut window,
            &mut rejects,
        );
        if let Err(refusal) = read.await {
            rejects.flush_last().await;
            return Err(refusal);
        }
        let (last, batches) = encoder.finish();
        if let Some(batch) = last {
            window.push(batch).await?;
        }
        rejects.flush().await?;
        let rejected = rejects.found();
        self.options
            .policy
            .judge_all(rejected, reader.rows_read())?;
        window.finish().await?;
        Ok(Seal {
            rows: reader.rows_read(),
            rejected,
            blank_lines: reader.blank_lines(),
            batches,
            bytes: file.source().bytes_received(),
            sha256: file.source().sha256(),
            duplicate_of: None,
        })
    }

    /// Looks whether the same file was imported before, and what is to be done about it.
    async fn compare(&self, upload: &Upload, seal: Seal) -> Result<Seal, Refusal> {
        let store = self.state.backends.store.as_ref();
        let deadline = sleep(self.state.settings.publish_deadline);
        let same = || store.same_content(seal.sha256, upload.id);
        let duplicate_of = retry_while_unavailable(deadline, same).await?;
        self.options.on_duplicate.judge(duplicate_of)?;
        Ok(Seal {
            duplicate_of,
            ..seal
        })
    }

    /// Everything is durable in the queue, so a database that is away for a moment is worth waiting for. Returns the upload
    /// as it is now.
    async fn seal(&self, upload: &Upload, seal: &Seal) -> Result<Upload, Refusal> {
        let store = self.state.backends.store.as_ref();
        let deadline = sleep(self.state.settings.publish_deadline);
        let key = upload.key();
        if !retry_while_unavailable(deadline, || store.seal(key, seal)).await? {
            return Err(ended_meanwhile());
        }
        Ok(Upload {
            status: Status::Processing,
            rows_read: seal.rows,
            rows_rejected: seal.rejected,
            blank_lines: Some(seal.blank_lines),
            duplicate_of: seal.duplicate_of,
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
        let (id, key) = (upload.id, upload.key());
        let last = Some(live.upload.beat());
        let recorded = async {
            let failure = &refusal.failure;
            let ours =
                retry_while_unavailable(sleep(RECORD_DEADLINE), || store.fail(key, failure, last))
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
                self.state.tasks.spawn(remove_behind(store, id));
                refusal
            }
            Ok(Some(found)) if found.status == Status::Cancelled => Refusal::conflict(
                "cancelled",
                "the upload was cancelled; nothing of it is kept",
            ),
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

/// Reads a file to its end: each row into the batches, each record that is none to the rejected.
async fn read_rows<S>(
    reader: &mut CsvReader,
    file: &mut Expanded<S>,
    encoder: &mut BatchEncoder,
    window: &mut PublishWindow,
    rejects: &mut Rejects<'_>,
) -> Result<(), Refusal>
where
    S: Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
{
    loop {
        let next = reader.next()?;
        rejects.live().set_rows(reader.rows_read());
        match next {
            Next::More => match file.next().await? {
                Some(bytes) => reader.push(&bytes),
                None => reader.end(),
            },
            Next::End => return Ok(()),
            Next::Rejected(row) => rejects.push(*row).await?,
            Next::Row => match encoder.push(reader.rows_read(), reader.cells()) {
                Ok(None) => {}
                Ok(Some(batch)) => {
                    if rejects.live().has_ended() {
                        return Err(ended_meanwhile());
                    }
                    window.push(batch).await?;
                    rejects.flush_if_due().await?;
                }
                Err(error) => {
                    let message = format!("{error} (CARGA_BATCH_BYTES)");
                    let limit = (error.limit as u64, error.actual as u64);
                    let rejection = reader.reject("row_too_large", message, limit);
                    rejects.push(rejection).await?;
                }
            },
        }
    }
}

/// Removes the rows of an upload that has ended without them, while nobody waits for it.
pub(crate) async fn remove_behind(store: Arc<dyn Store>, id: UploadId) {
    if let Err(error) = remove_rows(store.as_ref(), id).await {
        tracing::warn!(upload.id = %id, error = error.chain(), "rows are left to the sweeper to remove");
    }
}

/// Somebody else has ended the upload: a sweeper that saw no sign of life, or a dead batch. Its record says which.
fn ended_meanwhile() -> Refusal {
    Refusal::unprocessable("interrupted", "the upload has ended meanwhile")
}
