//! The two ways to send a file: a raw body, or a form with options and one part named `file`.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest};
use axum::http::{HeaderMap, HeaderValue, Request, header};
use axum_extra::extract::Multipart;
use axum_extra::extract::multipart::{Field, MultipartError};
use carga_common::sync::lock;

use carga_intake::options::Options;
use carga_intake::pieces::incomplete;
use carga_intake::refusal::Refusal;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use crate::coding::{check_content_encoding, check_transfer_encoding};
use crate::content_type::{content_type, set_defaults, set_part_defaults, unsupported_media_type};
use crate::disposition::Disposition;

/// The longest value of an option. A file in the wrong field must not fill the memory.
const OPTION_BYTES: usize = 8 << 10;

/// How the file is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFormat {
    /// `multipart/form-data`
    Form,
    /// `text/csv`
    Raw,
}

impl BodyFormat {
    /// Decides by the headers, before the body is read. They complete the options of a raw body; a
    /// form has more.
    pub(crate) fn of(headers: &HeaderMap, options: &mut Options) -> Result<Self, Refusal> {
        check_content_encoding(headers)?;
        let (media_type, parameters) = content_type(headers);
        match media_type.as_str() {
            "multipart/form-data" => Ok(Self::Form),
            "text/csv" => {
                set_defaults(options, &parameters)?;
                options.check()?;
                Ok(Self::Raw)
            }
            other => Err(unsupported_media_type(other)),
        }
    }
}

/// A form being read.
#[derive(Debug)]
pub(crate) struct Form {
    parts: Multipart,
    body: Arc<Mutex<FormBody>>,
}

impl Form {
    /// Takes the boundary from the content type. No part is read yet.
    pub(crate) async fn open(
        content_type: Option<&HeaderValue>,
        pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send + 'static,
    ) -> Result<Self, Refusal> {
        let body = Arc::new(Mutex::new(FormBody {
            pieces: Box::new(pieces),
            outside_bytes: Some(0),
            has_ended: false,
            pause: false,
        }));
        let shared = Arc::clone(&body);
        let stream = stream::poll_fn(move |cx| lock(&shared).poll_piece(cx));
        let mut request = Request::new(Body::from_stream(stream));
        if let Some(content_type) = content_type {
            let headers = request.headers_mut();
            headers.insert(header::CONTENT_TYPE, content_type.clone());
        }
        // The default limit of 2 MiB is for handlers that buffer. Here the file is streamed,
        // and its size is limited on the way.
        DefaultBodyLimit::disable().apply(&mut request);
        let parts = Multipart::from_request(request, &()).await;
        let parts =
            parts.map_err(|error| Refusal::malformed("malformed_form", error.to_string()))?;
        Ok(Self { parts, body })
    }

    /// Reads the options before the file, then the head of the file's part.
    pub(crate) async fn file(&mut self, options: &mut Options) -> Result<Field, Refusal> {
        loop {
            let Some(field) = self.next_part().await? else {
                let message =
                    "the form has no part named `file`; send the file in a part with that name";
                return Err(Refusal::malformed("missing_file", message));
            };
            let Disposition { name, filename } = Disposition::of(field.headers());
            let Some(name) = name else {
                return Err(Refusal::malformed(
                    "unnamed_part",
                    "a part of the form has no name; every part needs one",
                ));
            };
            check_transfer_encoding(field.headers())?;
            if name == "file" {
                options.default_filename(filename.as_deref());
                set_part_defaults(options, field.headers())?;
                options.check()?;
                lock(&self.body).outside_bytes = None;
                return Ok(field);
            }
            check_option_part(&name, filename.as_deref(), options)?;
            let value = option_value(&name, field, &self.body).await?;
            options.set(&name, &value)?;
        }
    }

    /// Checks what follows the file's part: only the closing boundary may, and the body must be
    /// complete.
    pub(crate) async fn end(&mut self) -> Result<(), Refusal> {
        lock(&self.body).outside_bytes = Some(0);
        if let Some(field) = self.next_part().await? {
            let name = Disposition::of(field.headers()).name;
            let message = format!(
                "part `{}` follows the file; send options before the file, and one file per request",
                name.unwrap_or_default()
            );
            return Err(Refusal::unprocessable("part_after_file", message));
        }
        // The parser stops at the closing boundary. Only the end of the body shows that it is
        // complete.
        while let Some(piece) = poll_fn(|cx| lock(&self.body).poll_piece(cx)).await {
            piece?;
        }
        Ok(())
    }

    /// The bytes of the file's part.
    pub(crate) fn pieces(
        &self,
        field: Field,
    ) -> impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send + use<> {
        let body = Arc::clone(&self.body);
        field.map_err(move |error| refusal(&body, &error)).boxed()
    }

    async fn next_part(&mut self) -> Result<Option<Field>, Refusal> {
        let part = self.parts.next_field().await;
        part.map_err(|error| self.refusal(&error))
    }

    fn refusal(&self, error: &MultipartError) -> Refusal {
        refusal(&self.body, error)
    }
}

/// Checks a part that is not named `file`, before its value is read.
fn check_option_part(name: &str, filename: Option<&str>, options: &Options) -> Result<(), Refusal> {
    let checked = options.check_name(name);
    // A browser sends an empty file name if no file was chosen.
    if filename.unwrap_or_default().is_empty() {
        return checked;
    }
    let code = match checked {
        Ok(()) => "malformed_option".to_owned(),
        Err(refusal) => refusal.failure.code,
    };
    let message = format!("part `{name}` contains a file; a file goes into a part named `file`");
    Err(Refusal::malformed(&code, message))
}

async fn option_value(
    name: &str,
    mut part: Field,
    body: &Mutex<FormBody>,
) -> Result<String, Refusal> {
    let mut value = Vec::new();
    while let Some(piece) = part.chunk().await.map_err(|error| refusal(body, &error))? {
        value.extend_from_slice(&piece);
        if value.len() > OPTION_BYTES {
            let message = format!(
                "form field `{name}` is longer than {OPTION_BYTES} bytes; send a file in a part named `file`"
            );
            return Err(Refusal::malformed("option_too_long", message)
                .exceeding(OPTION_BYTES as u64, value.len() as u64));
        }
    }
    String::from_utf8(value).map_err(|_| {
        let message = format!("form field `{name}` is not UTF-8");
        Refusal::malformed("malformed_option", message)
    })
}

/// The most bytes of a form outside the file's part. Options need far less, and without a limit
/// the parser would buffer the whole body in search of a boundary.
const OUTSIDE_BYTES: usize = 256 << 10;

/// The body as the form's parser reads it.
struct FormBody {
    pieces: Box<dyn Stream<Item = Result<Bytes, Refusal>> + Unpin + Send>,
    /// The bytes given to the parser outside the file's part; `None` inside it.
    outside_bytes: Option<usize>,
    has_ended: bool,
    /// The parser takes all pieces that are ready before it parses any. Returning `Pending`
    /// once after each piece makes it parse them one by one.
    pause: bool,
}

impl std::fmt::Debug for FormBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FormBody")
            .field("outside_bytes", &self.outside_bytes)
            .field("has_ended", &self.has_ended)
            .finish_non_exhaustive()
    }
}

impl FormBody {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Refusal>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut self.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(actual) = self
            .outside_bytes
            .filter(|outside_bytes| *outside_bytes > OUTSIDE_BYTES)
        {
            let message = format!(
                "expected a part boundary within {OUTSIDE_BYTES} bytes; check the boundary in the content type"
            );
            let refusal = Refusal::malformed("malformed_form", message);
            return Poll::Ready(Some(Err(
                refusal.exceeding(OUTSIDE_BYTES as u64, actual as u64)
            )));
        }
        let piece = ready!(self.pieces.poll_next_unpin(cx));
        match &piece {
            Some(Ok(bytes)) => {
                self.pause = true;
                self.outside_bytes = self
                    .outside_bytes
                    .map(|outside_bytes| outside_bytes + bytes.len());
            }
            Some(Err(_)) => {}
            None => self.has_ended = true,
        }
        Poll::Ready(piece)
    }
}

/// The refusal for a parser's error: the body's own refusal, an early end, or a malformed form.
fn refusal(body: &Mutex<FormBody>, error: &MultipartError) -> Refusal {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return refusal.clone();
        }
        cause = error.source();
    }
    if lock(body).has_ended {
        return incomplete(&error.body_text());
    }
    Refusal::malformed("malformed_form", error.body_text())
}
