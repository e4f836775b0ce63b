//! A date and a time as they were read, and the pieces of text that they are read from.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const MINUTES_PER_DAY: i32 = 24 * 60;

/// The digits of a fraction of a second that are kept.
pub(super) const MICROSECOND_DIGITS: usize = 6;

/// A date and a time of day in the zone in which they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ParsedTime {
    /// 0 to 9999.
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// From 1.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59: a leap second is not accepted.
    pub second: u32,
    /// 0 to 999,999.
    pub microsecond: u32,
    /// Whether the fraction has further digits that are not zero.
    pub is_finer: bool,
    /// The zone, in minutes east of UTC.
    pub offset_minutes: i32,
}

impl ParsedTime {
    /// Reads the digits of a fraction of a second, and returns the text after them.
    pub fn read_fraction<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let end = text.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = text.split_at(end);
        let (kept, more) = digits.split_at(end.min(MICROSECOND_DIGITS));
        let value: u32 = kept.parse().ok()?;
        self.microsecond = value * 10_u32.pow((MICROSECOND_DIGITS - kept.len()) as u32);
        self.is_finer = more.bytes().any(|digit| digit != b'0');
        Some(rest)
    }

    /// Reads a zone, `Z`, `±HH:MM`, `±HHMM` or `±HH`, and returns the text after it.
    pub fn read_offset<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        if let Some(rest) = text.strip_prefix(['Z', 'z']) {
            return Some(rest);
        }
        let (sign, text) = match text.strip_prefix('-') {
            Some(text) => (-1, text),
            None => (1, text.strip_prefix('+')?),
        };
        let (hours, rest) = read_digits(text, 2, 2)?;
        let (minutes, rest) = match rest.strip_prefix(':') {
            Some(rest) => read_digits(rest, 2, 2)?,
            None => read_digits(rest, 2, 2).unwrap_or((0, rest)),
        };
        // The limits of RFC 3339.
        if hours > 23 || minutes > 59 {
            return None;
        }
        self.offset_minutes = sign * (hours * 60 + minutes) as i32;
        Some(rest)
    }

    /// Whether the day and the time of day exist.
    pub fn is_valid(&self) -> bool {
        let days = days_in_month(self.year, self.month);
        (1..=12).contains(&self.month)
            && (1..=days).contains(&self.day)
            && self.hour <= 23
            && self.minute <= 59
            && self.second <= 59
    }

    /// The same point in time in UTC. `None` if it is not in the years 1 to 9999. The day and the
    /// time of day must exist.
    pub fn to_utc(self) -> Option<Self> {
        let minutes = (self.hour * 60 + self.minute) as i32 - self.offset_minutes;
        let minute_of_day = minutes.rem_euclid(MINUTES_PER_DAY) as u32;
        let same_day = Self {
            hour: minute_of_day / 60,
            minute: minute_of_day % 60,
            offset_minutes: 0,
            ..self
        };
        let utc = match minutes.div_euclid(MINUTES_PER_DAY) {
            0 => same_day,
            // An offset is shorter than a day.
            days if days < 0 => same_day.on_previous_day()?,
            _ => same_day.on_next_day(),
        };
        (1..=9999).contains(&utc.year).then_some(utc)
    }

    fn on_next_day(mut self) -> Self {
        self.day += 1;
        if self.day > days_in_month(self.year, self.month) {
            (self.month, self.day) = (self.month + 1, 1);
        }
        if self.month > 12 {
            (self.year, self.month) = (self.year + 1, 1);
        }
        self
    }

    fn on_previous_day(mut self) -> Option<Self> {
        if self.day > 1 {
            self.day -= 1;
            return Some(self);
        }
        (self.year, self.month) = match self.month {
            1 => (self.year.checked_sub(1)?, 12),
            month => (self.year, month - 1),
        };
        self.day = days_in_month(self.year, self.month);
        Some(self)
    }
}

/// Reads a number of `shortest` to `longest` digits, at most nine, and returns the text after it.
pub fn read_digits(text: &str, shortest: usize, longest: usize) -> Option<(u32, &str)> {
    let digits = text.bytes().take(longest).take_while(u8::is_ascii_digit);
    let (mut count, mut value) = (0, 0);
    for digit in digits {
        count += 1;
        value = value * 10 + u32::from(digit - b'0');
    }
    (count >= shortest).then(|| (value, &text[count..]))
}

/// Reads the first `letters` letters of the name of a month, or the whole name if it is shorter.
/// Returns the number of the month.
pub(super) fn read_month(text: &str, letters: usize) -> Option<(u32, &str)> {
    (1..).zip(MONTHS).find_map(|(number, name)| {
        let name = name.get(..letters).unwrap_or(name);
        let (start, rest) = text.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name).then_some((number, rest))
    })
}

/// Reads `AM` or `PM`. Returns the hours before that half of the day.
pub(super) fn read_half(text: &str) -> Option<(u32, &str)> {
    let (start, rest) = text.split_at_checked(2)?;
    let halves = [("am", 0), ("pm", 12)];
    let mut halves = halves.into_iter();
    let (_, hours) = halves.find(|(name, _)| start.eq_ignore_ascii_case(name))?;
    Some((hours, rest))
}

/// The month and the day of a day of the year. The day is 0 for the day 0, which does not exist.
pub(super) fn month_and_day(year: u32, day_of_year: u32) -> Option<(u32, u32)> {
    let mut day = day_of_year;
    for month in 1..=12 {
        let days = days_in_month(year, month);
        if day <= days {
            return Some((month, day));
        }
        day -= days;
    }
    None
}

fn days_in_month(year: u32, month: u32) -> u32 {
    let is_leap_year =
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if is_leap_year => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
