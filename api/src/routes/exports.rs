//! `GET /uploads/{id}/rows` and `GET /uploads/{id}/rejected`: what was stored, and what was not.

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use carga_common::store::{rejected_rows, stored_rows};
use carga_common::upload::Upload;
use carga_intake::csv::export::{ExportError, Format, RowForm, export};
use carga_intake::csv::rejected_rows::{Formulas, RejectForm};
use carga_intake::refusal::Refusal;
use futures::{Stream, StreamExt};

use crate::caller::Caller;
use crate::problem::ApiError;
use crate::query::upload_id;
use crate::state::SharedState;

/// The rows of an upload that has ended well.
pub(crate) async fn rows(
    State(state): State<SharedState>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = upload_id(id)?;
    let format = row_format(&query, &headers)?;
    let upload = state.upload(&caller, id).await?;
    if !upload.status.keeps_rows() {
        let message = format!(
            "upload {id} is {}; only uploads that are completed or partial have rows",
            upload.status
        );
        return Err(Refusal::wrong_state(&upload, message).into());
    }
    if let Some(table) = upload.user_table() {
        return Err(Refusal::rows_in_user_table(&upload, table).into());
    }
    if let Some(expired_at) = upload.expired_at {
        let message = format!(
            "the rows of upload {id} expired at {expired_at} (CARGA_RETENTION_DAYS); send the file again"
        );
        return Err(Refusal::wrong_state(&upload, message).into());
    }
    let rows = stored_rows(state.backends().store.clone(), upload.id);
    let form = RowForm::new(upload.stored_columns());
    let pages = export(rows, form, format);
    Ok(download(&upload, "rows", format, pages))
}

/// The rejected rows of an upload. Until the upload has ended, these are the rows that were
/// rejected so far.
pub(crate) async fn rejected(
    State(state): State<SharedState>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = upload_id(id)?;
    let (format, formulas) = reject_format(&query, &headers)?;
    let upload = state.upload(&caller, id).await?;
    let rows = rejected_rows(state.backends().store.clone(), upload.id);
    let columns = upload.columns.clone();
    let form = RejectForm::new(columns, upload.dataset.is_some(), formulas);
    let pages = export(rows, form, format);
    Ok(download(&upload, "rejected", format, pages))
}

/// The options of the stored rows.
pub(crate) const ROWS_OPTIONS: [&str; 1] = ["format"];

/// The options of the rejected rows.
pub(crate) const REJECTED_OPTIONS: [&str; 1] = ["safe"];

/// The format that the option `format` names; without it, the format that the request accepts.
fn row_format(query: &[(String, String)], headers: &HeaderMap) -> Result<Format, Refusal> {
    let mut format = None;
    for (name, value) in query {
        let given = match (name.as_str(), value.as_str()) {
            ("format", "csv") => Format::Csv,
            ("format", "ndjson") => Format::Ndjson,
            ("format", _) => return Err(Refusal::malformed_option("format", "`csv` or `ndjson`")),
            _ => return Err(Refusal::unknown_option(name, &ROWS_OPTIONS)),
        };
        if format.replace(given).is_some() {
            return Err(Refusal::repeated_option("format"));
        }
    }
    Ok(format.unwrap_or_else(|| accepted_format(headers)))
}

fn reject_format(
    query: &[(String, String)],
    headers: &HeaderMap,
) -> Result<(Format, Formulas), Refusal> {
    let mut formulas = Formulas::Keep;
    for (name, value) in query {
        match (name.as_str(), value.as_str()) {
            ("safe", "spreadsheet") => formulas = Formulas::Escape,
            ("safe", _) => return Err(Refusal::malformed_option("safe", "`spreadsheet`")),
            _ => return Err(Refusal::unknown_option(name, &REJECTED_OPTIONS)),
        }
    }
    if query.len() > 1 {
        return Err(Refusal::repeated_option("safe"));
    }
    match (accepted_format(headers), formulas) {
        (Format::Ndjson, Formulas::Escape) => {
            // Completes the message "option `safe` takes …".
            let takes = "effect in CSV only, and NDJSON was asked for";
            Err(Refusal::malformed_option("safe", takes))
        }
        accepted => Ok(accepted),
    }
}

fn accepted_format(headers: &HeaderMap) -> Format {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or("");
    match accept.contains("ndjson") || accept.contains("jsonl") {
        true => Format::Ndjson,
        false => Format::Csv,
    }
}

/// The status of the upload. While it is `receiving`, more rows may be rejected. With a dataset,
/// more rows may also be rejected while it is `processing`.
const STATUS_HEADER: HeaderName = HeaderName::from_static("carga-upload-status");

/// A file to download. An error in the middle cuts the connection, because half an export must not
/// look like a whole one.
fn download(
    upload: &Upload,
    what: &'static str,
    format: Format,
    pages: impl Stream<Item = Result<Bytes, ExportError>> + Send + 'static,
) -> Response {
    let (media_type, ending) = match format {
        Format::Ndjson => ("application/x-ndjson", "ndjson"),
        Format::Csv => ("text/csv; charset=utf-8", "csv"),
    };
    let (id, public_id) = (upload.id, upload.public_id);
    let pages = pages.inspect(move |page| {
        if let Err(error) = page {
            let cause = match error {
                ExportError::Store(error) => error.chain(),
                ExportError::Write(error) => error.to_string(),
            };
            tracing::warn!(
                upload.public_id = %public_id,
                upload.id = %id,
                cause,
                "the download of {what} rows ended early"
            );
        }
    });
    let name = format!("attachment; filename=\"{public_id}-{what}.{ending}\"");
    let head = [
        (header::CONTENT_TYPE, media_type.to_owned()),
        (header::CONTENT_DISPOSITION, name),
        (STATUS_HEADER, upload.status.to_string()),
    ];
    (head, Body::from_stream(pages)).into_response()
}
