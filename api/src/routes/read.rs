//! `GET /uploads/{id}` and `GET /uploads`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use carga_common::dataset::NameFault;
use carga_common::store::UploadQuery;
use carga_common::upload::{Upload, UploadId};
use carga_intake::refusal::Refusal;
use futures::future::try_join_all;
use jiff::Timestamp;
use serde::Serialize;

use crate::caller::Caller;
use crate::problem::ApiError;
use crate::query::{DEFAULT_LIMIT, cut_to_page, limit, no_options, unknown_cursor, upload_id};
use crate::state::SharedState;
use crate::view::UploadView;

/// How many seconds a client should wait between two polls.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

pub(crate) async fn one(
    State(state): State<SharedState>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let id = upload_id(id)?;
    no_options(&query)?;
    let upload = state.upload(&caller, id).await?;
    let view = UploadView::of(upload, state.backends()).await?;
    let ended = view.status.is_terminal();
    let mut response = Json(view).into_response();
    if !ended {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    Ok(response)
}

/// A page of uploads.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = UploadPage))]
pub(crate) struct Page {
    /// The uploads, the newest first.
    uploads: Vec<UploadView>,
    /// The option `cursor` of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

pub(crate) async fn list(
    State(state): State<SharedState>,
    caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Page>, ApiError> {
    let mut query = UploadQuery {
        created_by: caller.only_sender(),
        tenant: Some(caller.tenant),
        ..parse(&query)?
    };
    // One upload more than requested shows whether there is a next page.
    let limit = query.limit;
    query.limit += 1;
    let mut listed = state.backends().store.uploads(&query).await?;
    let has_next = cut_to_page(&mut listed, limit);
    let next_cursor = listed.last().filter(|_| has_next).map(encode_cursor);
    let views = listed
        .into_iter()
        .map(|upload| UploadView::of(upload, state.backends()));
    let uploads = try_join_all(views).await?;
    Ok(Json(Page {
        uploads,
        next_cursor,
    }))
}

/// The options of the list.
pub(crate) const LIST_OPTIONS: [&str; 4] = ["status", "dataset", "limit", "cursor"];

/// Parses the options, which name neither the tenant nor the sender.
fn parse(query: &[(String, String)]) -> Result<UploadQuery, Refusal> {
    let mut parsed = UploadQuery {
        tenant: None,
        created_by: None,
        status: None,
        dataset: None,
        limit: DEFAULT_LIMIT,
        before: None,
    };
    let malformed = |message: String| Refusal::malformed("malformed_option", message);
    let mut given = Vec::new();
    for (name, value) in query {
        if given.contains(&name) {
            return Err(Refusal::repeated_option(name));
        }
        given.push(name);
        match name.as_str() {
            "status" => {
                let status = value.parse();
                let status =
                    status.map_err(|error| malformed(format!("option `status`: {error}")))?;
                parsed.status = Some(status);
            }
            "dataset" => {
                let dataset = value
                    .parse()
                    .map_err(|fault: NameFault| malformed(format!("option `dataset`: {fault}")))?;
                parsed.dataset = Some(dataset);
            }
            "limit" => parsed.limit = limit(value)?,
            "cursor" => {
                let position = decode_cursor(value).ok_or_else(unknown_cursor)?;
                parsed.before = Some(position);
            }
            _ => return Err(Refusal::unknown_option(name, &LIST_OPTIONS)),
        }
    }
    Ok(parsed)
}

/// The end of a page, as a cursor with the public id of the last upload. It is opaque to clients,
/// so that its format may change.
fn encode_cursor(last: &Upload) -> String {
    let (time, id) = (last.created_at.as_microsecond(), last.public_id);
    BASE64_URL_SAFE_NO_PAD.encode(format!("{time} {id}"))
}

fn decode_cursor(cursor: &str) -> Option<(Timestamp, UploadId)> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (time, id) = text.split_once(' ')?;
    Some((
        Timestamp::from_microsecond(time.parse().ok()?).ok()?,
        id.parse().ok()?,
    ))
}
