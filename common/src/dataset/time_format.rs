//! The formats of dates and times, in the directives of `strptime`.
//!
//! A format is stricter than `strptime`, so that a cell has one meaning or none. A blank means
//! exactly one blank. `%Y` has four digits; `%y`, `%M` and `%S` have two. The other numbers may
//! lack leading zeros, unless the format has a digit directly before or after them. `%y` means 1969
//! to 2068, as POSIX says. Names of months and `AM`/`PM` are English, in upper or lower case. `%f`
//! has any number of digits, or six if a digit follows. `%z` is `Z`, `±HH:MM`, `±HHMM` or `±HH`.

mod parsed;
#[cfg(test)]
mod tests;

pub use parsed::{ParsedTime, read_digits};

use super::column::ColumnType;
use parsed::{MICROSECOND_DIGITS, month_and_day, read_half, read_month};

/// The directives, for messages.
const DIRECTIVES: &str = "%Y %y %m %b %B %d %j %H %I %p %M %S %f %z %F %T %D %%";

/// Pairs of parts of a time, of which the first needs the second. The message is for a format
/// without the second.
const NEEDS: [(&str, &str, &str); 4] = [
    ("minute", "hour", "a minute needs an hour (`%H` or `%I`)"),
    ("second", "minute", "a second needs a minute (`%M`)"),
    ("fraction", "second", "a fraction needs a second (`%S`)"),
    ("zone", "hour", "a zone needs an hour (`%H` or `%I`)"),
];

/// Checks the format of a column of this type. The error says what to change.
pub fn check_format(kind: ColumnType, format: &str) -> Result<(), String> {
    let compiled = TimeFormat::compile(format)?;
    match kind {
        ColumnType::Date if compiled.has_time() => {
            Err("a date has no time of day; use the type timestamp".to_owned())
        }
        ColumnType::Date | ColumnType::Timestamp => Ok(()),
        other => Err(format!("a column of type {other} has no format")),
    }
}

/// A format that was checked: its directives give one complete date, and no part of it twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeFormat {
    items: Vec<Item>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Literal(char),
    Value {
        directive: Directive,
        /// Whether the value is directly next to a digit. It then has all its digits, because
        /// nothing else tells where it begins and ends.
        fixed: bool,
    },
}

impl Item {
    fn begins_with_digit(self) -> bool {
        match self {
            Self::Literal(character) => character.is_ascii_digit(),
            Self::Value { directive, .. } => directive.begins_with_digit(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    Year,
    ShortYear,
    Month,
    MonthName,
    ShortMonthName,
    Day,
    DayOfYear,
    Hour,
    Hour12,
    Half,
    Minute,
    Second,
    Fraction,
    Zone,
}

impl Directive {
    fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'Y' => Self::Year,
            'y' => Self::ShortYear,
            'm' => Self::Month,
            'B' => Self::MonthName,
            'b' => Self::ShortMonthName,
            'd' => Self::Day,
            'j' => Self::DayOfYear,
            'H' => Self::Hour,
            'I' => Self::Hour12,
            'p' => Self::Half,
            'M' => Self::Minute,
            'S' => Self::Second,
            'f' => Self::Fraction,
            'z' => Self::Zone,
            _ => return None,
        })
    }

    /// The part of a time that the directive gives.
    fn part(self) -> &'static str {
        match self {
            Self::Year | Self::ShortYear => "year",
            Self::Month | Self::MonthName | Self::ShortMonthName => "month",
            Self::Day => "day",
            Self::DayOfYear => "day of the year",
            Self::Hour | Self::Hour12 => "hour",
            Self::Half => "half of the day",
            Self::Minute => "minute",
            Self::Second => "second",
            Self::Fraction => "fraction",
            Self::Zone => "zone",
        }
    }

    fn begins_with_digit(self) -> bool {
        !matches!(
            self,
            Self::MonthName | Self::ShortMonthName | Self::Half | Self::Zone
        )
    }
}

impl TimeFormat {
    /// Checks and compiles a format. The error says what to change.
    pub fn compile(format: &str) -> Result<Self, String> {
        if format.is_empty() || format.trim() != format {
            return Err("must not be empty, and must not begin or end with a blank".to_owned());
        }
        let mut items = Vec::new();
        push_items(&mut items, format)?;
        fix_widths(&mut items)?;
        let format = Self { items };
        format.check_parts()?;
        Ok(format)
    }

    /// Whether the format has a time of day.
    pub fn has_time(&self) -> bool {
        self.parts().any(|part| part == "hour")
    }

    /// Reads a whole text. `None` if the text does not have this format, or if its day or time does
    /// not exist. A missing time of day is midnight, and a missing zone is UTC.
    pub fn parse(&self, text: &str) -> Option<ParsedTime> {
        let mut values = Values::default();
        let mut rest = text;
        for item in &self.items {
            rest = match *item {
                Item::Literal(character) => rest.strip_prefix(character)?,
                Item::Value { directive, fixed } => values.read(directive, fixed, rest)?,
            };
        }
        match rest {
            "" => values.time(),
            _ => None,
        }
    }

    fn directives(&self) -> impl Iterator<Item = Directive> {
        self.items.iter().filter_map(|item| match item {
            Item::Literal(_) => None,
            Item::Value { directive, .. } => Some(*directive),
        })
    }

    fn parts(&self) -> impl Iterator<Item = &'static str> {
        self.directives().map(Directive::part)
    }

    fn check_parts(&self) -> Result<(), String> {
        let parts: Vec<&str> = self.parts().collect();
        let has = |part: &str| parts.contains(&part);
        for (index, part) in parts.iter().enumerate() {
            if parts[..index].contains(part) {
                return Err(format!("the {part} is given twice"));
            }
        }
        if !has("year") {
            return Err("the year is missing (`%Y` or `%y`)".to_owned());
        }
        match (has("month"), has("day"), has("day of the year")) {
            (true, true, false) | (false, false, true) => {}
            (_, _, true) => return Err("`%j` gives the month and the day already".to_owned()),
            (false, _, _) => return Err("the month is missing (`%m`, `%b` or `%B`)".to_owned()),
            (true, false, _) => return Err("the day is missing (`%d`)".to_owned()),
        }
        let is_12_hour = self.directives().any(|value| value == Directive::Hour12);
        if is_12_hour != has("half of the day") {
            let message = "`%I` and `%p` need each other; the hours from 0 to 23 are `%H`";
            return Err(message.to_owned());
        }
        let mut needs = NEEDS.iter();
        match needs.find(|(part, other, _)| has(part) && !has(other)) {
            Some((_, _, message)) => Err((*message).to_owned()),
            None => Ok(()),
        }
    }
}

fn push_items(items: &mut Vec<Item>, format: &str) -> Result<(), String> {
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            items.push(Item::Literal(character));
            continue;
        }
        let Some(letter) = characters.next() else {
            return Err("must not end with a single `%`; a percent sign is `%%`".to_owned());
        };
        match letter {
            '%' => items.push(Item::Literal('%')),
            'F' => push_items(items, "%Y-%m-%d")?,
            'T' => push_items(items, "%H:%M:%S")?,
            'D' => push_items(items, "%m/%d/%y")?,
            letter => {
                let directive = Directive::of(letter).ok_or_else(|| {
                    format!("unknown directive `%{letter}`; the directives are {DIRECTIVES}")
                })?;
                items.push(Item::Value {
                    directive,
                    fixed: false,
                });
            }
        }
    }
    Ok(())
}

/// Sets `fixed` for the values that are directly next to a digit.
fn fix_widths(items: &mut [Item]) -> Result<(), String> {
    let is_digit: Vec<bool> = items.iter().map(|item| item.begins_with_digit()).collect();
    for (index, item) in items.iter_mut().enumerate() {
        let Item::Value { directive, fixed } = item else {
            continue;
        };
        let digit_precedes = index > 0 && is_digit[index - 1];
        let digit_follows = is_digit.get(index + 1) == Some(&true);
        if digit_follows && *directive == Directive::Zone {
            return Err("a digit must not follow `%z`, which may have 2 or 4".to_owned());
        }
        // The value before a fraction has all its digits, so the fraction begins at a known digit.
        let may_vary = *directive == Directive::Fraction;
        *fixed = digit_follows || (digit_precedes && !may_vary);
    }
    Ok(())
}

/// The values read from one text.
#[derive(Debug, Default)]
struct Values {
    time: ParsedTime,
    day_of_year: Option<u32>,
    hour12: Option<u32>,
    /// The hours before this half of the day.
    half: u32,
}

impl Values {
    /// Reads one value from the beginning of a text, and returns the text after it.
    fn read<'a>(&mut self, directive: Directive, fixed: bool, text: &'a str) -> Option<&'a str> {
        let shortest = |longest: usize| if fixed { longest } else { 1 };
        let (value, rest) = match directive {
            Directive::Year => read_digits(text, 4, 4)?,
            Directive::ShortYear | Directive::Minute | Directive::Second => {
                read_digits(text, 2, 2)?
            }
            Directive::Month | Directive::Day | Directive::Hour | Directive::Hour12 => {
                read_digits(text, shortest(2), 2)?
            }
            Directive::DayOfYear => read_digits(text, shortest(3), 3)?,
            Directive::MonthName => read_month(text, usize::MAX)?,
            Directive::ShortMonthName => read_month(text, 3)?,
            Directive::Half => read_half(text)?,
            Directive::Fraction if fixed => {
                let (digits, rest) = text.split_at_checked(MICROSECOND_DIGITS)?;
                let unread = self.time.read_fraction(digits)?;
                return unread.is_empty().then_some(rest);
            }
            Directive::Fraction => return self.time.read_fraction(text),
            Directive::Zone => return self.time.read_offset(text),
        };
        self.set(directive, value);
        Some(rest)
    }

    fn set(&mut self, directive: Directive, value: u32) {
        let time = &mut self.time;
        match directive {
            Directive::Year => time.year = value,
            Directive::ShortYear => time.year = value + if value < 69 { 2000 } else { 1900 },
            Directive::Month | Directive::MonthName | Directive::ShortMonthName => {
                time.month = value;
            }
            Directive::Day => time.day = value,
            Directive::DayOfYear => self.day_of_year = Some(value),
            Directive::Hour => time.hour = value,
            Directive::Hour12 => self.hour12 = Some(value),
            Directive::Half => self.half = value,
            Directive::Minute => time.minute = value,
            Directive::Second => time.second = value,
            // `read` sets both.
            Directive::Fraction | Directive::Zone => {}
        }
    }

    fn time(self) -> Option<ParsedTime> {
        let mut time = self.time;
        if let Some(day_of_year) = self.day_of_year {
            (time.month, time.day) = month_and_day(time.year, day_of_year)?;
        }
        if let Some(hour) = self.hour12 {
            if !(1..=12).contains(&hour) {
                return None;
            }
            time.hour = hour % 12 + self.half;
        }
        time.is_valid().then_some(time)
    }
}
