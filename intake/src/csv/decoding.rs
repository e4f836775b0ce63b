//! Decodes the beginning of a file, until its syntax can be decided.

use super::charset::{self, Charset};
use super::fault::FileFault;
use super::transcode::Transcoder;

/// The longest byte order mark.
const MARK_BYTES: usize = 3;

/// The text of a file whose syntax is not decided.
#[derive(Debug)]
pub(super) struct Decoding {
    pub(super) transcoder: Transcoder,
    pub(super) mark_bytes: usize,
    /// The evidence for the encoding.
    pub(super) evidence: String,
    pub(super) text: Vec<u8>,
    /// The text is examined again only when it is this long. Otherwise a client that sends single
    /// bytes would have all of it examined with each of them.
    pub(super) wanted: usize,
}

/// How many bytes the decision about the encoding needs. `stated` is the encoding that the client
/// states.
pub(super) fn bytes_needed(stated: Option<Charset>) -> usize {
    match stated {
        Some(_) => MARK_BYTES,
        None => charset::SAMPLE_BYTES,
    }
}

impl Decoding {
    /// Decides the encoding, if the first bytes tell it. `ended` means that they are the whole
    /// file.
    pub(super) fn start(
        first: &[u8],
        stated: Option<Charset>,
        ended: bool,
    ) -> Result<Self, FileFault> {
        let sample = &first[..first.len().min(charset::SAMPLE_BYTES)];
        // A sample of full length may be followed by more bytes that have not arrived.
        let whole = ended && first.len() < charset::SAMPLE_BYTES;
        if stated.is_none() && charset::looks_binary(sample) {
            let message = "the file has NUL bytes or control characters, so it is not text; export it as CSV, optionally compressed with gzip or zstd";
            return Err(FileFault::new("not_csv", message));
        }
        let start = charset::start(sample, whole, stated)?;
        let transcoder = start
            .charset
            .map_or_else(Transcoder::undecided, Transcoder::new);
        let mut decoding = Self {
            transcoder,
            mark_bytes: start.mark_bytes,
            evidence: start.evidence,
            text: Vec::new(),
            wanted: 0,
        };
        decoding.push(&first[start.mark_bytes..], ended);
        Ok(decoding)
    }

    /// Adds the next bytes of the file. `last` marks the end of the file.
    pub(super) fn push(&mut self, bytes: &[u8], last: bool) {
        self.transcoder.decode(bytes, last, &mut self.text);
    }
}
