//! Finds the bytes at which an unquoted field may end, eight bytes at a time.
//!
//! Most fields are shorter than eight bytes, so one word often has the ends of several fields. A
//! call of memchr for each field would cost more than the field.

/// How many bytes are examined together.
const WORD_BYTES: usize = size_of::<u64>();

/// The lowest seven bits of each byte.
const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// Added to the seven lowest bits of each byte, this sets the highest bit of all bytes above CR.
const ABOVE_CR: u64 = 0x7272_7272_7272_7272;

/// The candidates for the end of a field, in the order in which they stand in the text.
#[derive(Debug)]
pub(super) struct FieldEnds<'a> {
    bytes: &'a [u8],
    /// The first byte of the delimiter, eight times.
    delimiter: u64,
    /// The index of the word that was examined last.
    start: usize,
    /// The highest bit of each byte of this word that is a candidate.
    candidates: u64,
}

impl<'a> FieldEnds<'a> {
    /// `delimiter` is the first byte of the delimiter in UTF-8.
    #[inline(always)]
    pub(super) fn new(bytes: &'a [u8], delimiter: u8) -> Self {
        let mut ends = Self {
            bytes,
            delimiter: u64::from_ne_bytes([delimiter; WORD_BYTES]),
            start: 0,
            candidates: 0,
        };
        ends.examine(0);
        ends
    }

    /// The index of the first byte from `at` on that is the delimiter's first byte, a line end, or
    /// another control character up to CR. `at` never decreases from call to call.
    #[inline(always)]
    pub(super) fn next(&mut self, mut at: usize) -> Option<usize> {
        let passed = at - self.start;
        if passed < WORD_BYTES {
            let candidates = self.candidates >> (8 * passed);
            if candidates != 0 {
                return Some(at + first(candidates));
            }
            at = self.start + WORD_BYTES;
        }
        while at < self.bytes.len() {
            self.examine(at);
            if self.candidates != 0 {
                return Some(at + first(self.candidates));
            }
            at += WORD_BYTES;
        }
        None
    }

    #[inline(always)]
    fn examine(&mut self, at: usize) {
        self.start = at;
        let word = match self.bytes[at..].first_chunk() {
            Some(word) => u64::from_le_bytes(*word),
            None => last_word(&self.bytes[at..]),
        };
        let difference = word ^ self.delimiter;
        // The highest bit of a byte is clear in `no_delimiter` if the byte is the first one of the
        // delimiter, and in `no_control` if the byte is CR or lower. No sum carries into the next
        // byte, because each summand has seven bits.
        let no_delimiter = ((difference & LOW) + LOW) | difference;
        let no_control = ((word & LOW) + ABOVE_CR) | word;
        self.candidates = !(no_delimiter & no_control) & !LOW;
    }
}

/// The last bytes, filled up with 0xff, which is never a candidate: no character begins with it in
/// UTF-8, and it is above CR.
#[cold]
fn last_word(bytes: &[u8]) -> u64 {
    let mut word = [0xff; WORD_BYTES];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

fn first(candidates: u64) -> usize {
    candidates.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_is_found_in_order_and_no_other_byte() {
        for delimiter in [b',', b';', b'\t', b' ', 0x80, 0xc2] {
            let bytes: Vec<u8> = (0..=255).chain((0..=255).rev()).chain(*b"abc,").collect();
            let mut ends = FieldEnds::new(&bytes, delimiter);
            let mut at = 0;
            for (index, byte) in bytes.iter().enumerate() {
                if *byte <= b'\r' || *byte == delimiter {
                    assert_eq!(ends.next(at), Some(index), "{byte} for {delimiter}");
                    at = index + 1;
                }
            }
            assert_eq!(ends.next(at), None);
        }
    }

    #[test]
    fn an_empty_text_has_no_candidate() {
        assert_eq!(FieldEnds::new(b"", b',').next(0), None);
    }
}
