//! Measures the source of decoded text.

use encoding_rs::{EncoderResult, Encoding};

use super::charset::Charset;

/// Measures how many bytes of the file a piece of decoded text takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceLength(Charset);

impl SourceLength {
    pub(super) fn of(charset: Charset) -> Self {
        Self(charset)
    }

    /// How many bytes of the file this text takes.
    pub(super) fn measure(&self, text: &[u8]) -> u64 {
        if self.0.is_utf8() {
            return text.len() as u64;
        }
        let (mut length, mut marks) = (0, 0);
        for chunk in text.utf8_chunks() {
            length += self.measure_valid(chunk.valid());
            marks += chunk.invalid().len() as u64;
        }
        length + marks / 3
    }

    fn measure_valid(&self, text: &str) -> u64 {
        match self.0.standard() {
            _ if self.0.is_utf16() => 2 * text.encode_utf16().count() as u64,
            Some(encoding) if !self.0.is_single_byte() => encoded_length(encoding, text),
            _ => text.chars().count() as u64,
        }
    }
}

/// Encodes the text again. The result is exact except for the few characters that have more than
/// one encoding.
fn encoded_length(encoding: &'static Encoding, text: &str) -> u64 {
    // Private-use characters can be decoded but not encoded; they take two bytes.
    const UNMAPPABLE: usize = 2;
    let mut encoder = encoding.new_encoder();
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
