//! Dates and timestamps as Postgres counts them, from 2000-01-01 UTC.

const MICROSECONDS_PER_SECOND: i64 = 1_000_000;

/// The days from the first of March in the year 0 to 2000-01-01.
const DAYS_BEFORE_2000: i32 = 730_425;

/// The days from 2000-01-01 to the date `YYYY-MM-DD`. Returns `None` if the text is not such a
/// date.
pub(super) fn days(text: &str) -> Option<i32> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else {
        return None;
    };
    let (year, month, day) = (
        number(&[y1, y2, y3, y4])?,
        number(&[m1, m2])?,
        number(&[d1, d2])?,
    );
    let is_date = year >= 1 && (1..=days_of(year, month)?).contains(&day);
    is_date.then(|| days_to(year, month, day))
}

/// The microseconds from 2000-01-01 UTC to the timestamp `YYYY-MM-DDTHH:MM:SS.ffffffZ`. Returns
/// `None` if the text is not such a timestamp.
pub(super) fn microseconds(text: &str) -> Option<i64> {
    let (date, time) = text.split_at_checked("YYYY-MM-DD".len())?;
    let &[
        b'T',
        h1,
        h2,
        b':',
        m1,
        m2,
        b':',
        s1,
        s2,
        b'.',
        ref fraction @ ..,
        b'Z',
    ] = time.as_bytes()
    else {
        return None;
    };
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?);
    if hour > 23 || minute > 59 || second > 59 || fraction.len() != 6 {
        return None;
    }
    let hours = i64::from(days(date)?) * 24 + i64::from(hour);
    let seconds = (hours * 60 + i64::from(minute)) * 60 + i64::from(second);
    Some(seconds * MICROSECONDS_PER_SECOND + i64::from(number(fraction)?))
}

/// The value of a few decimal digits.
fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |value: i32, digit| {
        let is_digit = digit.is_ascii_digit();
        is_digit.then(|| value * 10 + i32::from(digit - b'0'))
    })
}

fn days_of(year: i32, month: i32) -> Option<i32> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 if is_leap => Some(29),
        2 => Some(28),
        _ => None,
    }
}

/// The days from 2000-01-01. Years begin in March here, so that the leap day is the last day of a
/// year, and the lengths of the months follow one formula.
fn days_to(year: i32, month: i32, day: i32) -> i32 {
    let year = if month < 3 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - DAYS_BEFORE_2000
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::Date;

    #[test]
    fn dates_are_counted_in_days_from_2000() {
        for (text, expected) in [
            ("0001-01-01", -730_119),
            ("1900-02-28", -36_466),
            ("1999-12-31", -1),
            ("2000-01-01", 0),
            ("2000-03-01", 60),
            ("2024-02-29", 8825),
            ("9999-12-31", 2_921_939),
        ] {
            assert_eq!(days(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn every_year_has_its_leap_day_and_no_other() {
        let start = Date::constant(2000, 1, 1);
        for year in 1..=9999 {
            for (month, day) in [(1, 1), (2, 28), (2, 29), (3, 1), (12, 31)] {
                let date = Date::new(year, month, day).ok();
                let expected = date.map(|date| start.until(date).unwrap().get_days());
                let text = format!("{year:04}-{month:02}-{day:02}");
                assert_eq!(days(&text), expected, "{text}");
            }
        }
    }

    #[test]
    fn timestamps_are_counted_in_microseconds_from_2000() {
        for (text, expected) in [
            ("0001-01-01T00:00:00.000000Z", -63_082_281_600_000_000),
            ("1999-12-31T23:59:59.999999Z", -1),
            ("2000-01-01T00:00:00.000000Z", 0),
            ("2024-02-29T12:34:56.789012Z", 762_525_296_789_012),
            ("9999-12-31T23:59:59.999999Z", 252_455_615_999_999_999),
        ] {
            assert_eq!(microseconds(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_date_that_does_not_exist_is_a_fault() {
        for text in [
            "",
            "0000-01-01",
            "1900-02-29",
            "2023-02-29",
            "2024-04-31",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "2024-1-1",
            "2024/01/01",
            "20240101",
            "12024-01-01",
            "2024-01-01 ",
        ] {
            assert_eq!(days(text), None, "{text}");
        }
    }

    #[test]
    fn a_timestamp_that_does_not_exist_is_a_fault() {
        for text in [
            "2024-01-01",
            "2024-01-01T24:00:00.000000Z",
            "2024-01-01T00:60:00.000000Z",
            "2024-01-01T00:00:60.000000Z",
            "2024-01-01T00:00:00.00000Z",
            "2024-01-01T00:00:00.0000000Z",
            "2024-01-01T00:00:00Z",
            "2024-01-01T00:00:00.000000",
            "2024-01-01 00:00:00.000000Z",
            "2023-02-29T00:00:00.000000Z",
        ] {
            assert_eq!(microseconds(text), None, "{text}");
        }
    }
}
