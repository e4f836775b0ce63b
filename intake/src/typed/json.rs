//! JSON values, kept as they were sent.
//!
//! A value is JSON as RFC 8259 defines it, with blanks around it or not. It is checked further, so
//! that both databases and every reader can take it:
//!
//! - Arrays and objects nest at most 127 levels deep, as serde_json allows.
//! - Texts have no NUL character and no half of a surrogate pair, which Postgres cannot store.
//! - Numbers are 0 or in the range of a float, and have at most 16,383 digits after their decimal
//!   mark, as in Postgres.
//! - All exponents of a value together stand for at most 65,536 digits, because Postgres writes
//!   numbers without exponents. The text of a small value could otherwise fill the memory.
//!
//! serde_json cannot check this in one pass without allocating memory: it yields numbers without
//! their digits, and copies texts that have escapes.

#[cfg(test)]
mod tests;

use super::Fault;
use super::number::{split_digits, split_exponent};

/// The most levels of arrays and objects. They fit into the bits of a `u128`.
const MAX_DEPTH: u32 = 127;

/// The most digits after the decimal mark of a number that Postgres stores.
const MAX_DIGITS_AFTER: i64 = 16_383;

/// The most digits that all exponents of a value stand for.
const MAX_EXPANDED_DIGITS: u64 = 65_536;

/// Numbers without an exponent that are at most this long are never out of range.
const SHORT_NUMBER: usize = 300;

/// Checks a JSON value and appends it unchanged.
pub(super) fn canonical(text: &str, out: &mut String) -> Result<(), Fault> {
    let mut scanner = Scanner {
        text,
        at: 0,
        depth: 0,
        objects: 0,
        expanded_digits: 0,
    };
    scanner.value().map_err(|flaw| flaw.fault(scanner.at))?;
    out.push_str(text);
    Ok(())
}

/// Why a text is not a JSON value that can be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    Malformed,
    Nul,
    Surrogate,
    TooDeep,
    Number,
    Exponents,
}

impl Flaw {
    /// The fault, found just before byte `at`.
    fn fault(self, at: usize) -> Fault {
        match self {
            Self::Malformed => {
                Fault::wrong_type(format!("expected JSON, which is malformed near byte {at}"))
            }
            Self::Nul => Fault::wrong_type(format!(
                "expected JSON without the NUL character, which is near byte {at}"
            )),
            Self::Surrogate => Fault::wrong_type(format!(
                "expected JSON without half of a surrogate pair, which is near byte {at}"
            )),
            Self::TooDeep => Fault::out_of_range(format!(
                "the JSON value nests more than {MAX_DEPTH} levels deep near byte {at}"
            )),
            Self::Number => Fault::out_of_range(format!(
                "the JSON value has a number beyond a float, or with more than {MAX_DIGITS_AFTER} digits after its decimal mark, near byte {at}"
            )),
            Self::Exponents => Fault::out_of_range(format!(
                "the exponents in the JSON value stand for more than {MAX_EXPANDED_DIGITS} digits, counted up to byte {at}"
            )),
        }
    }
}

/// Reads one text from its beginning to its end.
#[derive(Debug)]
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// How many arrays and objects are open.
    depth: u32,
    /// Bit n says whether the one at level n is an object.
    objects: u128,
    /// The digits that the exponents of the numbers so far stand for.
    expanded_digits: u64,
}

impl Scanner<'_> {
    /// Reads the whole text as one value.
    fn value(&mut self) -> Result<(), Flaw> {
        loop {
            self.skip_blanks();
            let has_inner_value = match self.next() {
                Some(b'{') => self.open(true)?,
                Some(b'[') => self.open(false)?,
                first => {
                    self.scalar(first)?;
                    false
                }
            };
            if !has_inner_value && !self.find_next_value()? {
                return Ok(());
            }
        }
    }

    /// Opens an array or an object. Returns whether a value in it follows.
    fn open(&mut self, is_object: bool) -> Result<bool, Flaw> {
        if self.depth == MAX_DEPTH {
            return Err(Flaw::TooDeep);
        }
        self.skip_blanks();
        let end = if is_object { b'}' } else { b']' };
        if self.peek() == Some(end) {
            self.at += 1;
            return Ok(false);
        }
        self.depth += 1;
        let bit = 1_u128 << self.depth;
        if is_object {
            self.objects |= bit;
            self.key()?;
        } else {
            self.objects &= !bit;
        }
        Ok(true)
    }

    /// Reads on after a value. Returns whether another value follows; if not, the text has ended.
    fn find_next_value(&mut self) -> Result<bool, Flaw> {
        loop {
            self.skip_blanks();
            let next = self.next();
            if self.depth == 0 {
                return match next {
                    None => Ok(false),
                    Some(_) => Err(Flaw::Malformed),
                };
            }
            let is_object = (self.objects >> self.depth) & 1 == 1;
            match next {
                Some(b',') => {
                    if is_object {
                        self.skip_blanks();
                        self.key()?;
                    }
                    return Ok(true);
                }
                Some(b'}') if is_object => self.depth -= 1,
                Some(b']') if !is_object => self.depth -= 1,
                _ => return Err(Flaw::Malformed),
            }
        }
    }

    /// Reads a key and the colon after it.
    fn key(&mut self) -> Result<(), Flaw> {
        self.word("\"")?;
        self.string()?;
        self.skip_blanks();
        self.word(":")
    }

    /// Reads a value that is neither an array nor an object, after its first byte.
    fn scalar(&mut self, first: Option<u8>) -> Result<(), Flaw> {
        match first {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(Flaw::Malformed),
        }
    }

    /// Reads a text after its opening quote.
    fn string(&mut self) -> Result<(), Flaw> {
        loop {
            match self.next() {
                Some(b'"') => return Ok(()),
                Some(b'\\') => self.escape()?,
                Some(0x20..) => {}
                _ => return Err(Flaw::Malformed),
            }
        }
    }

    /// Reads an escape after its backslash.
    fn escape(&mut self) -> Result<(), Flaw> {
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => return Ok(()),
            Some(b'u') => {}
            _ => return Err(Flaw::Malformed),
        }
        match self.code_unit()? {
            0 => Err(Flaw::Nul),
            0xd800..=0xdbff => {
                self.word("\\u").map_err(|_| Flaw::Surrogate)?;
                match self.code_unit()? {
                    0xdc00..=0xdfff => Ok(()),
                    _ => Err(Flaw::Surrogate),
                }
            }
            0xdc00..=0xdfff => Err(Flaw::Surrogate),
            _ => Ok(()),
        }
    }

    /// Reads four hexadecimal digits.
    fn code_unit(&mut self) -> Result<u32, Flaw> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit * 16 + digit.ok_or(Flaw::Malformed)?;
        }
        Ok(unit)
    }

    /// Reads a number after its first byte, and checks its range.
    fn number(&mut self) -> Result<(), Flaw> {
        let text = &self.text[self.at - 1..];
        let (integer, rest) = split_digits(text.strip_prefix('-').unwrap_or(text));
        if integer.is_empty() || (integer.starts_with('0') && integer != "0") {
            return Err(Flaw::Malformed);
        }
        let (fraction, rest) = match rest.strip_prefix('.').map(split_digits) {
            Some(("", _)) => return Err(Flaw::Malformed),
            Some((fraction, rest)) => (fraction, rest),
            None => ("", rest),
        };
        let (exponent, rest) = split_exponent(rest);
        let number = &text[..text.len() - rest.len()];
        self.at += number.len() - 1;
        if exponent == 0 && number.len() <= SHORT_NUMBER {
            return Ok(());
        }
        let value: f64 = number.parse().map_err(|_| Flaw::Number)?;
        let mut digits = integer.bytes().chain(fraction.bytes());
        let rounds_to_zero = value == 0.0 && digits.any(|digit| digit != b'0');
        // Postgres reads the exponent of zero as well. Here it must be in the same range.
        let digits_after = fraction.len() as i64 - exponent;
        if !value.is_finite() || rounds_to_zero || digits_after.abs() > MAX_DIGITS_AFTER {
            return Err(Flaw::Number);
        }
        self.expanded_digits += exponent.unsigned_abs();
        match self.expanded_digits <= MAX_EXPANDED_DIGITS {
            true => Ok(()),
            false => Err(Flaw::Exponents),
        }
    }

    /// Reads a literal after its first byte.
    fn literal(&mut self, literal: &str) -> Result<(), Flaw> {
        self.at -= 1;
        self.word(literal)
    }

    /// Reads this text.
    fn word(&mut self, word: &str) -> Result<(), Flaw> {
        let rest = &self.text.as_bytes()[self.at..];
        if !rest.starts_with(word.as_bytes()) {
            return Err(Flaw::Malformed);
        }
        self.at += word.len();
        Ok(())
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }
}
