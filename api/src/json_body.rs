//! Reads a JSON document from the body of a request.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use carga_intake::refusal::{Refusal, RefusalKind};
use futures::StreamExt;
use tokio::time::timeout;

use crate::coding::check_not_encoded;
use crate::content_type::content_type;
use crate::receive::content_length;

/// The largest document with the fields of a key, a token or a log filter. They need far less: a
/// filter has at most 4 KiB.
pub(crate) const MAX_FIELDS_BYTES: u64 = 16 << 10;

/// A document that a route takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsonBody {
    /// A noun for the document, for messages.
    pub(crate) content: &'static str,
    pub(crate) max_bytes: u64,
    /// The code of the refusal of a larger document.
    pub(crate) too_large: &'static str,
}

impl JsonBody {
    /// Checks everything that needs no body, so that a refusal is sent at once.
    pub(crate) fn check_headers(self, headers: &HeaderMap) -> Result<(), Refusal> {
        check_not_encoded(headers)?;
        let (media_type, _) = content_type(headers);
        if media_type != "application/json" {
            let message = format!(
                "content type `{media_type}` is not supported; send the {} as application/json",
                self.content
            );
            let kind = RefusalKind::Unsupported;
            return Err(Refusal::new(kind, "unsupported_media_type", message));
        }
        match content_length(headers) {
            Some(length) if length > self.max_bytes => Err(self.refuse(length)),
            _ => Ok(()),
        }
    }

    /// Reads the whole body. `longest` is `CARGA_BODY_IDLE_SECS`.
    pub(crate) async fn read(self, body: Body, longest: Duration) -> Result<Vec<u8>, Refusal> {
        let reading = timeout(longest, self.read_bounded(body)).await;
        reading.unwrap_or_else(|_| {
            let message = format!(
                "the {} did not arrive within {} s (CARGA_BODY_IDLE_SECS)",
                self.content,
                longest.as_secs()
            );
            Err(Refusal::unprocessable("body_timeout", message))
        })
    }

    async fn read_bounded(self, body: Body) -> Result<Vec<u8>, Refusal> {
        let mut pieces = body.into_data_stream();
        let mut document = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| {
                let content = self.content;
                let message = format!("the body ended before the end of the {content} ({error})");
                Refusal::unprocessable("incomplete_body", message)
            })?;
            document.extend_from_slice(&piece);
            let read = document.len() as u64;
            if read > self.max_bytes {
                return Err(self.refuse(read));
            }
        }
        Ok(document)
    }

    fn refuse(self, actual: u64) -> Refusal {
        let limit = self.max_bytes;
        let message = format!("the body has at least {actual} bytes; the limit is {limit}");
        Refusal::new(RefusalKind::TooLarge, self.too_large, message).exceeding(limit, actual)
    }
}
