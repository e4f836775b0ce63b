//! `POST /uploads` and `PUT /uploads/{id}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use carga_common::access::Scope;
use carga_common::idempotency::{IdempotencyKey, IdempotentRoute};
use carga_common::telemetry::TraceContext;
use carga_common::upload::{Upload, UploadId};
use carga_intake::options::Options;
use carga_intake::refusal::Refusal;

use super::accepted::accepted;
use super::replay::replay;
use crate::caller::Caller;
use crate::form::BodyFormat;
use crate::idempotency::idempotency_key;
use crate::problem::ApiError;
use crate::query::upload_id;
use crate::receive::{IncomingRequest, check_length, content_length, least_file_bytes, receive};
use crate::state::SharedState;
use crate::view::UploadView;

pub(crate) async fn post(
    State(state): State<SharedState>,
    caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, ApiError> {
    let options = Options::unchecked(&query)?;
    let key = idempotency_key(request.headers(), &caller, IdempotentRoute::PostUploads)?;
    // Before the quota is checked, because a repeated request stores nothing.
    if let Some(key) = &key
        && let Some(first) = state.backends().store.first_upload(key).await?
    {
        return replay(&state, &caller, &query, first, request).await;
    }
    send(state, caller, UploadId::generate(), key, options, request).await
}

pub(crate) async fn put(
    State(state): State<SharedState>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, ApiError> {
    let id = upload_id(id)?;
    let options = Options::unchecked(&query)?;
    let store = &state.backends().store;
    if let Some(upload) = store.upload_of(&caller.tenant, id).await? {
        return answer_repeated(state, &caller, upload, &options).await;
    }
    send(state, caller, id, None, options, request).await
}

/// Answers a repeated id with the upload's record, if the upload ended well and the client has
/// announced the digest of the same file. A client that may not read the upload learns only that
/// the id is used.
async fn answer_repeated(
    state: SharedState,
    caller: &Caller,
    upload: Upload,
    options: &Options,
) -> Result<Response, ApiError> {
    if !caller.has(Scope::Read) && !caller.has_sent(&upload) {
        return Err(Refusal::id_used(upload.public_id, None).into());
    }
    let same_file = options.sha256.is_some() && options.sha256 == upload.sha256;
    if upload.status.keeps_rows() && same_file {
        let view = UploadView::of(upload, state.backends()).await?;
        return Ok(Json(view).into_response());
    }
    Err(Refusal::id_used(upload.public_id, Some(upload.status)).into())
}

/// Checks everything that needs no body, so that a refusal is sent at once. Then receives the
/// upload.
async fn send(
    state: SharedState,
    caller: Caller,
    id: UploadId,
    idempotency_key: Option<IdempotencyKey>,
    mut options: Options,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    // The layer of `request_id` has added it, unless nothing else needed it.
    let trace = parts.extensions.remove::<TraceContext>();
    state.refuse_when_stopping()?;
    let body_format = BodyFormat::of(&parts.headers, &mut options)?;
    let content_length = content_length(&parts.headers);
    let limit = caller.size_limit(state.settings());
    check_length(content_length, body_format, limit)?;
    let file_bytes = least_file_bytes(content_length, body_format);
    state.intake.check_quota(&caller.tenant, file_bytes).await?;
    state.intake.dataset(&caller.tenant, &options).await?;
    let slot = state.upload_slot().await?;
    let incoming = IncomingRequest {
        id,
        caller,
        idempotency_key,
        body_format,
        options,
        trace: trace.unwrap_or_else(TraceContext::generate),
        headers: parts.headers,
        content_length,
        body,
        slot,
    };
    let upload = receive(&state.intake, incoming).await?;
    Ok(accepted(upload, state.backends()).await)
}
