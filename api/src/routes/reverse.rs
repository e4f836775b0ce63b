//! `POST /uploads/{id}/cancel` and `POST /uploads/{id}/undo`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use carga_common::lifecycle::{Reversal, reverse};
use carga_intake::refusal::Refusal;

use crate::caller::Caller;
use crate::problem::ApiError;
use crate::query::{no_options, upload_id};
use crate::state::SharedState;
use crate::view::UploadView;

pub(crate) async fn cancel(
    state: State<SharedState>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    query: Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    answer(state, caller, id, query, Reversal::Cancel).await
}

pub(crate) async fn undo(
    state: State<SharedState>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    query: Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    answer(state, caller, id, query, Reversal::Undo).await
}

async fn answer(
    State(state): State<SharedState>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
    reversal: Reversal,
) -> Result<Response, ApiError> {
    let id = upload_id(id)?;
    no_options(&query)?;
    let found = state.upload(&caller, id).await?;
    let upload = reverse(state.backends().store.as_ref(), found.id, reversal).await?;
    let upload = upload.ok_or_else(|| Refusal::no_such_upload(id))?;
    if reversal == Reversal::Undo && upload.status.keeps_rows() {
        return Err(Refusal::not_reversible(&upload).into());
    }
    if upload.status != reversal.outcome() {
        let message = format!(
            "upload {id} is {}; only uploads that are {} can be {}",
            upload.status,
            reversal.applies_to(),
            reversal.outcome()
        );
        return Err(Refusal::wrong_state(&upload, message).into());
    }
    state.intake.remove_rows_later(upload.id);
    let view = UploadView::of(upload, state.backends()).await?;
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}
