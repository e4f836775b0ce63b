//! Points in time.
//!
//! A timestamp is a date, `T` or one blank, and `HH:MM`, `HH:MM:SS` or `HH:MM:SS.fraction`. A zone
//! may follow, directly or after one blank: `Z`, `±HH:MM`, `±HHMM` or `±HH`. A time without a zone
//! is UTC, and a date alone is midnight. `T` and `Z` may be in lower case, as RFC 3339 says. A
//! format that the definition declares replaces all this.
//!
//! Second 60 and hour 24 are not accepted, because Postgres would move them to the next minute and
//! day. A fraction finer than a microsecond is out of range, because it would be rounded.

use carga_common::dataset::time_format::{ParsedTime, read_digits};

use super::Fault;
use super::date::{DeclaredFormat, push_date, push_digits, read_date, wrong_type};

/// The default form, for messages. Parts in brackets may be missing.
const DEFAULT_FORM: &str = "YYYY-MM-DD[THH:MM[:SS[.fraction]][zone]]";

/// Converts a point in time.
pub(super) fn canonical(
    format: Option<&DeclaredFormat>,
    text: &str,
    out: &mut String,
) -> Result<(), Fault> {
    let time = match format {
        Some(format) => format.parse(text),
        None => parse(text),
    };
    let Some(time) = time else {
        return Err(wrong_type(format, "a timestamp", DEFAULT_FORM));
    };
    if time.is_finer {
        let message = "the timestamp is finer than a microsecond";
        return Err(Fault::out_of_range(message));
    }
    let Some(utc) = time.to_utc() else {
        let message = "the timestamp is not between 0001-01-01 and 9999-12-31 in UTC";
        return Err(Fault::out_of_range(message));
    };
    push_utc(&utc, out);
    Ok(())
}

fn parse(text: &str) -> Option<ParsedTime> {
    let (mut time, rest) = read_date(text)?;
    if !rest.is_empty() {
        let rest = read_time_of_day(&mut time, rest.strip_prefix(['T', 't', ' '])?)?;
        let zone = rest.strip_prefix(' ').unwrap_or(rest);
        if !rest.is_empty() && !time.read_offset(zone)?.is_empty() {
            return None;
        }
    }
    time.is_valid().then_some(time)
}

/// Reads a time of day from the beginning of a text, and returns the text after it.
fn read_time_of_day<'a>(time: &mut ParsedTime, text: &'a str) -> Option<&'a str> {
    let (hour, rest) = read_digits(text, 2, 2)?;
    let (minute, rest) = read_digits(rest.strip_prefix(':')?, 2, 2)?;
    (time.hour, time.minute) = (hour, minute);
    let Some(rest_of_time) = rest.strip_prefix(':') else {
        return Some(rest);
    };
    let (second, rest) = read_digits(rest_of_time, 2, 2)?;
    time.second = second;
    match rest.strip_prefix('.') {
        Some(fraction) => time.read_fraction(fraction),
        None => Some(rest),
    }
}

fn push_utc(time: &ParsedTime, out: &mut String) {
    push_date(time, out);
    for (separator, number, digits) in [
        ('T', time.hour, 2),
        (':', time.minute, 2),
        (':', time.second, 2),
        ('.', time.microsecond, 6),
    ] {
        out.push(separator);
        push_digits(out, number, digits);
    }
    out.push('Z');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::typed::tests::{Outcome, assert_outcomes, convert, rules};

    const WRONG: Outcome = Err("wrong_type");
    const OUT: Outcome = Err("out_of_range");

    /// Cases whose good outcomes are times of 2024.
    fn assert_times(column: &str, cases: &[(&str, Result<&str, &'static str>)]) {
        let rules = rules(column);
        for (cell, expected) in cases {
            let expected = expected.map(|time| Some(format!("2024-{time}Z")));
            assert_eq!(convert(&rules, cell), expected, "{cell:?}");
        }
    }

    #[test]
    fn a_time_may_lack_its_seconds_its_zone_or_all() {
        let cases = [
            ("2024-02-29", Ok("02-29T00:00:00.000000")),
            ("2024-02-29T23:59", Ok("02-29T23:59:00.000000")),
            ("2024-02-29 23:59:58", Ok("02-29T23:59:58.000000")),
            ("2024-02-29t23:59:58.5z", Ok("02-29T23:59:58.500000")),
            ("2024-02-29 23:59:58.123456000", Ok("02-29T23:59:58.123456")),
            ("2024-02-29T23:59+01:30", Ok("02-29T22:29:00.000000")),
            ("2024-02-29T23:59:00-0130", Ok("03-01T01:29:00.000000")),
            ("2024-02-29 23:59 -01", Ok("03-01T00:59:00.000000")),
            ("2023-12-31 23:59:59.9 -01", Ok("01-01T00:59:59.900000")),
            ("2024-03-01 00:00 Z", Ok("03-01T00:00:00.000000")),
        ];
        assert_times(r#""type":"timestamp""#, &cases);
    }

    #[test]
    fn a_text_that_is_not_a_time_or_has_a_time_that_does_not_exist_is_wrong() {
        for cell in [
            "2024-02-30",
            "2023-02-29T00:00",
            "2024-02-29T24:00",
            "2024-02-29T23:60",
            "2024-02-29T23:59:60",
            "2024-02-29T23",
            "2024-02-29T2:59",
            "2024-02-29T23:59:5",
            "2024-02-29T23:59:58.",
            "2024-02-29T23:59:58,5",
            "2024-02-29T23:59.5",
            "2024-02-29  23:59",
            "2024-02-29_23:59",
            "2024-02-29T",
            "2024-02-29Z",
            "2024-02-29T23:59  Z",
            "2024-02-29T23:59Zx",
            "2024-02-29T23:59+1",
            "2024-02-29T23:59+01:",
            "2024-02-29T23:59+24:00",
            "2024-02-29T23:59 UTC",
            "20240229T235900Z",
            "29/02/2024",
            "now",
            "1709251199",
        ] {
            assert_outcomes(r#""type":"timestamp""#, &[(cell, WRONG)]);
        }
    }

    #[test]
    fn a_time_is_never_rounded_or_outside_of_four_digits_of_a_year() {
        let cases = [
            ("2024-02-29T23:59:58.1234567", OUT),
            ("2024-02-29T23:59:58.0000000000001", OUT),
            ("0001-01-01T00:00+00:01", OUT),
            ("9999-12-31T23:59-00:01", OUT),
            ("0000-06-01", OUT),
        ];
        assert_outcomes(r#""type":"timestamp""#, &cases);
    }

    #[test]
    fn a_declared_format_replaces_the_default_one() {
        let column = r#""type":"timestamp","format":"%d/%m/%Y %H:%M:%S.%f%z""#;
        let cases = [
            (" 29/02/2024 23:59:58.5Z", Ok("02-29T23:59:58.500000")),
            ("29/2/2024 23:59:58.25+0100", Ok("02-29T22:59:58.250000")),
            ("30/02/2024 23:59:58.5Z", Err("wrong_type")),
            ("2024-02-29T23:59:58Z", Err("wrong_type")),
            ("29/02/2024 23:59:58.0000001Z", Err("out_of_range")),
        ];
        assert_times(column, &cases);
        let column = r#""type":"timestamp","format":"%d.%m.%Y""#;
        assert_times(column, &[("1.2.2024", Ok("02-01T00:00:00.000000"))]);
    }

    proptest! {
        #[test]
        fn any_time_in_utc_is_converted_to_itself(
            (year, month, day) in (1_u32..10_000, 1_u32..13, 1_u32..29),
            (hour, minute, second) in (0_u32..24, 0_u32..60, 0_u32..60),
            microsecond in 0_u32..1_000_000,
        ) {
            let canonical = format!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{microsecond:06}Z"
            );
            let converted = convert(&rules(r#""type":"timestamp""#), &canonical);
            prop_assert_eq!(converted, Ok(Some(canonical)));
        }
    }
}
