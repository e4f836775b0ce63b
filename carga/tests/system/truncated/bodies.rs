//! The bodies that tests cut, as they go over the wire.

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::app::{App, KNOWN_DIALECT};
use crate::files::csv;

pub(super) const FILE_BYTES: usize = 16 << 10;

/// As many rows as fit into the file. Some of their characters have two bytes, and each row has a
/// line break within quotes.
pub(super) const ROWS: usize = 411;

/// The content type of a form with [`HEAD`] and [`TAIL`].
pub(super) const FORM_TYPE: &str = "multipart/form-data; boundary=B";

/// What a form has before its file.
pub(super) const HEAD: &str =
    "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\r\n";

/// What a form has after its file.
pub(super) const TAIL: &str = "\r\n--B--\r\n";

/// The size of a chunk of the chunked transfer coding.
const CHUNK_BYTES: usize = 2000;

/// How many bytes at each end of the file are cut one by one.
const EDGE_BYTES: usize = 64;

/// A byte of a body. A byte of the file has its position in the file.
type Byte = (u8, Option<usize>);

/// A body, with the framing of its form and of its transfer coding.
pub(super) struct FramedBody {
    pub(super) name: &'static str,
    pub(super) is_form: bool,
    /// The fields of the request's head that describe the body.
    fields: String,
    bytes: Vec<Byte>,
}

impl FramedBody {
    /// A form and a raw body with the same file, each with a length and in chunks.
    pub(super) fn all() -> Result<[Self; 4]> {
        let file: Vec<Byte> = file()?.bytes().zip((0..).map(Some)).collect();
        let mut form = framing(HEAD);
        form.extend(&file);
        form.extend(framing(TAIL));
        let in_chunks = "transfer-encoding: chunked".to_owned();
        let length = |bytes: &[Byte]| format!("content-length: {}", bytes.len());
        let chunked_form = chunked(&form);
        let chunked_file = chunked(&file);
        Ok([
            Self::new("form", FORM_TYPE, length(&form), form),
            Self::new("chunked form", FORM_TYPE, in_chunks.clone(), chunked_form),
            Self::new("raw body", "text/csv", length(&file), file),
            Self::new("chunked raw body", "text/csv", in_chunks, chunked_file),
        ])
    }

    fn new(name: &'static str, media_type: &str, framed_by: String, bytes: Vec<Byte>) -> Self {
        Self {
            name,
            is_form: media_type == FORM_TYPE,
            fields: format!("content-type: {media_type}\r\n{framed_by}"),
            bytes,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The numbers of bytes after which the body is cut: before every byte of the framing, before
    /// the bytes near both ends of the file, and before every `step`th byte of the file.
    pub(super) fn cuts(&self, step: usize) -> Vec<usize> {
        let is_edge =
            |position: usize| position < EDGE_BYTES || position + EDGE_BYTES >= FILE_BYTES;
        let is_cut = |position: usize| is_edge(position) || position.is_multiple_of(step);
        let bytes = self.bytes.iter().enumerate();
        let cuts = bytes.filter(|(_, (_, position))| position.is_none_or(is_cut));
        cuts.map(|(cut, _)| cut).collect()
    }

    /// How many bytes of the file are among the first `count` bytes of the body.
    pub(super) fn file_bytes(&self, count: usize) -> usize {
        let last = self.bytes[..count].iter().rev().find_map(|(_, last)| *last);
        last.map_or(0, |last| last + 1)
    }

    /// Sends the head of a request, and the first `count` bytes of its body.
    pub(super) async fn send(&self, app: &App, id: Uuid, count: usize) -> Result<TcpStream> {
        let head = format!(
            "PUT /uploads/{id}?{KNOWN_DIALECT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}\r\n\r\n",
            self.fields
        );
        let mut request = head.into_bytes();
        request.extend(self.bytes[..count].iter().map(|(byte, _)| *byte));
        let mut stream = app.connect().await?;
        stream.write_all(&request).await?;
        Ok(stream)
    }
}

/// A file of exactly [`FILE_BYTES`], whose last cell fills it up.
pub(super) fn file() -> Result<String> {
    let mut file = csv(ROWS);
    let missing = FILE_BYTES.checked_sub(file.len());
    let missing = missing.context("the rows do not fit into the file")?;
    file.insert_str(file.len() - 1, &"x".repeat(missing));
    Ok(file)
}

fn framing(text: &str) -> Vec<Byte> {
    text.bytes().map(|byte| (byte, None)).collect()
}

fn chunked(content: &[Byte]) -> Vec<Byte> {
    let mut coded: Vec<Byte> = Vec::new();
    for chunk in content.chunks(CHUNK_BYTES) {
        coded.extend(framing(&format!("{:x}\r\n", chunk.len())));
        coded.extend(chunk);
        coded.extend(framing("\r\n"));
    }
    coded.extend(framing("0\r\n\r\n"));
    coded
}
