//! Passes the body of a request to the intake.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use carga_common::access::Scope;
use carga_common::idempotency::IdempotencyKey;
use carga_common::telemetry::TraceContext;
use carga_common::upload::{Upload, UploadId};
use carga_intake::crowding::UploadSlot;
use carga_intake::incoming::Incoming;
use carga_intake::intake::Intake;
use carga_intake::options::Options;
use carga_intake::pieces::{Pace, incomplete, pieces};
use carga_intake::refusal::Refusal;
use carga_intake::size_limit::SizeLimit;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use crate::caller::Caller;
use crate::form::{BodyFormat, Form};
use crate::state::ApiState;

/// How much larger than its file a form may be. Boundaries and part headers need far less.
const FORM_OVERHEAD_BYTES: u64 = 64 << 10;

/// A request whose body has not been read.
#[derive(Debug)]
pub(crate) struct IncomingRequest {
    /// The public id.
    pub(crate) id: UploadId,
    pub(crate) caller: Caller,
    pub(crate) idempotency_key: Option<IdempotencyKey>,
    pub(crate) body_format: BodyFormat,
    pub(crate) options: Options,
    pub(crate) headers: HeaderMap,
    /// The trace of the request.
    pub(crate) trace: TraceContext,
    pub(crate) content_length: Option<u64>,
    pub(crate) body: Body,
    /// Held until the upload has ended, even if the client disconnects long before.
    pub(crate) slot: UploadSlot,
}

/// Runs an upload to its end in a separate task, so that a client that disconnects cannot leave it
/// half done. A body that is cut off fails the upload like any other fault.
pub(crate) async fn receive(intake: &Intake, request: IncomingRequest) -> Result<Upload, Refusal> {
    let (id, tenant) = (request.id, request.caller.tenant.clone());
    let receiving = receive_body(intake.clone(), request);
    intake.run_to_end(id, &tenant, receiving).await
}

async fn receive_body(intake: Intake, request: IncomingRequest) -> Result<Upload, Refusal> {
    let IncomingRequest {
        id,
        caller,
        idempotency_key,
        body_format,
        mut options,
        headers,
        trace,
        content_length,
        body,
        slot: _slot,
    } = request;
    let body = body_pieces(&intake, body);
    // Called when all options are known and no row has been read.
    let incoming = |options: Options, bytes_total| {
        caller.may_send_to(options.dataset.as_ref())?;
        Ok::<_, Refusal>(Incoming {
            id,
            created_by: caller.key_id().map(str::to_owned),
            token: caller.token().cloned(),
            sees_all: caller.has(Scope::Read),
            idempotency_key,
            tenant: caller.tenant,
            options,
            bytes_total,
            trace,
        })
    };
    match body_format {
        BodyFormat::Raw => {
            let incoming = incoming(options, content_length)?;
            // hyper compares the body with its declared length, so nothing is left to check at the
            // end.
            let end = async || Ok(());
            intake.receive(incoming, body, end).await
        }
        BodyFormat::Form => {
            let mut form = Form::open(headers.get(header::CONTENT_TYPE), body).await?;
            let file = form.file(&mut options).await?;
            let file = form.pieces(file);
            let incoming = incoming(options, None)?;
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
    /// Held until the request is answered.
    _slot: UploadSlot,
}

impl FileBody {
    /// Opens a file that will be read to its end. A request is refused at once if it declares a
    /// body that is too large.
    pub(crate) async fn open(
        state: &ApiState,
        caller: &Caller,
        query: &[(String, String)],
        request: Request,
    ) -> Result<Self, Refusal> {
        let limit = Some(caller.size_limit(state.settings()));
        Self::open_within(limit, state, caller, query, request).await
    }

    /// Opens a file of which only the beginning will be read, so its size does not matter.
    pub(crate) async fn open_beginning(
        state: &ApiState,
        caller: &Caller,
        query: &[(String, String)],
        request: Request,
    ) -> Result<Self, Refusal> {
        Self::open_within(None, state, caller, query, request).await
    }

    /// Takes a slot, and reads the options up to the file. A file for a dataset to which the caller
    /// may not send is refused.
    async fn open_within(
        limit: Option<SizeLimit>,
        state: &ApiState,
        caller: &Caller,
        query: &[(String, String)],
        request: Request,
    ) -> Result<Self, Refusal> {
        let mut options = Options::unchecked(query)?;
        state.refuse_when_stopping()?;
        let (parts, body) = request.into_parts();
        let body_format = BodyFormat::of(&parts.headers, &mut options)?;
        if let Some(limit) = limit {
            check_length(content_length(&parts.headers), body_format, limit)?;
        }
        let slot = state.upload_slot().await?;
        let body = body_pieces(&state.intake, body);
        let (pieces, form) = match body_format {
            BodyFormat::Raw => (body.boxed(), None),
            BodyFormat::Form => {
                let mut form = Form::open(parts.headers.get(header::CONTENT_TYPE), body).await?;
                let file = form.file(&mut options).await?;
                (form.pieces(file).boxed(), Some(form))
            }
        };
        caller.may_send_to(options.dataset.as_ref())?;
        Ok(Self {
            options,
            pieces,
            form,
            _slot: slot,
        })
    }

    /// Checks that the request ends with the file.
    pub(crate) async fn end(&mut self) -> Result<(), Refusal> {
        // The rest of a form can be read once the part of the file is dropped.
        self.pieces = stream::empty().boxed();
        match &mut self.form {
            Some(form) => form.end().await,
            None => Ok(()),
        }
    }
}

/// The length of the body, if the request declares it.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// The least number of bytes that the file in a body of this length has, if it is known.
pub(crate) fn least_file_bytes(length: Option<u64>, body_format: BodyFormat) -> Option<u64> {
    let overhead = match body_format {
        BodyFormat::Form => FORM_OVERHEAD_BYTES,
        BodyFormat::Raw => 0,
    };
    Some(length?.saturating_sub(overhead))
}

/// Refuses a body whose file must be larger than the limit.
pub(crate) fn check_length(
    length: Option<u64>,
    body_format: BodyFormat,
    limit: SizeLimit,
) -> Result<(), Refusal> {
    match least_file_bytes(length, body_format) {
        Some(bytes) => limit.check_sent(bytes),
        None => Ok(()),
    }
}
