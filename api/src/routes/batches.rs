//! The batches of an upload: `GET /uploads/{id}/batches`, `POST /uploads/{id}/batches/{seq}/retry`
//! and `POST /uploads/{id}/retry`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use carga_common::store::{BatchQuery, BatchRecord, Retried, RetryScope};
use carga_common::upload::{Upload, UploadId};
use carga_intake::refusal::{Refusal, RefusalKind};
use serde::Serialize;

use crate::caller::Caller;
use crate::problem::ApiError;
use crate::query::{DEFAULT_LIMIT, cut_to_page, limit, no_options, unknown_cursor, upload_id};
use crate::state::SharedState;
use crate::view::UploadView;

/// A page of batches.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = BatchPage))]
pub(crate) struct Page {
    /// The batches, in the order of the file.
    batches: Vec<BatchRecord>,
    /// The option `cursor` of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

pub(crate) async fn list(
    State(state): State<SharedState>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Page>, ApiError> {
    let id = upload_id(id)?;
    let query = parse(&query)?;
    let upload = state.upload(&caller, id).await?;
    // One batch more than requested shows whether there is a next page.
    let longer = BatchQuery {
        limit: query.limit + 1,
        ..query
    };
    let store = state.backends().store.as_ref();
    let mut batches = store.batches(upload.key(), longer).await?;
    let has_next = cut_to_page(&mut batches, query.limit);
    let last = batches.last().filter(|_| has_next);
    let next_cursor = last.map(|last| last.seq.to_string());
    Ok(Json(Page {
        batches,
        next_cursor,
    }))
}

/// The options of the list.
pub(crate) const LIST_OPTIONS: [&str; 3] = ["status", "limit", "cursor"];

fn parse(query: &[(String, String)]) -> Result<BatchQuery, Refusal> {
    let (mut status, mut most, mut after) = (None, None, None);
    for (name, value) in query {
        let is_repeated = match name.as_str() {
            "status" => {
                let found = value.parse().map_err(|error| {
                    Refusal::malformed("malformed_option", format!("option `status`: {error}"))
                })?;
                status.replace(found).is_some()
            }
            "limit" => most.replace(limit(value)?).is_some(),
            "cursor" => {
                let seq: u32 = value.parse().map_err(|_| unknown_cursor())?;
                after.replace(seq).is_some()
            }
            _ => return Err(Refusal::unknown_option(name, &LIST_OPTIONS)),
        };
        if is_repeated {
            return Err(Refusal::repeated_option(name));
        }
    }
    Ok(BatchQuery {
        status,
        after: after.unwrap_or(0),
        limit: most.unwrap_or(DEFAULT_LIMIT),
    })
}

/// The options of a retry of the dead letters of an upload.
pub(crate) const RETRY_OPTIONS: [&str; 1] = ["row"];

pub(crate) async fn retry_all(
    state: State<SharedState>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let id = upload_id(id)?;
    let scope = scope(&query)?;
    retry(state, caller, id, scope).await
}

/// The dead letters that the options of a retry name.
fn scope(query: &[(String, String)]) -> Result<RetryScope, Refusal> {
    let mut row = None;
    for (name, value) in query {
        if name != RETRY_OPTIONS[0] {
            return Err(Refusal::unknown_option(name, &RETRY_OPTIONS));
        }
        let number: Option<u64> = value.parse().ok().filter(|number| *number > 0);
        let number = number
            .ok_or_else(|| Refusal::malformed_option("row", "the number of a row, from 1"))?;
        if row.replace(number).is_some() {
            return Err(Refusal::repeated_option(name));
        }
    }
    Ok(row.map_or(RetryScope::Upload, RetryScope::Row))
}

pub(crate) async fn retry_one(
    state: State<SharedState>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let (id, seq) = match path {
        Ok(Path((id, seq))) => (Ok(Path(id)), seq),
        Err(rejection) => (Err(rejection), String::new()),
    };
    let id = upload_id(id)?;
    let seq: u32 = seq.parse().map_err(|_| {
        let message = format!("`{seq}` is not the number of a batch");
        Refusal::malformed("malformed_id", message)
    })?;
    no_options(&query)?;
    retry(state, caller, id, RetryScope::Batch(seq)).await
}

async fn retry(
    State(state): State<SharedState>,
    caller: Caller,
    id: UploadId,
    scope: RetryScope,
) -> Result<Response, ApiError> {
    let found = state.upload(&caller, id).await?;
    if !is_of_upload(scope, &found) {
        return Err(outside(&found, scope).into());
    }
    let store = state.backends().store.as_ref();
    let retried = store.retry(found.key(), scope).await?;
    let upload = state.upload(&caller, id).await?;
    match retried {
        Retried::Batches(0) => {}
        Retried::Batches(_) => state.intake.replay_later(),
        Retried::Ended => return Err(Refusal::not_retryable(&upload).into()),
    }
    let view = UploadView::of(upload, state.backends()).await?;
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}

/// Whether the upload may have this batch or row. Until it is sealed, it has as many as follow.
fn is_of_upload(scope: RetryScope, upload: &Upload) -> bool {
    match scope {
        RetryScope::Upload => true,
        RetryScope::Batch(seq) => seq > 0 && upload.batches_total.is_none_or(|total| seq <= total),
        RetryScope::Row(row) => upload.batches_total.is_none() || row <= upload.rows_read,
    }
}

fn outside(upload: &Upload, scope: RetryScope) -> Refusal {
    let id = upload.public_id;
    let message = match scope {
        RetryScope::Batch(seq) => format!("upload {id} has no batch {seq}"),
        RetryScope::Row(row) => format!("upload {id} has no row {row}"),
        RetryScope::Upload => format!("upload {id} has no batches"),
    };
    Refusal::new(RefusalKind::NotFound, "batch_not_found", message).about(id)
}

#[cfg(test)]
mod tests {
    use carga_common::store::BatchStatus;

    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<BatchQuery, Refusal> {
        let owned = query
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        parse(&owned.collect::<Vec<_>>())
    }

    #[test]
    fn a_list_begins_with_the_first_batch_of_every_status_unless_options_say_otherwise() {
        let all = read(&[]).unwrap();
        assert!(all.status.is_none() && all.after == 0 && all.limit == DEFAULT_LIMIT);
        let some = read(&[("status", "dead"), ("cursor", "7"), ("limit", "5")]).unwrap();
        assert_eq!(some.status, Some(BatchStatus::Dead));
        assert_eq!((some.after, some.limit), (7, 5));
    }

    #[test]
    fn a_faulty_option_of_the_list_is_refused() {
        for query in [
            [("status", "lost")].as_slice(),
            &[("cursor", "x")],
            &[("limit", "0")],
            &[("seq", "1")],
            &[("limit", "1"), ("limit", "1")],
        ] {
            assert!(read(query).is_err(), "{query:?}");
        }
    }
}
