//! Counts, hashes and limits the bytes of a file as they were sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::stream::Fuse;
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};

use crate::heartbeat::UploadFigures;
use crate::quota::Allowance;
use crate::refusal::Refusal;
use crate::size_limit::SizeLimit;

/// The pieces of a file, as a stream. Its errors contain refusals.
pub(crate) struct FileSource<S> {
    /// Fused, because it may be polled after its end.
    pieces: Fuse<S>,
    /// Bytes that were peeked at and have not been yielded.
    peeked: Option<Bytes>,
    hash: Sha256,
    limit: SizeLimit,
    /// In a box, because most uploads have no limit.
    allowance: Box<Allowance>,
    bytes_received: u64,
    figures: Option<Arc<UploadFigures>>,
}

impl<S> std::fmt::Debug for FileSource<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSource")
            .field("bytes_received", &self.bytes_received)
            .finish_non_exhaustive()
    }
}

impl<S: Stream> FileSource<S> {
    pub(crate) fn new(pieces: S, limit: SizeLimit) -> Self {
        Self {
            pieces: pieces.fuse(),
            peeked: None,
            hash: Sha256::new(),
            limit,
            allowance: Box::default(),
            bytes_received: 0,
            figures: None,
        }
    }

    /// Limits the file to what its tenant may still send.
    pub(crate) fn within(self, allowance: Allowance) -> Self {
        Self {
            allowance: Box::new(allowance),
            ..self
        }
    }

    pub(crate) fn allowance(&self) -> Allowance {
        *self.allowance
    }

    /// Updates these figures with every piece from now on.
    pub(crate) fn report_to(&mut self, figures: Arc<UploadFigures>) {
        figures.set_bytes(self.bytes_received);
        self.figures = Some(figures);
    }

    /// The stream that the pieces come from.
    pub(crate) fn pieces(&self) -> &S {
        self.pieces.get_ref()
    }

    /// The limit of the size.
    pub(crate) fn limit(&self) -> SizeLimit {
        self.limit
    }

    pub(crate) fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    /// The digest of everything received.
    pub(crate) fn sha256(&self) -> carga_common::sha256::Sha256 {
        let digest: [u8; 32] = self.hash.clone().finalize().into();
        digest.into()
    }

    fn count_piece(&mut self, piece: &Bytes) -> Result<(), Refusal> {
        self.bytes_received += piece.len() as u64;
        // Before the checks: a piece that exceeds a limit counts for the quota, too.
        if let Some(figures) = &self.figures {
            figures.set_bytes(self.bytes_received);
        }
        self.limit.check_sent(self.bytes_received)?;
        self.allowance.check_bytes(self.bytes_received)?;
        self.hash.update(piece);
        Ok(())
    }
}

impl<S: Stream<Item = Result<Bytes, Refusal>> + Unpin> FileSource<S> {
    /// Reads the beginning of the file, without consuming it: at least `bytes` bytes, unless
    /// the file is shorter.
    pub(crate) async fn peek(&mut self, bytes: usize) -> Result<Bytes, Refusal> {
        let mut beginning = Bytes::new();
        while beginning.len() < bytes
            && let Some(piece) = self.pieces.next().await.transpose()?
        {
            self.count_piece(&piece)?;
            beginning = match beginning.is_empty() {
                true => piece,
                false => [&beginning[..], &piece].concat().into(),
            };
        }
        self.peeked = Some(beginning.clone());
        Ok(beginning)
    }
}

impl<S: Stream<Item = Result<Bytes, Refusal>> + Unpin> Stream for FileSource<S> {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(peeked) = this.peeked.take().filter(|peeked| !peeked.is_empty()) {
            return Poll::Ready(Some(Ok(peeked)));
        }
        let piece = ready!(this.pieces.poll_next_unpin(cx));
        Poll::Ready(piece.map(|piece| {
            let piece = piece.map_err(io::Error::other)?;
            this.count_piece(&piece).map_err(io::Error::other)?;
            Ok(piece)
        }))
    }
}

#[cfg(test)]
mod tests {
    use carga_common::settings::{Mode, Settings, TenantQuota};
    use carga_common::store::Usage;
    use carga_common::tenant::Tenant;
    use carga_common::upload::{UploadId, UploadKey};
    use futures::stream;

    use super::*;
    use crate::heartbeat::ActiveUploads;
    use crate::metrics::IntakeMetrics;

    #[tokio::test]
    async fn the_piece_that_exceeds_a_quota_is_recorded() {
        let quota = TenantQuota {
            bytes_per_day: Some(10),
            ..TenantQuota::default()
        };
        let allowance = Allowance::of(&quota, &Tenant::default(), Usage::default(), None);
        let pieces = [6, 7].map(|length| Ok(Bytes::from(vec![b'a'; length])));
        let settings = Settings::read(Mode::Embedded, &|_| None).unwrap();
        let limit = SizeLimit::of(&settings.intake);
        let source = FileSource::new(stream::iter(pieces), limit);
        let mut source = source.within(allowance.unwrap());
        let active = Arc::new(ActiveUploads::new(Arc::new(IntakeMetrics::new())));
        let upload = active.register(UploadKey::first(UploadId::generate()));
        source.report_to(Arc::clone(&upload.figures));
        assert!(source.next().await.unwrap().is_ok());
        assert!(source.next().await.unwrap().is_err());
        assert_eq!(upload.figures.heartbeat().bytes_received, 13);
    }
}
