//! The size of the largest file that a sender may send.

use carga_common::settings::IntakeSettings;

use crate::refusal::{Refusal, RefusalKind};

/// The size of the largest file, by the settings and by the token of the sender.
#[derive(Debug, Clone, Copy)]
pub struct SizeLimit {
    /// `CARGA_MAX_UPLOAD_BYTES`, which counts the bytes as they are sent.
    settings: u64,
    /// `max_bytes` of the token. It counts the bytes as they are sent, and again after
    /// decompression: a small compressed file may become a large one.
    token: Option<u64>,
}

impl SizeLimit {
    /// The limit for a sender without a token.
    pub fn of(settings: &IntakeSettings) -> Self {
        Self {
            settings: settings.max_upload_bytes,
            token: None,
        }
    }

    /// The limit for the holder of a token that allows files of at most this many bytes.
    #[must_use]
    pub fn with_token(self, max_bytes: Option<u64>) -> Self {
        Self {
            token: max_bytes,
            ..self
        }
    }

    /// Refuses a file of which this many bytes have been sent, or will be sent.
    pub fn check_sent(self, bytes: u64) -> Result<(), Refusal> {
        if let Some(most) = self.token.filter(|most| bytes > *most) {
            return Err(too_large_for_token(most, bytes, ""));
        }
        match bytes > self.settings {
            true => Err(Refusal::upload_too_large(self.settings, bytes)),
            false => Ok(()),
        }
    }

    /// Refuses a compressed file that has at least this many bytes after decompression.
    pub(crate) fn check_decompressed(self, bytes: u64) -> Result<(), Refusal> {
        match self.token.filter(|most| bytes > *most) {
            Some(most) => Err(too_large_for_token(most, bytes, " after decompression")),
            None => Ok(()),
        }
    }
}

fn too_large_for_token(limit: u64, actual: u64, when: &str) -> Refusal {
    let message = format!(
        "the file has at least {actual} bytes{when}; the token allows at most {limit} (its `max_bytes`)"
    );
    let refusal = Refusal::new(RefusalKind::TooLarge, "upload_too_large", message);
    refusal.exceeding(limit, actual)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use bytes::Bytes;
    use carga_common::settings::{Mode, Settings};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures::stream;

    use super::*;
    use crate::decompress::Decompressor;
    use crate::open::FileBytes;
    use crate::source::FileSource;

    fn settings() -> IntakeSettings {
        let settings = Settings::read(Mode::Embedded, &|name| match name {
            "CARGA_MAX_UPLOAD_BYTES" => Some("1000".to_owned()),
            _ => None,
        });
        settings.unwrap().intake
    }

    /// Reads a file with this limit of the token, and returns its size after decompression.
    async fn read(file: Vec<u8>, token: Option<u64>) -> Result<usize, Refusal> {
        let settings = settings();
        let limit = SizeLimit::of(&settings).with_token(token);
        let pieces: Vec<_> = file
            .chunks(100)
            .map(Bytes::copy_from_slice)
            .map(Ok)
            .collect();
        let source = FileSource::new(stream::iter(pieces), limit);
        let mut file = Decompressor::open(source, settings.limits).await?;
        let mut size = 0;
        while let Some(bytes) = file.next().await? {
            size += bytes.len();
        }
        Ok(size)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn expect_token_limit(refusal: Refusal, limit: u64) {
        assert_eq!(refusal.kind, RefusalKind::TooLarge);
        assert_eq!(refusal.failure.code, "upload_too_large");
        assert_eq!(refusal.exceeded.unwrap().limit, limit);
        let message = refusal.failure.message;
        assert!(message.contains("`max_bytes`"), "{message}");
        assert!(!message.contains("CARGA_"), "{message}");
    }

    #[tokio::test]
    async fn the_smaller_one_of_both_limits_applies() {
        let text = |bytes: usize| "a,b\n".repeat(bytes / 4).into_bytes();
        assert_eq!(read(text(800), Some(800)).await.unwrap(), 800);
        expect_token_limit(read(text(804), Some(800)).await.unwrap_err(), 800);
        for token in [None, Some(5000)] {
            assert_eq!(read(text(1000), token).await.unwrap(), 1000);
            let refusal = read(text(1004), token).await.unwrap_err();
            let message = refusal.failure.message;
            assert!(message.contains("CARGA_MAX_UPLOAD_BYTES"), "{message}");
        }
    }

    #[tokio::test]
    async fn the_limit_of_a_token_counts_decompressed_bytes_too() {
        let text = "a,b\n".repeat(5000);
        let file = gzip(&text);
        assert!(file.len() < 500);
        assert_eq!(read(file.clone(), None).await.unwrap(), text.len());
        let enough = Some(text.len() as u64);
        assert_eq!(read(file.clone(), enough).await.unwrap(), text.len());
        let refusal = read(file, Some(19_999)).await.unwrap_err();
        expect_token_limit(refusal, 19_999);
    }
}
