//! The answer to a request whose upload is accepted.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use carga_common::backends::Backends;
use carga_common::upload::Upload;

use crate::view::UploadView;

/// The answer about an upload that is durable: 202, even if the database fails now.
pub(super) async fn accepted(upload: Upload, backends: &Backends) -> Response {
    let view = match UploadView::of(upload.clone(), backends).await {
        Ok(view) => view,
        Err(_) => UploadView::without_counters(upload),
    };
    let location = format!("/uploads/{}", view.id);
    let head = [(header::LOCATION, location)];
    (StatusCode::ACCEPTED, head, Json(view)).into_response()
}
