//! The two ways to send a file: a raw body, or a form with options and one part named `file`.

use axum::body::{Body, Bytes};
use axum::extract::FromRequest;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum_extra::extract::Multipart;
use axum_extra::extract::multipart::{Field, MultipartError};
use futures::{Stream, StreamExt, TryStreamExt};

use super::body;
use super::options::Options;
use crate::problem::Refusal;

/// An option is a word or two; this keeps somebody's file in the wrong field from filling the memory.
const OPTION_BYTES: usize = 8 << 10;

/// How the file is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// `multipart/form-data`
    Form,
    /// `text/csv`
    Raw,
}

impl Encoding {
    /// Decides before the body is read.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let value = headers.get(header::CONTENT_TYPE);
        let value = value.and_then(|value| value.to_str().ok()).unwrap_or("");
        let mut parts = value.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        match media_type.as_str() {
            "multipart/form-data" => Ok(Self::Form),
            "text/csv" => {
                let charset = parts.find_map(|part| {
                    let (name, value) = part.split_once('=')?;
                    name.trim()
                        .eq_ignore_ascii_case("charset")
                        .then(|| value.trim().trim_matches('"').to_ascii_lowercase())
                });
                match charset.as_deref() {
                    None | Some("utf-8" | "utf8" | "us-ascii") => Ok(Self::Raw),
                    Some(other) => {
                        let message = format!("charset `{other}` is not read yet; send UTF-8");
                        Err(Refusal::new(
                            StatusCode::UNSUPPORTED_MEDIA_TYPE,
                            "unsupported_charset",
                            message,
                        ))
                    }
                }
            }
            other => {
                let message = format!(
                    "content type `{other}` is not accepted: send multipart/form-data with a part named `file`, or text/csv"
                );
                Err(Refusal::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "unsupported_media_type",
                    message,
                ))
            }
        }
    }
}

/// A form being read.
#[derive(Debug)]
pub(crate) struct Form(Multipart);

impl Form {
    /// Looks at the head of the form only.
    pub(crate) async fn open(
        content_type: Option<&header::HeaderValue>,
        pieces: impl Stream<Item = Result<Bytes, Refusal>> + Send + 'static,
    ) -> Result<Self, Refusal> {
        let mut request = Request::new(Body::from_stream(pieces));
        if let Some(content_type) = content_type {
            request
                .headers_mut()
                .insert(header::CONTENT_TYPE, content_type.clone());
        }
        // The size is counted while the file streams; the default limit of 2 MiB is for handlers that buffer.
        let mut request = request;
        axum::extract::DefaultBodyLimit::disable().apply(&mut request);
        let form = Multipart::from_request(request, &()).await;
        form.map(Self)
            .map_err(|error| Refusal::bad_request("malformed_form", error.to_string()))
    }

    /// Reads the options before the file, then the head of the file's part.
    pub(crate) async fn file(&mut self, options: &mut Options) -> Result<Field, Refusal> {
        loop {
            let Some(mut field) = self.0.next_field().await.map_err(|error| refusal(&error))?
            else {
                let message = "the form has no part named `file`";
                return Err(Refusal::bad_request("missing_file", message));
            };
            let Some(name) = field.name().map(str::to_owned) else {
                return Err(Refusal::bad_request(
                    "unnamed_part",
                    "a part of the form has no name",
                ));
            };
            if name == "file" {
                options.default_filename(field.file_name());
                return Ok(field);
            }
            let mut value = Vec::new();
            while let Some(piece) = field.chunk().await.map_err(|error| refusal(&error))? {
                value.extend_from_slice(&piece);
                if value.len() > OPTION_BYTES {
                    let message = format!(
                        "form field `{name}` is too long for an option; a file goes into a part named `file`"
                    );
                    return Err(Refusal::bad_request("option_too_long", message)
                        .limit(OPTION_BYTES as u64, value.len() as u64));
                }
            }
            let value = String::from_utf8(value).map_err(|_| {
                Refusal::bad_request(
                    "malformed_option",
                    format!("form field `{name}` is not UTF-8"),
                )
            })?;
            options.set(&name, &value)?;
        }
    }

    /// The file's part is over; nothing but the closing boundary may follow.
    pub(crate) async fn end(&mut self) -> Result<(), Refusal> {
        match self.0.next_field().await {
            Ok(None) => Ok(()),
            Ok(Some(field)) => {
                let message = format!(
                    "part `{}` comes after the file; options go before it, and one request carries one file",
                    field.name().unwrap_or_default()
                );
                Err(Refusal::unprocessable("part_after_file", message))
            }
            Err(error) => Err(refusal(&error)),
        }
    }
}

/// The bytes of the file's part.
pub(crate) fn pieces(field: Field) -> impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send {
    field.map_err(|error| refusal(&error)).boxed()
}

/// An error of the form: what the body itself said, or an early end.
fn refusal(error: &MultipartError) -> Refusal {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return refusal.clone();
        }
        cause = error.source();
    }
    body::incomplete(&error.body_text())
}
