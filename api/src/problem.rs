//! How a refusal becomes an answer: one place that builds problem documents (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use carga_common::error::{ErrorKind, PortError};
use carga_common::upload::{Failure, Status, UploadId};
use serde::Serialize;

/// Why a request is refused: what the client is told, and nothing else.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// Code, message and place; also what the upload's record says when there is an upload.
    pub failure: Failure,
    /// The limit that was met, and what met it.
    pub limit: Option<(u64, u64)>,
    /// When to try again.
    pub retry_after_secs: Option<u32>,
    /// The upload's status, where that is the reason.
    pub upload_status: Option<Status>,
}

impl Refusal {
    /// A refusal with a status, a code for programs and a message for people.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            failure: Failure::new(code, message),
            limit: None,
            retry_after_secs: None,
            upload_status: None,
        }
    }

    /// The request is not what the contract says.
    pub fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The file is not what it should be.
    pub fn unprocessable(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// The state of things forbids it.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// Something may be sent again later.
    pub fn unavailable(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(5)
    }

    /// There is no room for it.
    pub fn storage_full() -> Self {
        let message = "there is no room left to store the file; nothing of it is kept, make room and send it again";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full", message)
    }

    /// No upload has this id.
    pub fn no_such_upload(id: UploadId) -> Self {
        let message = format!("there is no upload {id}");
        Self::new(StatusCode::NOT_FOUND, "upload_not_found", message)
    }

    /// The id is taken; by an upload with this status, if that is known.
    pub fn id_used(id: UploadId, status: Option<Status>) -> Self {
        let message = match status {
            Some(status) => format!("upload {id} exists already and is {status}"),
            None => format!("upload {id} exists already"),
        };
        let mut refusal = Self::new(StatusCode::CONFLICT, "id_used", message);
        refusal.upload_status = status;
        refusal
    }

    /// The file is larger than it may be.
    pub fn upload_too_large(limit: u64, actual: u64) -> Self {
        let message = format!(
            "the file has at least {actual} bytes, the limit is {limit} (CARGA_MAX_UPLOAD_BYTES)"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "upload_too_large", message).limit(limit, actual)
    }

    /// Names the limit and what met it.
    pub fn limit(mut self, limit: u64, actual: u64) -> Self {
        self.limit = Some((limit, actual));
        self
    }

    /// Says when to try again.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_secs = Some(seconds);
        self
    }

    /// Names the physical line.
    pub fn on_line(mut self, line: u64) -> Self {
        self.failure.line = Some(line);
        self
    }

    /// Names the column.
    pub fn in_column(mut self, column: &str) -> Self {
        self.failure = self.failure.in_column(column);
        self
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.failure.code, self.failure.message)
    }
}

impl std::error::Error for Refusal {}

/// A port's error as an answer. The cause is logged here, once; the client gets no more than the kind.
impl From<PortError> for Refusal {
    fn from(error: PortError) -> Self {
        match error.kind() {
            ErrorKind::Unavailable => {
                tracing::warn!(error = error.chain(), "a dependency is away");
                Self::unavailable(
                    "dependency_unavailable",
                    "a server that Carga needs does not answer; send the file again later",
                )
            }
            ErrorKind::Full => {
                tracing::error!(error = error.chain(), "there is no room left");
                Self::storage_full()
            }
            _ => {
                tracing::error!(error = error.chain(), "a request failed");
                Self::internal()
            }
        }
    }
}

impl Refusal {
    /// A fault of ours; the log has the cause.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong here; the log has the cause under this request id",
        )
    }
}

/// A refusal, with the upload that it concerns.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// Why.
    pub refusal: Refusal,
    /// Which upload, when there is one.
    pub upload: Option<UploadId>,
}

impl<E: Into<Refusal>> From<E> for ApiError {
    fn from(refusal: E) -> Self {
        Self {
            refusal: refusal.into(),
            upload: None,
        }
    }
}

/// What an `application/problem+json` body says.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Problem {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    code: String,
    pub(crate) request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload: Option<UploadId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<u64>,
}

impl IntoResponse for ApiError {
    /// The body is written by the outermost layer, which knows the request's id; see `request_id`.
    fn into_response(self) -> Response {
        let Refusal {
            status,
            failure,
            limit,
            retry_after_secs,
            upload_status,
        } = self.refusal;
        let problem = Problem {
            r#type: format!("urn:carga:problem:{}", failure.code),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: failure.message,
            code: failure.code,
            request_id: String::new(),
            upload: self.upload,
            upload_status,
            row: failure.row,
            line: failure.line,
            column: failure.column,
            limit: limit.map(|(limit, _)| limit),
            actual: limit.map(|(_, actual)| actual),
        };
        let mut response = status.into_response();
        if let Some(seconds) = retry_after_secs {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(problem);
        response
    }
}

impl Problem {
    /// Fills in the response that this problem was attached to.
    pub(crate) fn write_into(self, response: &mut Response) {
        const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");
        let (mut parts, body) = Json(self).into_response().into_parts();
        parts.headers.insert(header::CONTENT_TYPE, MEDIA_TYPE);
        response.headers_mut().extend(parts.headers);
        *response.body_mut() = body;
    }
}
