//! Whole and decimal numbers.
//!
//! A number is an optional sign and ASCII digits. A `numeric` may have a fraction and an exponent;
//! `.5` and `5.` are numbers. Underscores, hexadecimal digits, `NaN` and `Infinity` are not
//! accepted. Thousands marks and currencies are accepted only where the definition declares them:
//!
//! - Thousands marks stand between groups of exactly three digits. The first group has one to three
//!   digits and does not begin with a zero, because `0.123` with `.` as the mark is probably a
//!   fraction. The blanks that locales write between groups are the same mark.
//! - A currency stands before or after the number, with an optional blank between them. The sign
//!   stands directly before the currency or directly before the number. A number after its currency
//!   begins with a digit, because the mark in `Rs.500` is probably part of the currency.
//!
//! The limits are those of Postgres: 131,072 digits before the decimal mark and 16,383 after it. An
//! exponent may add at most 1,000 zeros, so that a short cell cannot become a long text.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::fmt::{self, Write};
use std::iter::repeat_n;

use carga_common::dataset::ColumnDefinition;

use super::wording::listed;
use super::{Fault, WORD_CHARS};

const MAX_DIGITS_BEFORE: i64 = 131_072;
const MAX_DIGITS_AFTER: i64 = 16_383;
const MAX_ZEROS_OF_EXPONENT: i64 = 1000;

/// Larger exponents are read as this one. It is far outside of every range, and sums with the
/// number of digits do not overflow.
const EXPONENT_CAP: i64 = 1 << 50;

/// How the numbers of a column are written.
#[derive(Debug, Clone)]
pub(super) struct NumberRules {
    decimal: char,
    thousands: Option<char>,
    /// The longest first, because one may be the beginning of another.
    currency: Vec<String>,
}

impl NumberRules {
    pub(super) fn new(column: &ColumnDefinition) -> Self {
        let currency = column.currency.iter().map(|text| text.trim().to_owned());
        let mut currency: Vec<String> = currency.collect();
        currency.sort_by_key(|text| Reverse(text.len()));
        Self {
            decimal: column.decimal.unwrap_or('.'),
            thousands: column.thousands,
            currency,
        }
    }

    /// Splits a number into its parts. `None` if the text is not a number.
    pub(super) fn parse<'a>(&self, text: &'a str) -> Option<Number<'a>> {
        let (sign, rest) = split_sign(text);
        let (has_currency, rest) = self.skip_currency(rest);
        let (sign, rest) = match (sign, has_currency) {
            (None, true) => split_sign(rest),
            _ => (sign, rest),
        };
        let (integer, rest) = self.split_integer(rest)?;
        if has_currency && integer.is_empty() {
            return None;
        }
        let (fraction, rest) = match rest.strip_prefix(self.decimal) {
            Some(rest) => split_digits(rest),
            None => ("", rest),
        };
        let (exponent, rest) = split_exponent(rest);
        let has_digits = !integer.is_empty() || !fraction.is_empty();
        let has_ended = rest.is_empty() || (!has_currency && self.is_currency(rest));
        (has_digits && has_ended).then_some(Number {
            is_negative: sign == Some('-'),
            integer,
            fraction,
            exponent,
        })
    }

    /// Skips a currency and the blank after it.
    fn skip_currency<'a>(&self, text: &'a str) -> (bool, &'a str) {
        let mut currency = self.currency.iter();
        match currency.find_map(|currency| text.strip_prefix(currency.as_str())) {
            Some(rest) => (true, rest.strip_prefix(is_blank).unwrap_or(rest)),
            None => (false, text),
        }
    }

    /// Whether a text is a currency, with an optional blank before it.
    fn is_currency(&self, text: &str) -> bool {
        let text = text.strip_prefix(is_blank).unwrap_or(text);
        self.currency.iter().any(|currency| currency == text)
    }

    /// Splits off the digits before the decimal mark, with their thousands marks. `None` if the
    /// groups are wrong.
    fn split_integer<'a>(&self, text: &'a str) -> Option<(&'a str, &'a str)> {
        let (first, mut rest) = split_digits(text);
        let Some(mark) = self.thousands else {
            return Some((first, rest));
        };
        let may_be_blank = is_blank(mark);
        let is_mark = |text: char| text == mark || (may_be_blank && is_blank(text));
        // A mark without a digit after it is not part of the number: it may be the blank before a
        // currency.
        while let Some(group) = rest.strip_prefix(is_mark)
            && group.starts_with(|character: char| character.is_ascii_digit())
        {
            let (digits, after) = split_digits(group);
            if digits.len() != 3 {
                return None;
            }
            rest = after;
        }
        let integer = &text[..text.len() - rest.len()];
        let has_groups = integer.len() > first.len();
        let is_group = matches!(first.len(), 1..=3) && !first.starts_with('0');
        (!has_groups || is_group).then_some((integer, rest))
    }

    /// The fault of a text that is not a number of this type.
    pub(super) fn wrong_type(&self, kind: &str) -> Fault {
        let decimal = self.decimal;
        let mut message = format!("expected {kind}: digits with the decimal mark `{decimal}`");
        self.describe_marks(&mut message);
        Fault::wrong_type(message)
    }

    fn describe_marks(&self, message: &mut String) {
        if let Some(mark) = self.thousands {
            let mark = mark_name(mark);
            message.push_str(&format!(", with {mark} or nothing between thousands"));
        }
        if !self.currency.is_empty() {
            let currency = self.currency.iter().map(String::as_str);
            let currency = listed(currency, " or ", WORD_CHARS);
            message.push_str(&format!(", with {currency} or nothing before or after it"));
        }
    }
}

/// The parts of a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    is_negative: bool,
    /// The digits before the decimal mark, with their thousands marks.
    integer: &'a str,
    /// The digits after the decimal mark.
    fraction: &'a str,
    exponent: i64,
}

impl Number<'_> {
    pub(super) fn is_zero(&self) -> bool {
        self.digits().all(|digit| digit == '0')
    }

    /// All digits, without marks.
    fn digits(&self) -> impl Iterator<Item = char> {
        let characters = self.integer.chars().chain(self.fraction.chars());
        characters.filter(char::is_ascii_digit)
    }

    /// Appends the number as Rust parses a float: without thousands marks, and with `.` as the
    /// decimal mark.
    pub(super) fn push_float(&self, out: &mut String) {
        if self.is_negative {
            out.push('-');
        }
        out.extend(self.integer.chars().filter(char::is_ascii_digit));
        out.push('.');
        out.push_str(self.fraction);
        if self.exponent != 0 {
            let _: fmt::Result = write!(out, "e{}", self.exponent);
        }
    }

    /// Appends the number if it is short and has neither an exponent nor thousands marks. Most
    /// numbers are like this.
    fn push_plain(&self, out: &mut String) -> bool {
        let is_plain = self.exponent == 0
            && self.integer.len() <= 100
            && self.fraction.len() <= 100
            && self.integer.bytes().all(|byte| byte.is_ascii_digit());
        if is_plain {
            let integer = self.integer.trim_start_matches('0');
            if self.is_negative && !self.is_zero() {
                out.push('-');
            }
            out.push_str(if integer.is_empty() { "0" } else { integer });
            if !self.fraction.is_empty() {
                out.push('.');
                out.push_str(self.fraction);
            }
        }
        is_plain
    }

    /// Appends the number without its exponent.
    fn push_expanded(&self, out: &mut String) -> Result<(), Fault> {
        let integer_digits = self.integer.chars().filter(char::is_ascii_digit).count() as i64;
        let digits = integer_digits + self.fraction.len() as i64;
        let leading_zeros = self.digits().take_while(|digit| *digit == '0').count() as i64;
        let is_zero = leading_zeros == digits;
        // The number of digits before the decimal mark. It may be negative, or more than `digits`.
        let mark = integer_digits + self.exponent;
        let (zeros_before_digits, zeros_after_digits) = ((-mark).max(0), (mark - digits).max(0));
        let digits_before = match is_zero {
            true => 0,
            false => (mark - leading_zeros).max(0),
        };
        let digits_after = (digits - mark).max(0);
        if zeros_before_digits.max(zeros_after_digits) > MAX_ZEROS_OF_EXPONENT {
            let max = MAX_ZEROS_OF_EXPONENT;
            let message = format!("the exponent adds more than {max} zeros to the number");
            return Err(Fault::out_of_range(message));
        }
        if digits_before > MAX_DIGITS_BEFORE || digits_after > MAX_DIGITS_AFTER {
            return Err(Fault::out_of_range(format!(
                "the number has more than {MAX_DIGITS_BEFORE} digits before the decimal mark, or more than {MAX_DIGITS_AFTER} after it"
            )));
        }
        if self.is_negative && !is_zero {
            out.push('-');
        }
        let mut rest = self.digits().skip(mark.clamp(0, leading_zeros) as usize);
        match digits_before {
            0 => out.push('0'),
            _ => {
                out.extend(rest.by_ref().take(digits_before as usize));
                out.extend(repeat_n('0', zeros_after_digits as usize));
            }
        }
        if digits_after > 0 {
            out.push('.');
            out.extend(repeat_n('0', zeros_before_digits as usize));
            out.extend(rest);
        }
        Ok(())
    }
}

/// Converts a whole number.
pub(super) fn integer(rules: &NumberRules, text: &str, out: &mut String) -> Result<(), Fault> {
    let (sign, rest) = split_sign(text);
    let is_negative = sign == Some('-');
    let digits = match rules.split_integer(rest) {
        Some((digits, "")) if !digits.is_empty() => digits,
        _ => {
            let mut message = "expected an integer: digits without a decimal mark".to_owned();
            rules.describe_marks(&mut message);
            return Err(Fault::wrong_type(message));
        }
    };
    let mut digits = digits.bytes().filter(u8::is_ascii_digit);
    let value = digits.try_fold(0_i64, |value, digit| {
        let (value, digit) = (value.checked_mul(10)?, i64::from(digit - b'0'));
        match is_negative {
            true => value.checked_sub(digit),
            false => value.checked_add(digit),
        }
    });
    let Some(value) = value else {
        let message = "the integer is not between -9223372036854775808 and 9223372036854775807";
        return Err(Fault::out_of_range(message));
    };
    out.push_str(itoa::Buffer::new().format(value));
    Ok(())
}

/// Converts a decimal number.
pub(super) fn numeric(rules: &NumberRules, text: &str, out: &mut String) -> Result<(), Fault> {
    let number = rules.parse(text);
    let number = number.ok_or_else(|| rules.wrong_type("a numeric value"))?;
    match number.push_plain(out) {
        true => Ok(()),
        false => number.push_expanded(out),
    }
}

fn split_sign(text: &str) -> (Option<char>, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (Some('-'), &text[1..]),
        Some(b'+') => (Some('+'), &text[1..]),
        _ => (None, text),
    }
}

pub(super) fn split_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(end)
}

/// Splits off an exponent. An `e` without digits after it is not an exponent.
pub(super) fn split_exponent(text: &str) -> (i64, &str) {
    let Some(exponent) = text.strip_prefix(['e', 'E']) else {
        return (0, text);
    };
    let (sign, exponent) = split_sign(exponent);
    let (digits, rest) = split_digits(exponent);
    if digits.is_empty() {
        return (0, text);
    }
    let value = digits.bytes().fold(0_i64, |value, digit| {
        let value = value * 10 + i64::from(digit - b'0');
        value.min(EXPONENT_CAP)
    });
    match sign {
        Some('-') => (-value, rest),
        _ => (value, rest),
    }
}

/// A thousands mark in a message. Blanks look alike, so they have names.
fn mark_name(mark: char) -> String {
    match mark {
        mark if is_blank(mark) => "a blank".to_owned(),
        mark if mark.is_whitespace() => format!("the character U+{:04X}", u32::from(mark)),
        mark => format!("`{mark}`"),
    }
}

/// The blanks that locales write between groups of digits, and between a number and its currency.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\u{a0}' | '\u{202f}')
}
