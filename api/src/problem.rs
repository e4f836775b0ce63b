//! Turns refusals into answers. Only this module builds problem documents (RFC 9457), and only
//! this module maps a kind of refusal to an HTTP status.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use carga_common::upload::{Status, UploadId};
use carga_intake::refusal::{Refusal, RefusalKind};
use serde::Serialize;

/// The codings that a client may use after a 415 (RFC 9110, 12.5.3).
const ACCEPTED_CODINGS: HeaderValue = HeaderValue::from_static("gzip, zstd");

/// The error of every handler.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    refusal: Refusal,
}

impl ApiError {
    /// A refusal whose status does not follow from its kind.
    pub(crate) fn new(status: StatusCode, refusal: Refusal) -> Self {
        Self { status, refusal }
    }
}

impl<E: Into<Refusal>> From<E> for ApiError {
    fn from(refusal: E) -> Self {
        let refusal = refusal.into();
        Self::new(status(refusal.kind), refusal)
    }
}

fn status(kind: RefusalKind) -> StatusCode {
    match kind {
        RefusalKind::Malformed => StatusCode::BAD_REQUEST,
        RefusalKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        RefusalKind::Forbidden => StatusCode::FORBIDDEN,
        RefusalKind::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
        RefusalKind::Unsupported | RefusalKind::UnsupportedCoding => {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        }
        RefusalKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::NotFound => StatusCode::NOT_FOUND,
        RefusalKind::TooMany => StatusCode::TOO_MANY_REQUESTS,
        RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        RefusalKind::Full => StatusCode::INSUFFICIENT_STORAGE,
        RefusalKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The value of `WWW-Authenticate` (RFC 6750, 3). Every answer with 401 has it.
fn challenge(refusal: &Refusal) -> Option<HeaderValue> {
    Some(HeaderValue::from_static(
        match (refusal.kind, refusal.failure.code.as_str()) {
            (RefusalKind::Unauthenticated, "missing_key") => r#"Bearer realm="carga""#,
            (RefusalKind::Unauthenticated, _) => r#"Bearer realm="carga", error="invalid_token""#,
            (RefusalKind::Forbidden, "missing_scope") => {
                r#"Bearer realm="carga", error="insufficient_scope""#
            }
            _ => return None,
        },
    ))
}

/// The body of an `application/problem+json` answer.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct Problem {
    /// `urn:carga:problem:` and the code.
    r#type: String,
    /// The name of the HTTP status.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// The explanation for people. Its wording may change.
    detail: String,
    /// The stable code for programs.
    code: String,
    /// The id of the request, as in the header `x-request-id` and in the log.
    pub(crate) request_id: String,
    /// The upload that the error is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(nullable = false))]
    upload: Option<UploadId>,
    /// The status of this upload, if the status is the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(nullable = false))]
    upload_status: Option<Status>,
    /// The number of the record in the file, from 1 without the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(nullable = false))]
    row: Option<u64>,
    /// The physical line on which the record begins, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(nullable = false))]
    line: Option<u64>,
    /// The name of the faulty column.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(nullable = false))]
    column: Option<String>,
    /// The limit that was exceeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(nullable = false))]
    limit: Option<u64>,
    /// The value that exceeded the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(nullable = false))]
    actual: Option<u64>,
}

impl IntoResponse for ApiError {
    /// Attaches the problem to the response. The outermost layer knows the request's id and
    /// writes the body; see `request_id`.
    fn into_response(self) -> Response {
        let Self { status, refusal } = self;
        let challenge = challenge(&refusal);
        let failure = refusal.failure;
        let problem = Problem {
            r#type: format!("urn:carga:problem:{}", failure.code),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: failure.message,
            code: failure.code,
            request_id: String::new(),
            upload: refusal.upload,
            upload_status: refusal.upload_status,
            row: failure.row,
            line: failure.line,
            column: failure.column,
            limit: refusal.exceeded.map(|exceeded| exceeded.limit),
            actual: refusal.exceeded.map(|exceeded| exceeded.actual),
        };
        let mut response = status.into_response();
        if let Some(seconds) = refusal.retry_after_secs {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = challenge {
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if refusal.kind == RefusalKind::UnsupportedCoding {
            let headers = response.headers_mut();
            headers.insert(header::ACCEPT_ENCODING, ACCEPTED_CODINGS);
        }
        response.extensions_mut().insert(problem);
        response
    }
}

impl Problem {
    /// Writes the problem as the body of its response.
    pub(crate) fn write_into(self, response: &mut Response) {
        const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");
        let mut body = Vec::with_capacity(512);
        // Serializing text and numbers into memory does not fail.
        if let Err(error) = serde_json::to_writer(&mut body, &self) {
            tracing::error!(%error, "could not write a problem document");
        }
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, MEDIA_TYPE);
        *response.body_mut() = Body::from(body);
    }
}
