//! `GET /uploads/{id}/rejected`.

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use carga_common::upload::{Status, UploadId};
use carga_intake::csv::report::{PAGE_ROWS, RejectReport, ReportForm};
use carga_intake::refusal::Refusal;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use crate::problem::ApiError;
use crate::query::upload_id;
use crate::state::ApiState;

/// Pages that are ready before the client takes them.
const AHEAD: usize = 4;

type Page = Result<Bytes, anyhow::Error>;

pub(crate) async fn get(
    State(state): State<ApiState>,
    id: Result<Path<String>, PathRejection>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = upload_id(id)?;
    let form = form(&query, &headers)?;
    let upload = state.backends().store.upload(id).await?;
    let upload = upload.ok_or_else(|| Refusal::no_such_upload(id))?;
    if upload.status == Status::Receiving {
        let message =
            format!("upload {id} is still being received, and more of its rows may be rejected");
        let mut refusal = Refusal::conflict("wrong_state", message).retry_after(1);
        refusal.upload_status = Some(upload.status);
        return Err(refusal.about(id).into());
    }
    let (pages, mut received) = mpsc::channel(AHEAD);
    let report = RejectReport::new(form, upload.columns);
    tokio::spawn(write(state, id, report, pages));
    // An error in the middle cuts the connection: half a report must not look like a whole one.
    let body = stream::poll_fn(move |cx| received.poll_recv(cx));
    let (media_type, ending) = match form {
        ReportForm::Ndjson => ("application/x-ndjson", "ndjson"),
        ReportForm::Csv | ReportForm::SpreadsheetCsv => ("text/csv; charset=utf-8", "csv"),
    };
    let name = format!("attachment; filename=\"{id}-rejected.{ending}\"");
    let head = [
        (header::CONTENT_TYPE, media_type.to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((head, Body::from_stream(body)).into_response())
}

fn form(query: &[(String, String)], headers: &HeaderMap) -> Result<ReportForm, Refusal> {
    let mut form = ReportForm::Csv;
    for (name, value) in query {
        match (name.as_str(), value.as_str()) {
            ("safe", "spreadsheet") => form = ReportForm::SpreadsheetCsv,
            ("safe", _) => return Err(Refusal::malformed_option("safe", "`spreadsheet`")),
            _ => return Err(Refusal::unknown_option(name, &["safe"])),
        }
    }
    if query.len() > 1 {
        return Err(Refusal::repeated_option("safe"));
    }
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or("");
    let is_ndjson = accept.contains("ndjson") || accept.contains("jsonl");
    match (is_ndjson, form) {
        (true, ReportForm::SpreadsheetCsv) => Err(Refusal::malformed_option(
            "safe",
            "effect in CSV only, and NDJSON was asked for",
        )),
        (true, _) => Ok(ReportForm::Ndjson),
        (false, form) => Ok(form),
    }
}

async fn write(state: ApiState, id: UploadId, report: RejectReport, pages: mpsc::Sender<Page>) {
    let written = async {
        // Whoever does not listen any more needs nothing.
        let _ = pages.send(Ok(report.head()?.into())).await;
        let store = state.backends().store.as_ref();
        let mut rows = store.rejected(id).try_chunks(PAGE_ROWS).boxed();
        while let Some(chunk) = rows.try_next().await? {
            if pages.send(Ok(report.page(&chunk)?.into())).await.is_err() {
                break;
            }
        }
        anyhow::Ok(())
    };
    if let Err(error) = written.await {
        tracing::warn!(upload.id = %id, error = format!("{error:#}"), "a report of rejected rows broke off");
        let _ = pages.send(Err(error)).await;
    }
}
