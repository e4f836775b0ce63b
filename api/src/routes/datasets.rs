//! `GET /datasets`, and `PUT`, `GET` and `DELETE /datasets/{name}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use carga_common::dataset::{Dataset, DatasetKey, DatasetName, Definition, MAX_DEFINITION_BYTES};
use carga_common::error::PortResult;
use carga_common::store::{DeleteOutcome, PutOutcome, Store};
use carga_intake::refusal::Refusal;
use serde::Serialize;

use crate::caller::Caller;
use crate::json_body::JsonBody;
use crate::problem::ApiError;
use crate::query::{DEFAULT_LIMIT, dataset_name, limit, no_options, unknown_cursor};
use crate::state::SharedState;
use crate::view::DatasetView;

const DEFINITION: JsonBody = JsonBody {
    content: "definition",
    max_bytes: MAX_DEFINITION_BYTES as u64,
    too_large: "definition_too_large",
};

/// Declares a dataset, or changes its definition.
pub(crate) async fn put(
    State(state): State<SharedState>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, ApiError> {
    let name = dataset_name(name)?;
    no_options(&query)?;
    let (parts, body) = request.into_parts();
    DEFINITION.check_headers(&parts.headers)?;
    let body = DEFINITION.read(body, state.settings().body_idle).await?;
    let definition = parse(&body)?;
    if let Some(table) = &definition.table {
        caller.may_declare_table(table)?;
    }
    let key = DatasetKey::new(caller.tenant.clone(), name.clone());
    let outcome = state.backends().store.put_dataset(&key, &definition);
    let status = match outcome.await? {
        PutOutcome::Created => StatusCode::CREATED,
        PutOutcome::Unchanged | PutOutcome::Changed => StatusCode::OK,
        PutOutcome::Refused(reason) => {
            return Err(Refusal::dataset_conflict(&name, &reason).into());
        }
        PutOutcome::Unfit(fault) => return Err(Refusal::unfit_table(&name, &fault).into()),
    };
    let dataset = state.dataset(&caller, &name).await?;
    Ok((status, Json(DatasetView::from(dataset))).into_response())
}

pub(crate) async fn one(
    State(state): State<SharedState>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<DatasetView>, ApiError> {
    let name = dataset_name(name)?;
    no_options(&query)?;
    let dataset = state.dataset(&caller, &name).await?;
    Ok(Json(dataset.into()))
}

pub(crate) async fn delete(
    State(state): State<SharedState>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<StatusCode, ApiError> {
    let name = dataset_name(name)?;
    no_options(&query)?;
    let key = DatasetKey::new(caller.tenant, name.clone());
    match state.backends().store.delete_dataset(&key).await? {
        DeleteOutcome::Deleted => Ok(StatusCode::NO_CONTENT),
        DeleteOutcome::Missing => Err(Refusal::no_dataset_to_delete(&name).into()),
        DeleteOutcome::InUse { uploads } => Err(Refusal::dataset_in_use(&name, uploads).into()),
    }
}

/// A page of datasets.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = DatasetPage))]
pub(crate) struct Page {
    /// The datasets, by name.
    datasets: Vec<DatasetView>,
    /// The option `cursor` of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

pub(crate) async fn list(
    State(state): State<SharedState>,
    caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Page>, ApiError> {
    let (after, limit) = page_of(&query)?;
    let store = state.backends().store.as_ref();
    // One dataset more than requested shows whether there is a next page.
    let tenant = &caller.tenant;
    let mut listed = store.datasets(tenant, after.as_ref(), limit + 1).await?;
    let more = match listed.len() > limit as usize {
        true => listed.pop().is_some(),
        // The store ends a page of large definitions early.
        false => has_next(store, &listed).await?,
    };
    let last = listed.last().filter(|_| more);
    let next_cursor = last.map(|last| encode_cursor(&last.name));
    let datasets = listed.into_iter().map(DatasetView::from).collect();
    Ok(Json(Page {
        datasets,
        next_cursor,
    }))
}

/// Whether a dataset follows the last one of a page.
async fn has_next(store: &dyn Store, page: &[Dataset]) -> PortResult<bool> {
    match page.last() {
        Some(last) => {
            let next = store.datasets(&last.tenant, Some(&last.name), 1).await?;
            Ok(!next.is_empty())
        }
        None => Ok(false),
    }
}

/// The options of the list.
pub(crate) const LIST_OPTIONS: [&str; 2] = ["limit", "cursor"];

/// Where the requested page begins, and how many datasets it has at most.
fn page_of(query: &[(String, String)]) -> Result<(Option<DatasetName>, u32), Refusal> {
    let (mut after, mut most) = (None, None);
    for (name, value) in query {
        let repeated = match name.as_str() {
            "limit" => most.replace(limit(value)?).is_some(),
            "cursor" => {
                let last = decode_cursor(value).ok_or_else(unknown_cursor)?;
                after.replace(last).is_some()
            }
            _ => return Err(Refusal::unknown_option(name, &LIST_OPTIONS)),
        };
        if repeated {
            return Err(Refusal::repeated_option(name));
        }
    }
    Ok((after, most.unwrap_or(DEFAULT_LIMIT)))
}

/// The end of a page, as a cursor. It is opaque to clients, so that its format may change.
fn encode_cursor(last: &DatasetName) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(last.as_str())
}

fn decode_cursor(cursor: &str) -> Option<DatasetName> {
    let name = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?);
    name.ok()?.parse().ok()
}

fn parse(body: &[u8]) -> Result<Definition, Refusal> {
    Definition::from_json(body)
        .map_err(|fault| Refusal::unprocessable("malformed_definition", fault.to_string()))
}
