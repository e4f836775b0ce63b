//! Requests that take effect once, although a client repeats them.

use bytes::Bytes;
use carga_common::idempotency::fingerprint;
use carga_common::sha256::Sha256;
use carga_common::upload::{Status, Upload, UploadId};
use futures::{Stream, StreamExt};

use crate::intake::Intake;
use crate::options::Options;
use crate::pieces::interrupted;
use crate::refusal::{Refusal, RefusalKind};
use crate::size_limit::SizeLimit;
use crate::source::FileSource;

/// After how many seconds a client may ask again whether its first request has ended.
const RETRY_SECS: u32 = 5;

impl Options {
    /// The fingerprint of what the client wants to be done with the file. `sha256` is left out,
    /// because it describes the file. So is a file name that only the head of a form's part has,
    /// because a client may choose it anew for each attempt. The encoding and the header count as
    /// they are used, since the headers of the request may give them.
    pub fn fingerprint(&self) -> Sha256 {
        const ELSEWHERE: [&str; 3] = ["sha256", "encoding", "header"];
        let given = self.given().iter();
        let given = given.filter(|(name, _)| !ELSEWHERE.contains(name));
        let mut fields: Vec<(&str, &str)> =
            given.map(|(name, value)| (*name, value.as_str())).collect();
        fields.extend(
            self.csv
                .encoding
                .map(|encoding| ("encoding", encoding.name())),
        );
        let header = self
            .csv
            .header
            .map(|header| if header { "true" } else { "false" });
        fields.extend(header.map(|header| ("header", header)));
        fields.sort_unstable();
        fingerprint(fields)
    }
}

impl Intake {
    /// Reads a file to its end and returns its digest, without parsing it. `limit` is that of the
    /// sender. An orderly stop of the process waits for this as for an upload.
    pub async fn digest(
        &self,
        pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
        limit: SizeLimit,
    ) -> Result<Sha256, Refusal> {
        let digesting = self.tasks.track_future(digest(pieces, limit));
        let ended = self.abort_uploads.run_until_cancelled(digesting).await;
        ended.unwrap_or_else(|| Err(interrupted()))
    }
}

async fn digest(
    pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
    limit: SizeLimit,
) -> Result<Sha256, Refusal> {
    let mut source = FileSource::new(pieces, limit);
    while let Some(piece) = source.next().await {
        // Every error of a source has a refusal.
        let refusal =
            |error: std::io::Error| error.downcast().unwrap_or_else(|_| Refusal::internal());
        piece.map_err(refusal)?;
    }
    Ok(source.sha256())
}

impl Refusal {
    /// The first request with the key is still running, or has ended while this one was running.
    /// `first` is its upload, if it is known.
    pub fn idempotency_in_progress(first: Option<&Upload>) -> Self {
        const CODE: &str = "idempotency_in_progress";
        let Some(first) = first else {
            let message = "another request with this `Idempotency-Key` is running; repeat the request when it has ended";
            return Self::conflict(CODE, message).retry_after(RETRY_SECS);
        };
        let id = first.public_id;
        let message = match first.status {
            Status::Receiving => format!(
                "upload {id} is being received with this `Idempotency-Key`; repeat the request when it has ended"
            ),
            _ => format!(
                "another request with this `Idempotency-Key` has made upload {id} meanwhile; repeat the request to get its answer"
            ),
        };
        Self {
            upload_status: Some(first.status),
            ..Self::conflict(CODE, message)
                .about(id)
                .retry_after(RETRY_SECS)
        }
    }

    /// The key belongs to another request. `differs` names what differs, in the plural. `upload` is
    /// the upload of the first request, if it has made one.
    pub fn idempotency_key_reused(differs: &str, upload: Option<UploadId>) -> Self {
        const CODE: &str = "idempotency_key_reused";
        let first = match upload {
            Some(id) => format!("upload {id}"),
            None => "another request".to_owned(),
        };
        let message = format!(
            "this `Idempotency-Key` belongs to {first}, and the {differs} differ; use a new key for a new request"
        );
        let refusal = Self::new(RefusalKind::Unprocessable, CODE, message);
        Self { upload, ..refusal }
    }
}

#[cfg(test)]
mod tests {
    use carga_common::settings::{Mode, Settings};
    use futures::stream;

    use super::*;
    use crate::csv::Charset;
    use crate::pieces::incomplete;

    fn options(given: &[(&str, &str)]) -> Options {
        let mut options = Options::default();
        for (name, value) in given {
            options.set(name, value).unwrap();
        }
        options
    }

    /// The limit for the holder of a token.
    fn up_to(bytes: u64) -> SizeLimit {
        let settings = Settings::read(Mode::Embedded, &|_| None).unwrap();
        SizeLimit::of(&settings.intake).with_token(Some(bytes))
    }

    #[test]
    fn the_order_of_options_and_the_announced_digest_do_not_change_the_fingerprint() {
        let one = options(&[("trim", "true"), ("delimiter", ";"), ("header", "false")]);
        let other = options(&[
            ("header", "false"),
            ("sha256", &"0".repeat(64)),
            ("delimiter", ";"),
            ("trim", "true"),
        ]);
        assert_eq!(one.fingerprint(), other.fingerprint());
        let mut named = one.clone();
        named.default_filename(Some("prices.csv"));
        assert_eq!(one.fingerprint(), named.fingerprint());
    }

    #[test]
    fn every_other_option_changes_the_fingerprint() {
        let none = options(&[]).fingerprint();
        for given in [
            ("trim", "false"),
            ("dataset", "sales"),
            ("filename", "prices.csv"),
            ("on_duplicate", "reject"),
            ("encoding", "cp850"),
            ("header", "true"),
        ] {
            assert_ne!(options(&[given]).fingerprint(), none, "{given:?}");
        }
        let one = options(&[("trim", "true")]).fingerprint();
        assert_ne!(one, options(&[("trim", "false")]).fingerprint());
    }

    #[test]
    fn a_charset_and_a_header_of_the_content_type_count_like_the_options() {
        let mut from_headers = Options::default();
        from_headers.default_encoding(Charset::for_label("latin1"));
        from_headers.default_header(Some(true));
        let given = options(&[("encoding", "windows-1252"), ("header", "true")]);
        assert_eq!(from_headers.fingerprint(), given.fingerprint());
        assert_ne!(from_headers.fingerprint(), Options::default().fingerprint());
    }

    #[tokio::test]
    async fn the_digest_is_that_of_all_pieces_together() {
        let pieces = |texts: &'static [&'static str]| {
            stream::iter(
                texts
                    .iter()
                    .map(|text| Ok(Bytes::from_static(text.as_bytes()))),
            )
        };
        let whole = digest(pieces(&["a,b\n1,2\n"]), up_to(100)).await.unwrap();
        let cut = digest(pieces(&["a,", "b\n1", ",2\n"]), up_to(100))
            .await
            .unwrap();
        assert_eq!(whole, cut);
        assert_ne!(
            whole,
            digest(pieces(&["a,b\n1,3\n"]), up_to(100)).await.unwrap()
        );
        let refusal = digest(pieces(&["a,", "b\n1"]), up_to(3)).await.unwrap_err();
        assert_eq!(refusal.failure.code, "upload_too_large");
    }

    #[tokio::test]
    async fn a_body_that_is_cut_off_has_no_digest() {
        let pieces = [Ok(Bytes::from_static(b"a,b\n")), Err(incomplete("cut off"))];
        let refusal = digest(stream::iter(pieces), up_to(100)).await.unwrap_err();
        assert_eq!(refusal.failure.code, "incomplete_body");
    }

    #[test]
    fn a_refusal_names_the_first_upload_and_when_to_retry() {
        let running = Refusal::idempotency_in_progress(None);
        assert_eq!(running.kind, RefusalKind::Conflict);
        assert_eq!(running.retry_after_secs, Some(RETRY_SECS));
        let id = UploadId::generate();
        let reused = Refusal::idempotency_key_reused("options", Some(id));
        assert_eq!(reused.kind, RefusalKind::Unprocessable);
        assert_eq!(reused.upload, Some(id));
        let message = reused.failure.message;
        assert!(message.contains(&id.to_string()), "{message}");
        assert!(message.contains("options"), "{message}");
    }
}
