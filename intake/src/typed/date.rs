//! Days.
//!
//! A day is `YYYY-MM-DD`, with exactly these digits, or has the format that the definition
//! declares. A day that does not exist is never moved to another one: `30/02` is not March.

use carga_common::dataset::time_format::{ParsedTime, TimeFormat, read_digits};

use super::Fault;
use super::wording::cut;

/// The most characters of a format in a message.
const FORMAT_CHARS: usize = 100;

/// A format that the definition declares.
#[derive(Debug, Clone)]
pub(super) struct DeclaredFormat {
    /// The beginning of the format, for messages.
    text: String,
    /// `None` if the format is faulty, so that no text has it. A definition has no faulty format.
    compiled: Option<TimeFormat>,
}

impl DeclaredFormat {
    pub(super) fn new(format: &str) -> Self {
        Self {
            text: cut(format, FORMAT_CHARS).into_owned(),
            compiled: TimeFormat::compile(format).ok(),
        }
    }

    pub(super) fn parse(&self, text: &str) -> Option<ParsedTime> {
        self.compiled.as_ref()?.parse(text)
    }
}

/// The fault of a text that does not have the declared format, or the default form if no format is
/// declared.
pub(super) fn wrong_type(declared: Option<&DeclaredFormat>, kind: &str, default: &str) -> Fault {
    let form = declared.map_or(default, |format| format.text.as_str());
    Fault::wrong_type(format!("expected {kind} that exists, as `{form}`"))
}

/// Converts a day.
pub(super) fn canonical(
    format: Option<&DeclaredFormat>,
    text: &str,
    out: &mut String,
) -> Result<(), Fault> {
    let day = match format {
        Some(format) => format.parse(text),
        None => parse(text),
    };
    let Some(day) = day else {
        return Err(wrong_type(format, "a date", "YYYY-MM-DD"));
    };
    if day.year == 0 {
        return Err(Fault::out_of_range("the date is before 0001-01-01"));
    }
    push_date(&day, out);
    Ok(())
}

fn parse(text: &str) -> Option<ParsedTime> {
    let (day, rest) = read_date(text)?;
    (rest.is_empty() && day.is_valid()).then_some(day)
}

/// Reads `YYYY-MM-DD` from the beginning of a text, and returns the text after it. The day need not
/// exist.
pub(super) fn read_date(text: &str) -> Option<(ParsedTime, &str)> {
    let (year, rest) = read_digits(text, 4, 4)?;
    let (month, rest) = read_digits(rest.strip_prefix('-')?, 2, 2)?;
    let (day, rest) = read_digits(rest.strip_prefix('-')?, 2, 2)?;
    let midnight = ParsedTime {
        year,
        month,
        day,
        ..ParsedTime::default()
    };
    Some((midnight, rest))
}

pub(super) fn push_date(time: &ParsedTime, out: &mut String) {
    push_digits(out, time.year, 4);
    out.push('-');
    push_digits(out, time.month, 2);
    out.push('-');
    push_digits(out, time.day, 2);
}

/// Appends a number with leading zeros. The number must not have more than `digits` digits.
pub(super) fn push_digits(out: &mut String, number: u32, digits: u32) {
    for place in (0..digits).rev() {
        let digit = number / 10_u32.pow(place) % 10;
        out.push(char::from(b'0' + digit as u8));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::typed::canonical;
    use crate::typed::tests::{Outcome, assert_outcomes, convert, rules};

    fn days_in_month(year: u32, month: u32) -> u32 {
        match month {
            2 if year.is_multiple_of(400) => 29,
            2 if year.is_multiple_of(4) && !year.is_multiple_of(100) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    #[test]
    fn a_day_has_exactly_the_default_form() {
        const WRONG: Outcome = Err("wrong_type");
        let cases = [
            ("2024-02-29", Ok(Some("2024-02-29"))),
            ("0001-01-01", Ok(Some("0001-01-01"))),
            ("9999-12-31", Ok(Some("9999-12-31"))),
            ("0000-12-31", Err("out_of_range")),
            ("2023-02-29", WRONG),
            ("2024-02-30", WRONG),
            ("2024-13-01", WRONG),
            ("2024-1-01", WRONG),
            ("10000-01-01", WRONG),
            ("-2024-01-01", WRONG),
            ("2024-01-01 ", Ok(Some("2024-01-01"))),
            ("2024-01-01T00:00", WRONG),
            ("2024/01/01", WRONG),
            ("20240101", WRONG),
            ("today", WRONG),
            ("２０２４-01-01", WRONG),
        ];
        assert_outcomes(r#""type":"date""#, &cases);
    }

    #[test]
    fn the_message_has_the_beginning_of_a_long_format() {
        let message = |format: &str| {
            let rules = rules(&format!(r#""type":"date","format":"{format}""#));
            let fault = canonical(&rules, "soon", &mut String::new());
            fault.unwrap_err().message
        };
        assert_eq!(
            message("%d/%m/%Y"),
            "expected a date that exists, as `%d/%m/%Y`"
        );
        let long = message(&format!("%d/%m/%Y{}", "é".repeat(100_000)));
        assert!(long.ends_with("éé…`") && long.len() < 300, "{long}");
    }

    proptest! {
        #[test]
        fn any_existing_day_is_converted_and_no_other(year in 1_u32..10_000, month in 1_u32..14, day in 0_u32..34) {
            let exists = month <= 12 && (1..=days_in_month(year, month)).contains(&day);
            let canonical = format!("{year:04}-{month:02}-{day:02}");
            let expected = if exists { Ok(Some(canonical.clone())) } else { Err("wrong_type") };
            prop_assert_eq!(convert(&rules(r#""type":"date""#), &canonical), expected.clone());
            let rules = rules(r#""type":"date","format":"%d/%m/%Y""#);
            prop_assert_eq!(convert(&rules, &format!("{day:02}/{month:02}/{year:04}")), expected.clone());
            prop_assert_eq!(convert(&rules, &format!(" {day}/{month}/{year:04}")), expected);
        }
    }
}
