use jiff::civil::{Date, DateTime, Time};
use jiff::{SignedDuration, ToSpan};
use proptest::prelude::*;

use super::*;

fn fault(format: &str) -> String {
    TimeFormat::compile(format).unwrap_err()
}

fn parse(format: &str, text: &str) -> Option<ParsedTime> {
    TimeFormat::compile(format).unwrap().parse(text)
}

/// Hour to microsecond of a time of day on the first of February 2024.
fn time_of_day(format: &str, text: &str) -> Option<[u32; 4]> {
    let time = parse(&format!("%F {format}"), &format!("2024-02-01 {text}"))?;
    assert_eq!([time.year, time.month, time.day], [2024, 2, 1]);
    Some([time.hour, time.minute, time.second, time.microsecond])
}

fn day(format: &str, text: &str) -> Option<[u32; 3]> {
    parse(format, text).map(|time| [time.year, time.month, time.day])
}

#[test]
fn the_fault_of_a_format_says_what_to_change() {
    for (format, message) in [
        ("", "empty"),
        (" %F", "begin or end with a blank"),
        ("%F\t", "begin or end with a blank"),
        ("%F %", "single `%`"),
        ("%Y-%q-%d", "unknown directive `%q`"),
        ("%-d/%m/%Y", "unknown directive `%-`"),
        ("%é", "unknown directive `%é`"),
        ("%Y-%m-%d %y", "the year is given twice"),
        ("%D %b", "the month is given twice"),
        ("%F %I:%M %H %p", "the hour is given twice"),
        ("%d/%m", "the year is missing"),
        ("%m/%Y", "the day is missing"),
        ("%Y-%d", "the month is missing"),
        ("%Y", "the month is missing"),
        ("%T", "the year is missing"),
        ("%Y-%m-%j", "`%j` gives the month and the day already"),
        ("%F %H %p", "`%I` and `%p` need each other"),
        ("%F %I", "`%I` and `%p` need each other"),
        ("%F %M", "a minute needs an hour"),
        ("%F %H %S", "a second needs a minute"),
        ("%F %H:%M %f", "a fraction needs a second"),
        ("%F %z", "a zone needs an hour"),
        ("%F %H%z%M", "a digit must not follow `%z`"),
    ] {
        let fault = fault(format);
        assert!(fault.contains(message), "{format}: {fault}");
    }
}

#[test]
fn a_date_has_no_time_and_other_types_have_no_format() {
    assert_eq!(check_format(ColumnType::Date, "%d/%m/%Y"), Ok(()));
    assert_eq!(check_format(ColumnType::Timestamp, "%d/%m/%Y"), Ok(()));
    assert_eq!(check_format(ColumnType::Timestamp, "%FT%T%z"), Ok(()));
    let message = check_format(ColumnType::Date, "%F %H:%M").unwrap_err();
    assert!(message.contains("use the type timestamp"));
    let message = check_format(ColumnType::Integer, "%F").unwrap_err();
    assert_eq!(message, "a column of type integer has no format");
    assert!(check_format(ColumnType::Date, "%d").is_err());
}

#[test]
fn a_day_is_read_by_its_format() {
    for (format, text, expected) in [
        ("%d/%m/%Y", "31/12/2024", [2024, 12, 31]),
        ("%d/%m/%Y", "1/2/2024", [2024, 2, 1]),
        ("%Y%m%d", "20240229", [2024, 2, 29]),
        ("%d.%m.%y", "01.02.68", [2068, 2, 1]),
        ("%d.%m.%y", "01.02.69", [1969, 2, 1]),
        ("%D", "7/14/24", [2024, 7, 14]),
        ("%d %b %Y", "03 MAY 2024", [2024, 5, 3]),
        ("%B %d, %Y", "september 9, 2024", [2024, 9, 9]),
        ("%d de %B de %Y", "9 de June de 2024", [2024, 6, 9]),
        ("%Y-%j", "2024-060", [2024, 2, 29]),
        ("%Y-%j", "2023-60", [2023, 3, 1]),
        ("%Y-%j", "2024-366", [2024, 12, 31]),
        ("%F%%", "0000-01-01%", [0, 1, 1]),
    ] {
        assert_eq!(day(format, text), Some(expected), "{format}: {text}");
    }
}

#[test]
fn a_text_without_the_format_or_without_an_existing_day_is_not_read() {
    for (format, text) in [
        ("%d/%m/%Y", "30/02/2024"),
        ("%d/%m/%Y", "29/02/2023"),
        ("%d/%m/%Y", "29/02/1900"),
        ("%d/%m/%Y", "31/04/2024"),
        ("%d/%m/%Y", "00/01/2024"),
        ("%d/%m/%Y", "01/00/2024"),
        ("%d/%m/%Y", "01/13/2024"),
        ("%d/%m/%Y", "1/2/24"),
        ("%d/%m/%Y", "001/02/2024"),
        ("%d/%m/%Y", "01/02/20245"),
        ("%d/%m/%Y", "01/02/+202"),
        ("%d/%m/%Y", "01-02-2024"),
        ("%d/%m/%Y", " 1/02/2024"),
        ("%d/%m/%Y", "01/ 2/2024"),
        ("%d/%m/%Y", ""),
        ("%d/%m/%Y", "é"),
        ("%d %b %Y", "03  May 2024"),
        ("%d %b %Y", "03 June 2024"),
        ("%d %B %Y", "03 Jun 2024"),
        ("%d %b %Y", "03 fév 2024"),
        ("%d.%m.%y", "01.02.2024"),
        ("%Y%m%d", "2024122"),
        ("%j%Y", "602024"),
        ("%Y-%j", "2023-366"),
        ("%Y-%j", "2024-0"),
        ("%Y-%j", "2024-367"),
    ] {
        assert_eq!(day(format, text), None, "{format}: {text}");
    }
}

#[test]
fn a_time_of_day_is_read_by_its_format() {
    for (format, text, expected) in [
        ("%T", "03:04:05", [3, 4, 5, 0]),
        ("%H:%M", "3:04", [3, 4, 0, 0]),
        ("%H%M", "0304", [3, 4, 0, 0]),
        ("%I:%M %p", "12:00 am", [0, 0, 0, 0]),
        ("%I:%M %p", "12:59 PM", [12, 59, 0, 0]),
        ("%I%p", "1Pm", [13, 0, 0, 0]),
        ("%T.%f", "03:04:05.5", [3, 4, 5, 500_000]),
        ("%T,%f", "03:04:05,000001000", [3, 4, 5, 1]),
        ("%H%M%S%f", "030405123", [3, 4, 5, 123_000]),
        ("%f %H%M%S", "1 030405", [3, 4, 5, 100_000]),
        ("%S%f%H%M", "050000010304", [3, 4, 5, 1]),
    ] {
        let found = time_of_day(format, text);
        assert_eq!(found, Some(expected), "{format}: {text}");
    }
}

#[test]
fn a_time_of_day_that_does_not_exist_or_has_another_form_is_not_read() {
    for (format, text) in [
        ("%T", "24:00:00"),
        ("%T", "00:60:00"),
        ("%T", "00:00:60"),
        ("%T", "00:00:5"),
        ("%H:%M", "3:4"),
        ("%H%M", "304"),
        ("%I%p", "0AM"),
        ("%I%p", "13PM"),
        ("%I%p", "1XM"),
        ("%I%p", "1é"),
        ("%T.%f", "03:04:05."),
        ("%S%f%H%M", "0500001é304"),
    ] {
        assert_eq!(time_of_day(format, text), None, "{format}: {text}");
    }
}

#[test]
fn only_a_digit_other_than_zero_beyond_the_sixth_makes_a_time_finer() {
    let is_finer = |text: &str| parse("%F %T.%f", text).unwrap().is_finer;
    assert!(!is_finer("2024-02-01 03:04:05.1234560000000"));
    assert!(is_finer("2024-02-01 03:04:05.1234560000001"));
    assert!(is_finer("2024-02-01 03:04:05.0000001"));
}

#[test]
fn a_zone_is_read_in_each_of_its_forms() {
    for (text, minutes) in [
        ("Z", Some(0)),
        ("z", Some(0)),
        ("+00:00", Some(0)),
        ("-03:30", Some(-210)),
        ("-0330", Some(-210)),
        ("+14", Some(840)),
        ("+23:59", Some(1439)),
        ("", None),
        ("3", None),
        ("+3", None),
        ("+03:", None),
        ("+033", None),
        ("+03:3", None),
        ("+24:00", None),
        ("+03:60", None),
        ("UTC", None),
        ("−03:00", None),
    ] {
        let time = parse("%F %H:%M%z", &format!("2024-02-01 03:04{text}"));
        assert_eq!(time.map(|time| time.offset_minutes), minutes, "{text}");
    }
}

fn civil(time: &ParsedTime) -> DateTime {
    let date = Date::new(time.year as i16, time.month as i8, time.day as i8).unwrap();
    let nanosecond = time.microsecond as i32 * 1000;
    let (hour, minute, second) = (time.hour as i8, time.minute as i8, time.second as i8);
    let time = Time::new(hour, minute, second, nanosecond).unwrap();
    DateTime::from_parts(date, time)
}

/// Any second of the years `first` to `last`.
fn times(first: i16, last: i16) -> impl Strategy<Value = DateTime> {
    let days = i64::from(last - first + 1) * 366;
    (0..days, 0..86_400_i64).prop_filter_map("a later year", move |(day, second)| {
        let start = Date::new(first, 1, 1).unwrap();
        let date = start.checked_add(day.days()).ok()?;
        let midnight = (date.year() <= last).then(|| date.at(0, 0, 0, 0))?;
        midnight.checked_add(SignedDuration::from_secs(second)).ok()
    })
}

/// The directives of one complete date, and perhaps of a time of day and a zone, in any order and
/// with any separators between them.
fn formats() -> impl Strategy<Value = Vec<&'static str>> {
    let date = prop_oneof![
        Just(vec!["%Y", "%m", "%d"]),
        Just(vec!["%Y", "%B", "%d"]),
        Just(vec!["%y", "%b", "%d"]),
        Just(vec!["%y", "%j"]),
    ];
    let time = prop_oneof![
        Just(Vec::<&str>::new()),
        Just(vec!["%H"]),
        Just(vec!["%I", "%p", "%M", "%z"]),
        Just(vec!["%I", "%p", "%M", "%S", "%f"]),
        Just(vec!["%H", "%M", "%S", "%f", "%z"]),
    ];
    let directives = (date, time).prop_map(|(date, time)| [date, time].concat());
    let separator = prop::sample::select(vec!["", "/", "-", ".", ":", " ", ", ", "T", "0", "%%"]);
    let separators = prop::collection::vec(separator, 8);
    (directives.prop_shuffle(), separators).prop_map(|(directives, separators)| {
        let pairs = separators.into_iter().zip(directives);
        let items = pairs.flat_map(|(separator, directive)| [separator, directive]);
        items.skip(1).collect()
    })
}

/// The text of one item of a format.
fn written(item: &str, time: DateTime, microsecond: u32, offset: i32) -> String {
    match item {
        "%f" => format!("{microsecond:06}"),
        "%z" => {
            let sign = if offset < 0 { '-' } else { '+' };
            let minutes = offset.abs();
            format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
        }
        item => time.strftime(item).to_string(),
    }
}

/// The time that is read from these items: the parts that have no directive are 0.
fn expected(items: &[&str], time: DateTime, microsecond: u32, offset: i32) -> ParsedTime {
    let part = |directives: &[&str], value: i8| {
        let is_given = directives.iter().any(|directive| items.contains(directive));
        if is_given { value as u32 } else { 0 }
    };
    ParsedTime {
        year: time.year() as u32,
        month: time.month() as u32,
        day: time.day() as u32,
        hour: part(&["%H", "%I"], time.hour()),
        minute: part(&["%M"], time.minute()),
        second: part(&["%S"], time.second()),
        microsecond: microsecond * part(&["%f"], 1),
        is_finer: false,
        offset_minutes: offset * part(&["%z"], 1) as i32,
    }
}

proptest! {
    #[test]
    fn a_time_that_jiff_writes_is_read_back(time in times(1, 9998)) {
        for format in ["%F %T", "%Y%m%d%H%M%S", "%d/%b/%Y %I.%M.%S %p", "%H:%M:%S on %B %d, %Y", "%Y-%jT%T"] {
            let text = time.strftime(format).to_string();
            let read = parse(format, &text);
            prop_assert_eq!(read.as_ref().map(civil), Some(time), "{}: {}", format, text);
        }
    }

    #[test]
    fn a_year_of_two_digits_is_read_back(time in times(1969, 2068)) {
        for format in ["%D", "%y%m%d"] {
            let text = time.strftime(format).to_string();
            let read = parse(format, &text);
            prop_assert_eq!(read.as_ref().map(civil), Some(time.date().at(0, 0, 0, 0)), "{}: {}", format, text);
        }
    }

    #[test]
    fn a_time_is_moved_to_utc_as_jiff_moves_it(time in times(1, 9998), offset in -1439_i32..1440) {
        let parsed = ParsedTime { offset_minutes: offset, ..parse("%F %T", &time.strftime("%F %T").to_string()).unwrap() };
        let expected = time.checked_sub(offset.minutes()).ok().filter(|time| time.year() >= 1);
        let utc = parsed.to_utc();
        prop_assert_eq!(utc.as_ref().map(civil), expected);
        prop_assert_eq!(utc.map_or(0, |utc| utc.offset_minutes), 0);
    }

    #[test]
    fn a_time_is_read_back_from_any_format_and_with_another_character_it_exists_or_is_not_read(
        items in formats(),
        (time, microsecond, offset) in (times(1969, 2068), 0_u32..1_000_000, -1439_i32..1440),
        (position, character) in (any::<prop::sample::Index>(), prop_oneof!["[0-9]", "\\PC"]),
    ) {
        let format = match TimeFormat::compile(&items.concat()) {
            Ok(format) => format,
            Err(fault) => {
                prop_assert!(fault.contains("must not follow `%z`"), "{}", fault);
                return Ok(());
            }
        };
        let text = items.iter().map(|item| written(item, time, microsecond, offset));
        let mut text: String = text.collect();
        let expected = expected(&items, time, microsecond, offset);
        prop_assert_eq!(format.parse(&text), Some(expected), "{:?}: {}", items, text);
        let at = position.index(text.len());
        text.replace_range(at..=at, &character);
        if let Some(time) = format.parse(&text) {
            prop_assert!(time.is_valid(), "{:?}: {}", items, text);
            prop_assert!(time.to_utc().is_none_or(|utc| utc.is_valid()));
        }
    }
}

#[test]
fn a_time_outside_of_the_years_1_to_9999_has_no_utc() {
    for (text, expected) in [
        ("0000-12-31 23:59Z", None),
        ("0000-12-31 23:30-00:30", Some([1, 1, 1, 0, 0])),
        ("0001-01-01 00:00+00:01", None),
        ("0000-01-01 00:00+00:01", None),
        ("9999-12-31 23:59Z", Some([9999, 12, 31, 23, 59])),
        ("9999-12-31 23:59-00:01", None),
        ("2024-03-01 01:00+02", Some([2024, 2, 29, 23, 0])),
        ("2023-12-31 23:00-02", Some([2024, 1, 1, 1, 0])),
    ] {
        let utc = parse("%F %H:%M%z", text).unwrap().to_utc();
        let utc = utc.map(|time| [time.year, time.month, time.day, time.hour, time.minute]);
        assert_eq!(utc, expected, "{text}");
    }
}
