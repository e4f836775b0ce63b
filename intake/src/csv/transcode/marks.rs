//! The marks that stand for undecodable bytes in decoded text.

use super::super::charset::Charset;

/// Encodes an undecodable byte as three bytes that never occur in UTF-8. Each is 0xf8 plus two or
/// three bits of the byte, highest bits first.
pub(super) fn mark(byte: u8) -> [u8; 3] {
    [0xf8 | byte >> 6, 0xf8 | byte >> 3 & 7, 0xf8 | byte & 7]
}

fn unmark(bytes: &[u8]) -> Option<u8> {
    let [high, middle, low] = *bytes.first_chunk()?;
    let is_mark = high.min(middle).min(low) >= 0xf8;
    is_mark.then_some((high & 7) << 6 | (middle & 7) << 3 | low & 7)
}

/// Text for people. Undecodable bytes are written as `\xNN`, and so is NUL, which databases do
/// not store.
pub(in crate::csv) fn escaped(text: &[u8], charset: Charset) -> String {
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
        let consumed = match unmark(invalid).filter(|_| !charset.is_utf8()) {
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
