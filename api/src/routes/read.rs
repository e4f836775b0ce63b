//! `GET /uploads/{id}` and `GET /uploads`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use carga_common::store::UploadQuery;
use carga_common::upload::{Upload, UploadId};
use carga_intake::refusal::Refusal;
use futures::future::try_join_all;
use jiff::Timestamp;
use serde::Serialize;

use crate::problem::ApiError;
use crate::query::{no_options, upload_id};
use crate::state::ApiState;
use crate::view::UploadView;

/// How many seconds a client should wait between two polls.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;

pub(crate) async fn one(
    State(state): State<ApiState>,
    id: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let id = upload_id(id)?;
    no_options(&query)?;
    let upload = state.upload(id).await?;
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

#[derive(Debug, Serialize)]
pub(crate) struct Page {
    uploads: Vec<UploadView>,
    next_cursor: Option<String>,
}

pub(crate) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Page>, ApiError> {
    let mut query = parse(&query)?;
    // One upload more than requested shows whether there is a next page.
    query.limit += 1;
    let mut listed = state.backends().store.uploads(&query).await?;
    let more = listed.len() == query.limit as usize;
    if more {
        listed.pop();
    }
    let next_cursor = listed.last().filter(|_| more).map(encode_cursor);
    let views = listed
        .into_iter()
        .map(|upload| UploadView::of(upload, state.backends()));
    let uploads = try_join_all(views).await?;
    Ok(Json(Page {
        uploads,
        next_cursor,
    }))
}

fn parse(query: &[(String, String)]) -> Result<UploadQuery, Refusal> {
    let mut parsed = UploadQuery {
        status: None,
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
                parsed.status = Some(
                    value
                        .parse()
                        .map_err(|error| malformed(format!("option `status`: {error}")))?,
                );
            }
            "limit" => {
                parsed.limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                    .ok_or_else(|| {
                        malformed(format!(
                            "option `limit` takes a number from 1 to {MAX_LIMIT}"
                        ))
                    })?;
            }
            "cursor" => {
                let position = decode_cursor(value).ok_or_else(|| {
                    malformed("option `cursor` was not issued by this API; use the `next_cursor` of a page".to_owned())
                })?;
                parsed.before = Some(position);
            }
            _ => {
                return Err(Refusal::unknown_option(
                    name,
                    &["status", "limit", "cursor"],
                ));
            }
        }
    }
    Ok(parsed)
}

/// The end of a page, as a cursor. It is opaque to clients, so that its format may change.
fn encode_cursor(last: &Upload) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{} {}", last.created_at.as_microsecond(), last.id))
}

fn decode_cursor(cursor: &str) -> Option<(Timestamp, UploadId)> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (time, id) = text.split_once(' ')?;
    Some((
        Timestamp::from_microsecond(time.parse().ok()?).ok()?,
        id.parse().ok()?,
    ))
}
