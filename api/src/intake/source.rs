//! The file's bytes on their way to the CSV parser: counted, hashed, limited, and watched for where records begin.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use futures::Stream;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, ReadBuf};

use super::live::LiveUpload;
use super::rows::RecordLimit;
use crate::problem::Refusal;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Handed out after the file's last byte. csv-async does not say whether the end of the file came inside a quoted field, so
/// it is given one more record: if that one arrives by itself, every quote was closed; if it is part of a field, one was
/// not.
const SENTINEL: &[u8] = b"\n\0\n";

/// An [`AsyncRead`] over a stream of pieces.
pub(crate) struct FileSource<S> {
    pieces: S,
    /// What is left of the piece at hand.
    piece: Bytes,
    state: State,
    hash: Sha256,
    max_bytes: u64,
    bytes_received: u64,
    bom: bool,
    live: Option<Arc<LiveUpload>>,
    /// What the record at hand may be: a header, or a row.
    record_limit: RecordLimit,
    /// Bytes handed to the parser so far.
    handed: u64,
    /// The last of them, to look at what follows a record.
    last: Bytes,
    start: RecordStart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Too few bytes yet to know whether they are a byte order mark.
    Beginning,
    Middle,
    /// The file is over; so many bytes of the sentinel are handed out.
    End(usize),
}

/// Where the record begins that the parser is about to read or is reading: behind any blank lines.
#[derive(Debug, Clone, Copy)]
struct RecordStart {
    offset: u64,
    line: u64,
    /// Only line breaks have been seen since the last record.
    open: bool,
}

impl RecordStart {
    fn skip(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.line += 1,
                b'\r' => {}
                _ => {
                    self.open = false;
                    return;
                }
            }
            self.offset += 1;
        }
    }
}

impl<S> std::fmt::Debug for FileSource<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSource")
            .field("state", &self.state)
            .field("bytes_received", &self.bytes_received)
            .finish_non_exhaustive()
    }
}

impl<S> FileSource<S> {
    pub(crate) fn new(pieces: S, max_bytes: u64, header: RecordLimit) -> Self {
        Self {
            pieces,
            piece: Bytes::new(),
            state: State::Beginning,
            hash: Sha256::new(),
            max_bytes,
            bytes_received: 0,
            bom: false,
            live: None,
            record_limit: header,
            handed: 0,
            last: Bytes::new(),
            start: RecordStart {
                offset: 0,
                line: 1,
                open: true,
            },
        }
    }

    /// From now on these figures are raised with every piece.
    pub(crate) fn report_to(&mut self, live: Arc<LiveUpload>) {
        live.set_bytes(self.bytes_received);
        self.live = Some(live);
    }

    /// From the next record on.
    pub(crate) fn limit_records(&mut self, limit: RecordLimit) {
        self.record_limit = limit;
    }

    /// The parser has taken a record that ends before `offset`, on `line`.
    pub(crate) fn record_ended(&mut self, offset: u64, line: u64) {
        self.start = RecordStart {
            offset,
            line,
            open: true,
        };
        let unread = usize::try_from(self.handed - offset).unwrap_or(0);
        let rest = self.last.len().saturating_sub(unread);
        self.start.skip(&self.last[rest..]);
    }

    /// The physical line on which the record at hand begins.
    pub(crate) fn record_line(&self) -> u64 {
        self.start.line
    }

    /// The offset at which it begins, counted behind a byte order mark.
    pub(crate) fn record_offset(&self) -> u64 {
        self.start.offset
    }

    /// Where the file proper ends in the bytes handed out, once it is over.
    pub(crate) fn end(&self) -> Option<u64> {
        match self.state {
            State::End(sentinel) => Some(self.handed - sentinel as u64),
            _ => None,
        }
    }

    pub(crate) fn has_byte_order_mark(&self) -> bool {
        self.bom
    }

    pub(crate) fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    /// The digest of everything received.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    fn take_in(&mut self, piece: Bytes) -> Result<(), Refusal> {
        self.bytes_received += piece.len() as u64;
        if self.bytes_received > self.max_bytes {
            return Err(Refusal::upload_too_large(
                self.max_bytes,
                self.bytes_received,
            ));
        }
        self.hash.update(&piece);
        if let Some(live) = &self.live {
            live.set_bytes(self.bytes_received);
        }
        self.piece = if self.piece.is_empty() {
            piece
        } else {
            // Only at the very beginning, where a piece may be shorter than a byte order mark.
            [&self.piece[..], &piece].concat().into()
        };
        Ok(())
    }

    /// Whether the parser may have what is there.
    fn begin(&mut self, over: bool) -> bool {
        if self.piece.starts_with(BYTE_ORDER_MARK) {
            self.bom = true;
            self.piece = self.piece.slice(BYTE_ORDER_MARK.len()..);
        } else if !over && BYTE_ORDER_MARK.starts_with(&self.piece) {
            return false;
        }
        self.state = State::Middle;
        true
    }

    fn hand_out(&mut self, bytes: Bytes, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        // Everything handed out before is parsed, or the parser would not ask; so all since `start` is one record.
        let so_far = self.handed - self.start.offset;
        if !self.start.open {
            self.record_limit.check(so_far).map_err(io::Error::other)?;
        }
        buffer.put_slice(&bytes);
        self.handed += bytes.len() as u64;
        if self.start.open {
            self.start.skip(&bytes);
        }
        self.last = bytes;
        Ok(())
    }
}

impl<S: Stream<Item = Result<Bytes, Refusal>> + Unpin> AsyncRead for FileSource<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let State::End(sent) = this.state {
                let count = buffer.remaining().min(SENTINEL.len() - sent);
                this.state = State::End(sent + count);
                if count == 0 {
                    return Poll::Ready(Ok(()));
                }
                let bytes = Bytes::from_static(&SENTINEL[sent..sent + count]);
                return Poll::Ready(this.hand_out(bytes, buffer));
            }
            let ready = this.state == State::Middle || this.begin(false);
            if ready && !this.piece.is_empty() {
                let count = this.piece.len().min(buffer.remaining());
                let bytes = this.piece.split_to(count);
                return Poll::Ready(this.hand_out(bytes, buffer));
            }
            match ready!(Pin::new(&mut this.pieces).poll_next(cx)) {
                Some(piece) => {
                    let taken = piece.and_then(|piece| this.take_in(piece));
                    if let Err(refusal) = taken {
                        return Poll::Ready(Err(io::Error::other(refusal)));
                    }
                }
                None if this.piece.is_empty() => this.state = State::End(0),
                // A whole file of one or two bytes that might have become a byte order mark.
                None => {
                    this.begin(true);
                }
            }
        }
    }
}
