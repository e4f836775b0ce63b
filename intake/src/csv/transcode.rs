//! Transcodes any encoding to UTF-8 without losing a byte.
//!
//! UTF-8 passes unchanged, and everything else is decoded piece by piece. An undecodable byte
//! becomes three bytes that are never UTF-8 ([`mark`]). So its row is rejected, and the report
//! can show the byte.

use encoding_rs::{DecoderResult, EncoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// The longest malformed sequence together with what follows it; see
/// [`DecoderResult::Malformed`].
const LOOK_BACK: usize = 8;

/// How many bytes are decoded at once.
const STEP_BYTES: usize = 8 << 10;

/// Decodes a file piece by piece.
pub(super) struct Transcoder {
    encoding: &'static Encoding,
    /// `None` for UTF-8, which needs no decoding.
    decoder: Option<encoding_rs::Decoder>,
    /// The last bytes that were decoded, from which a malformed sequence is recovered.
    tail: Vec<u8>,
}

impl std::fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transcoder")
            .field("encoding", &self.encoding.name())
            .finish_non_exhaustive()
    }
}

impl Transcoder {
    /// The caller has removed the byte order mark.
    pub(super) fn new(encoding: &'static Encoding) -> Self {
        let decodes = encoding != UTF_8;
        Self {
            encoding,
            decoder: decodes.then(|| encoding.new_decoder_without_bom_handling()),
            tail: Vec::new(),
        }
    }

    /// Decodes `bytes` and appends them to `text`. `last` marks the end of the file.
    pub(super) fn decode(&mut self, bytes: &[u8], last: bool, text: &mut Vec<u8>) {
        let Some(decoder) = &mut self.decoder else {
            text.extend_from_slice(bytes);
            return;
        };
        let mut read = 0;
        loop {
            let step = &bytes[read..bytes.len().min(read + STEP_BYTES)];
            let is_last = last && read + step.len() == bytes.len();
            let text_start = text.len();
            let max_bytes = decoder.max_utf8_buffer_length_without_replacement(step.len());
            text.resize(text_start + max_bytes.unwrap_or(4 * STEP_BYTES), 0);
            let (result, consumed, written) =
                decoder.decode_to_utf8_without_replacement(step, &mut text[text_start..], is_last);
            text.truncate(text_start + written);
            self.tail.extend_from_slice(&step[..consumed]);
            read += consumed;
            if let DecoderResult::Malformed(length, after) = result {
                let end = self.tail.len() - usize::from(after);
                let start = end.saturating_sub(usize::from(length));
                for byte in &self.tail[start..end] {
                    text.extend_from_slice(&mark(*byte));
                }
            }
            self.tail.drain(..self.tail.len().saturating_sub(LOOK_BACK));
            if result == DecoderResult::InputEmpty && read == bytes.len() {
                return;
            }
        }
    }
}

/// Encodes an undecodable byte as three bytes that never occur in UTF-8. Each is 0xf8 plus two or
/// three bits of the byte, highest bits first.
fn mark(byte: u8) -> [u8; 3] {
    [0xf8 | byte >> 6, 0xf8 | byte >> 3 & 7, 0xf8 | byte & 7]
}

fn unmark(bytes: &[u8]) -> Option<u8> {
    let [high, middle, low] = *bytes.first_chunk()?;
    let is_mark = high.min(middle).min(low) >= 0xf8;
    is_mark.then_some((high & 7) << 6 | (middle & 7) << 3 | low & 7)
}

/// Measures how many bytes of the file a piece of decoded text takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceLength(&'static Encoding);

impl SourceLength {
    pub(super) fn of(encoding: &'static Encoding) -> Self {
        Self(encoding)
    }

    /// How many bytes of the file this text takes.
    pub(super) fn measure(&self, text: &[u8]) -> u64 {
        if self.0 == UTF_8 {
            return text.len() as u64;
        }
        let (mut length, mut marks) = (0, 0);
        for chunk in text.utf8_chunks() {
            length += self.measure_valid(chunk.valid());
            marks += chunk.invalid().len() as u64;
        }
        length + marks / 3
    }

    /// Encodes the text again. The result is exact except for the few characters that have more
    /// than one encoding.
    fn encoded_length(&self, text: &str) -> u64 {
        // Private-use characters can be decoded but not encoded; they take two bytes.
        const UNMAPPABLE: usize = 2;
        let mut encoder = self.0.new_encoder();
        let mut buffer = [0; 1024];
        let (mut rest, mut length) = (text, 0);
        loop {
            let (result, read, written) =
                encoder.encode_from_utf8_without_replacement(rest, &mut buffer, true);
            rest = &rest[read..];
            length += written;
            match result {
                EncoderResult::InputEmpty => return length as u64,
                EncoderResult::OutputFull => {}
                EncoderResult::Unmappable(_) => length += UNMAPPABLE,
            }
        }
    }

    fn measure_valid(&self, text: &str) -> u64 {
        if self.0 == UTF_16LE || self.0 == UTF_16BE {
            2 * text.encode_utf16().count() as u64
        } else if self.0.is_single_byte() {
            text.chars().count() as u64
        } else {
            self.encoded_length(text)
        }
    }
}

/// Text for people. Undecodable bytes are written as `\xNN`, and so is NUL, which databases do
/// not store.
pub(super) fn escaped(text: &[u8], encoding: &'static Encoding) -> String {
    let mut escaped = String::with_capacity(text.len());
    let escape = |escaped: &mut String, byte: u8| escaped.push_str(&format!("\\x{byte:02X}"));
    let mut rest = text;
    while let Some(chunk) = rest.utf8_chunks().next() {
        for (index, part) in chunk.valid().split('\0').enumerate() {
            if index > 0 {
                escape(&mut escaped, 0);
            }
            escaped.push_str(part);
        }
        let invalid = &rest[chunk.valid().len()..];
        let consumed = match unmark(invalid).filter(|_| encoding != UTF_8) {
            Some(byte) => {
                escape(&mut escaped, byte);
                3
            }
            None => {
                chunk
                    .invalid()
                    .iter()
                    .for_each(|byte| escape(&mut escaped, *byte));
                chunk.invalid().len()
            }
        };
        rest = &invalid[consumed..];
    }
    escaped
}

#[cfg(test)]
mod tests {
    use encoding_rs::{SHIFT_JIS, WINDOWS_1252};

    use super::*;

    fn decoded(encoding: &'static Encoding, bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut transcoder = Transcoder::new(encoding);
        let mut text = Vec::new();
        for piece in bytes.chunks(piece) {
            transcoder.decode(piece, false, &mut text);
        }
        transcoder.decode(b"", true, &mut text);
        text
    }

    #[test]
    fn decoded_text_does_not_depend_on_how_its_bytes_arrive() {
        let cases: [(&'static Encoding, &[u8], &str); 4] = [
            (UTF_8, "näme".as_bytes(), "näme"),
            (WINDOWS_1252, b"caf\xe9 \x80", "café €"),
            (UTF_16LE, b"a\0\xac\x20=\xd8\x00\xde", "a€😀"),
            (SHIFT_JIS, b"\x93\xfa\x96\x7b", "日本"),
        ];
        for (encoding, bytes, text) in cases {
            for piece in 1..=bytes.len() {
                assert_eq!(decoded(encoding, bytes, piece), text.as_bytes());
            }
            assert_eq!(
                SourceLength::of(encoding).measure(text.as_bytes()),
                bytes.len() as u64
            );
        }
    }

    #[test]
    fn an_undecodable_byte_is_escaped_and_counted_as_one_byte() {
        // In Shift_JIS, 0x81 begins a character that 0xff does not end. The UTF-16 cases are
        // half a surrogate pair, and an odd byte at the end.
        let cases: [(&'static Encoding, &[u8], &str); 4] = [
            (UTF_8, b"a\xffb\0", "a\\xFFb\\x00"),
            (SHIFT_JIS, b"a\x81\xffb", "a\\x81\\xFFb"),
            (UTF_16LE, b"a\0\x00\xd8b\0", "a\\x00\\xD8b"),
            (UTF_16LE, b"a\0b", "a\\x62"),
        ];
        for (encoding, bytes, text) in cases {
            for piece in 1..=bytes.len() {
                let decoded = decoded(encoding, bytes, piece);
                assert_eq!(escaped(&decoded, encoding), text, "{piece}");
                assert_eq!(
                    SourceLength::of(encoding).measure(&decoded),
                    bytes.len() as u64
                );
            }
        }
    }
}
