//! Binary data without a format that is known.

/// Data is binary only if at least one byte in this many is a control character. A stray NUL in a
/// text file is a fault of one row.
const BYTES_PER_CONTROL: usize = 32;

/// Data is binary only if it has at least this many NULs or different control characters.
/// A control character that occurs alone, however often, may be the delimiter.
const LEAST_CONTROLS: usize = 4;

/// Whether the first bytes of a file are binary data, and not text in some encoding.
pub(crate) fn looks_binary(sample: &[u8]) -> bool {
    // Old systems fill the end of a text file with these.
    let end = sample.iter().rposition(|byte| !matches!(byte, 0 | 0x1a));
    let Some(end) = end else {
        return sample.len() >= LEAST_CONTROLS && sample.contains(&0);
    };
    let sample = &sample[..=end];
    if is_utf16_or_utf32(sample) {
        return false;
    }
    let mut counts = [0; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    let nuls: usize = counts[0];
    let is_other = |byte: &u8| *byte != 0 && is_control(*byte);
    let others = (0..=u8::MAX).filter(is_other);
    let others = others.map(|byte| counts[usize::from(byte)]);
    let kinds = others.clone().filter(|count| *count > 0).count();
    let others: usize = others.sum();
    let many = |controls: usize| controls * BYTES_PER_CONTROL > sample.len();
    (nuls >= LEAST_CONTROLS && many(nuls)) || (kinds >= LEAST_CONTROLS && many(others))
}

/// Whether a byte does not occur in text, not even as a line end, a page break, an escape or the
/// end of a DOS file.
pub(crate) fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t'..=b'\r' | 0x1a | 0x1b)
}

/// Whether the NULs are parts of UTF-16 or UTF-32 characters: most on one side, because only a few
/// characters such as U+4E00 have them on the other, or at least half of each character.
fn is_utf16_or_utf32(sample: &[u8]) -> bool {
    if sample.starts_with(b"\xff\xfe") || sample.starts_with(b"\xfe\xff") {
        return true;
    }
    if !sample.contains(&0) {
        return false;
    }
    let mut nuls = [0; 4];
    for (position, byte) in sample.iter().enumerate() {
        nuls[position % 4] += usize::from(*byte == 0);
    }
    let [first, second, third, fourth] = nuls;
    let even = first + third;
    let odd = second + fourth;
    let characters = sample.len() / 4;
    let is_utf16 = even + odd > 1 && 3 * even.min(odd) <= even.max(odd);
    let is_utf32 = (first == 0 && fourth >= characters && third >= characters)
        || (fourth == 0 && first >= characters && second >= characters);
    is_utf16 || (characters > 0 && is_utf32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    fn utf32(text: &str) -> Vec<u8> {
        text.chars()
            .flat_map(|c| u32::from(c).to_be_bytes())
            .collect()
    }

    #[test]
    fn numbers_in_binary_are_binary() {
        let numbers: Vec<u8> = (0..200_u32).flat_map(u32::to_le_bytes).collect();
        assert!(looks_binary(&numbers));
        let bytes: Vec<u8> = (1..=255).collect();
        assert!(looks_binary(&bytes));
        assert!(looks_binary(&[0; 100]));
    }

    #[test]
    fn text_in_wide_encodings_is_not_binary() {
        for text in ["id,name\n1,Zoë\n", "品名,価格\n一,二\n", "a\n"] {
            assert!(!looks_binary(&utf16(text)), "{text}");
            let swapped: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            assert!(!looks_binary(&swapped), "{text}");
        }
        assert!(!looks_binary(&utf32("id,name\n1,Zoë\n")));
    }

    #[test]
    fn text_with_a_stray_control_character_is_not_binary() {
        let files: [&[u8]; 5] = [
            b"a,b\n1,x\0y\n2,z\n",
            b"a\x01b\n1\x012\n3\x014\n",
            b"a,b\r\n1,2\r\n\x1a\0\0\0\0\0\0\0\0",
            b"\x1b[1ma\x1b[0m,b\x0c\n",
            b"",
        ];
        for file in files {
            assert!(!looks_binary(file), "{file:?}");
        }
    }
}
