//! Transcodes any encoding to UTF-8 without losing a byte.
//!
//! UTF-8 passes unchanged, and everything else is decoded piece by piece. An undecodable byte
//! becomes three bytes that are never UTF-8 ([`mark`]). So its row is rejected, and the report
//! can show the byte.

mod marks;

use std::mem;

use encoding_rs::{Decoder, DecoderResult, Encoding};

use self::marks::mark;
use super::charset::{Charset, SAMPLE_BYTES, detect_late, mark as mark_of};
use super::detect::Decision;
use super::fault::FileFault;

pub(super) use self::marks::escaped;

/// The longest malformed sequence together with what follows it; see
/// [`DecoderResult::Malformed`].
const LOOK_BACK: usize = 8;

/// How many bytes are decoded at once.
const STEP_BYTES: usize = 8 << 10;

/// Decodes a file piece by piece.
#[derive(Debug)]
pub(super) struct Transcoder {
    charset: Charset,
    state: State,
    /// A decision that the caller has not taken yet.
    late: Option<Decision<Charset>>,
    fault: Option<FileFault>,
}

enum State {
    Utf8,
    Standard(Box<Decoder>, Tail),
    /// A DOS code page, by the characters of the bytes from 0x80.
    Dos(Vec<char>),
    /// The file is ASCII up to these bytes, which begin with the first other one.
    Undecided(Vec<u8>),
    /// The encoding is unknown, so the text ends before the first non-ASCII byte.
    Refused,
}

/// The last bytes that were decoded, from which a malformed sequence is recovered.
type Tail = Vec<u8>;

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Utf8 => "Utf8",
            Self::Standard(..) => "Standard",
            Self::Dos(_) => "Dos",
            Self::Undecided(_) => "Undecided",
            Self::Refused => "Refused",
        })
    }
}

impl State {
    fn of(charset: Charset) -> Self {
        match charset.standard() {
            _ if charset.is_utf8() => Self::Utf8,
            Some(encoding) => {
                let decoder = encoding.new_decoder_without_bom_handling();
                Self::Standard(Box::new(decoder), Tail::new())
            }
            None => Self::Dos(charset.upper_half().unwrap_or_default()),
        }
    }
}

impl Transcoder {
    /// The caller has removed the byte order mark.
    pub(super) fn new(charset: Charset) -> Self {
        Self {
            charset,
            state: State::of(charset),
            late: None,
            fault: None,
        }
    }

    /// Passes ASCII through. From the first other byte, it holds bytes back until they tell the
    /// encoding: until there are [`SAMPLE_BYTES`] of them or the file ends, so that the decision
    /// does not depend on how the bytes arrive.
    pub(super) fn undecided() -> Self {
        Self {
            state: State::Undecided(Vec::new()),
            ..Self::new(Charset::UTF_8)
        }
    }

    /// The encoding. While it is undecided, the text is ASCII, and this is UTF-8.
    pub(super) fn charset(&self) -> Charset {
        self.charset
    }

    /// The decision of an undecided transcoder, once.
    pub(super) fn take_decision(&mut self) -> Option<Decision<Charset>> {
        self.late.take()
    }

    /// The refusal of an undecided transcoder that found no encoding. The text then ends before
    /// the first non-ASCII byte.
    pub(super) fn fault(&self) -> Option<FileFault> {
        self.fault.clone()
    }

    /// Decodes `bytes` and appends them to `text`. `last` marks the end of the file.
    pub(super) fn decode(&mut self, bytes: &[u8], last: bool, text: &mut Vec<u8>) {
        match &mut self.state {
            State::Utf8 => text.extend_from_slice(bytes),
            State::Standard(decoder, tail) => decode(decoder, tail, bytes, last, text),
            State::Dos(upper_half) => decode_dos(upper_half, bytes, text),
            State::Undecided(held) => {
                let ascii_bytes = match held.is_empty() {
                    true => Encoding::ascii_valid_up_to(bytes),
                    false => 0,
                };
                let (ascii, rest) = bytes.split_at(ascii_bytes);
                text.extend_from_slice(ascii);
                held.extend_from_slice(rest);
                if held.len() >= SAMPLE_BYTES || last && !held.is_empty() {
                    let held = mem::take(held);
                    self.decide(&held, held.len() < SAMPLE_BYTES);
                    self.decode(&held, last, text);
                }
            }
            State::Refused => {}
        }
    }

    /// Decodes what is held back, because the rest of the file is not read.
    pub(super) fn cut(&mut self, text: &mut Vec<u8>) {
        if let State::Undecided(held) = &mut self.state
            && !held.is_empty()
        {
            let held = mem::take(held);
            self.decide(&held, false);
            self.decode(&held, false, text);
        }
    }

    /// Decides the encoding by the bytes from the first non-ASCII one. `whole` means that the file
    /// ends with them.
    fn decide(&mut self, held: &[u8], whole: bool) {
        match detect_late(&held[..held.len().min(SAMPLE_BYTES)], whole) {
            Ok(decision) => {
                self.charset = decision.value;
                self.state = State::of(decision.value);
                self.late = Some(decision);
            }
            Err(fault) => {
                self.state = State::Refused;
                self.fault = Some(fault);
            }
        }
    }
}

fn decode(decoder: &mut Decoder, tail: &mut Tail, bytes: &[u8], last: bool, text: &mut Vec<u8>) {
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
        tail.extend_from_slice(&step[..consumed]);
        read += consumed;
        if let DecoderResult::Malformed(length, after) = result {
            let end = tail.len() - usize::from(after);
            let start = end.saturating_sub(usize::from(length));
            for byte in &tail[start..end] {
                text.extend_from_slice(&mark(*byte));
            }
        }
        tail.drain(..tail.len().saturating_sub(LOOK_BACK));
        if result == DecoderResult::InputEmpty && read == bytes.len() {
            return;
        }
    }
}

fn decode_dos(upper_half: &[char], bytes: &[u8], text: &mut Vec<u8>) {
    let mut rest = bytes;
    loop {
        let (ascii, others) = rest.split_at(Encoding::ascii_valid_up_to(rest));
        text.extend_from_slice(ascii);
        let [byte, after @ ..] = others else {
            return;
        };
        let character = upper_half[usize::from(*byte & 0x7f)];
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = after;
    }
}

/// The text in the first bytes of a file, for people. It may end with a part of a character, which
/// is written as `\xNN`, as are undecodable bytes.
pub fn decoded(bytes: &[u8], charset: Charset) -> String {
    let mark_bytes = mark_of(bytes).map_or(0, |(_, length)| length);
    let mut text = Vec::new();
    Transcoder::new(charset).decode(&bytes[mark_bytes..], true, &mut text);
    escaped(&text, charset)
}

#[cfg(test)]
mod tests;
