//! Passes the body of a request to the intake.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use carga_common::telemetry::TraceContext;
use carga_common::upload::{Upload, UploadId};
use carga_intake::crowding::UploadSlot;
use carga_intake::intake::{Incoming, Intake};
use carga_intake::options::Options;
use carga_intake::pieces::{Pace, incomplete, pieces};
use carga_intake::refusal::Refusal;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};

use crate::form::{BodyFormat, Form};
use crate::state::ApiState;

/// A request whose body has not been read.
#[derive(Debug)]
pub(crate) struct IncomingRequest {
    pub(crate) id: UploadId,
    pub(crate) body_format: BodyFormat,
    pub(crate) options: Options,
    pub(crate) headers: HeaderMap,
    pub(crate) content_length: Option<u64>,
    pub(crate) body: Body,
    /// Held until the upload has ended, even if the client disconnects long before.
    pub(crate) slot: UploadSlot,
}

/// Runs an upload to its end in a separate task, so that a client that disconnects cannot leave it
/// half done. A body that is cut off fails the upload like any other fault.
pub(crate) async fn receive(intake: &Intake, request: IncomingRequest) -> Result<Upload, Refusal> {
    let id = request.id;
    let receiving = receive_body(intake.clone(), request);
    intake.run_to_end(id, receiving).await
}

async fn receive_body(intake: Intake, request: IncomingRequest) -> Result<Upload, Refusal> {
    let IncomingRequest {
        id,
        body_format,
        mut options,
        headers,
        content_length,
        body,
        slot: _slot,
    } = request;
    let traceparent = headers.get("traceparent");
    let traceparent = traceparent.and_then(|value| value.to_str().ok());
    let trace = TraceContext::from_header(traceparent);
    let body = body_pieces(&intake, body);
    let incoming = |options, bytes_total| Incoming {
        id,
        options,
        bytes_total,
        trace,
    };
    match body_format {
        BodyFormat::Raw => {
            let incoming = incoming(options, content_length);
            // hyper compares the body with its declared length, so nothing is left to check at the
            // end.
            let end = async || Ok(());
            intake.receive(incoming, body, end).await
        }
        BodyFormat::Form => {
            let mut form = Form::open(headers.get(header::CONTENT_TYPE), body).await?;
            let file = form.file(&mut options).await?;
            let file = form.pieces(file);
            let incoming = incoming(options, None);
            intake
                .receive(incoming, file, async || form.end().await)
                .await
        }
    }
}

/// The pieces of a request's body.
fn body_pieces(
    intake: &Intake,
    body: Body,
) -> impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send + use<> {
    let body = body.into_data_stream();
    let body = body.map_err(|error| incomplete(&error.to_string()));
    pieces(
        body,
        Pace {
            idle: intake.settings.body_idle,
            min_rate: intake.settings.body_min_rate,
        },
        intake.crowding.clone(),
        intake.abort_uploads.clone(),
    )
}

/// The file of a request that makes no upload.
pub(crate) struct FileBody {
    pub(crate) options: Options,
    pub(crate) pieces: BoxStream<'static, Result<Bytes, Refusal>>,
    /// The form that has the file; `None` if the file is the whole body.
    form: Option<Form>,
    /// Held while the file is read.
    _slot: UploadSlot,
}

impl FileBody {
    /// Takes a slot, and reads the options up to the file.
    pub(crate) async fn open(
        state: &ApiState,
        query: &[(String, String)],
        request: Request,
    ) -> Result<Self, Refusal> {
        let mut options = Options::unchecked(query)?;
        state.refuse_when_stopping()?;
        let slot = state.upload_slot().await?;
        let (parts, body) = request.into_parts();
        let body_format = BodyFormat::of(&parts.headers, &mut options)?;
        let body = body_pieces(&state.intake, body);
        let (pieces, form) = match body_format {
            BodyFormat::Raw => (body.boxed(), None),
            BodyFormat::Form => {
                let mut form = Form::open(parts.headers.get(header::CONTENT_TYPE), body).await?;
                let file = form.file(&mut options).await?;
                (form.pieces(file).boxed(), Some(form))
            }
        };
        Ok(Self {
            options,
            pieces,
            form,
            _slot: slot,
        })
    }

    /// Checks that the request ends with the file.
    pub(crate) async fn end(self) -> Result<(), Refusal> {
        // The rest of a form can be read once the part of the file is dropped.
        drop(self.pieces);
        match self.form {
            Some(mut form) => form.end().await,
            None => Ok(()),
        }
    }
}
