//! The documented forms and limits by which Carga rejects texts that Postgres accepts.

/// The most zeros that the exponent of a `numeric` adds.
const MAX_ZEROS_OF_EXPONENT: i64 = 1000;

/// The most digits after the decimal mark of a number in `json`.
const MAX_DIGITS_AFTER: i64 = 16_383;

/// Blanks and tabs around a cell are ignored. Postgres also ignores line ends and form feeds.
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn has_digits_only(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The only form of an integer: an optional sign and digits.
pub(super) fn has_integer_form(text: &str) -> bool {
    let text = trimmed(text);
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && has_digits_only(digits)
}

/// The parts of a number in the only form of `numeric` and `float`.
struct Number<'a> {
    integer: &'a str,
    fraction: &'a str,
    exponent: i64,
}

impl<'a> Number<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let text = trimmed(text);
        let text = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse().ok()?),
            None => (text, 0),
        };
        let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let has_digits = !integer.is_empty() || !fraction.is_empty();
        let is_number = has_digits && has_digits_only(integer) && has_digits_only(fraction);
        is_number.then_some(Self {
            integer,
            fraction,
            exponent,
        })
    }

    /// The zeros between the decimal mark and the digits of the number.
    fn zeros_of_exponent(&self) -> i64 {
        let mark = self.integer.len() as i64 + self.exponent;
        let digits = (self.integer.len() + self.fraction.len()) as i64;
        (-mark).max(mark - digits)
    }

    fn is_zero(&self) -> bool {
        let mut digits = self.integer.bytes().chain(self.fraction.bytes());
        digits.all(|digit| digit == b'0')
    }
}

/// The only form of `numeric` and `float`: a sign, digits, a fraction and an exponent, of which
/// only some digits must be there.
pub(super) fn has_number_form(text: &str) -> bool {
    Number::parse(text).is_some()
}

/// An exponent that adds many zeros to a number.
pub(super) fn has_long_exponent(text: &str) -> bool {
    let number = Number::parse(text);
    number.is_some_and(|number| number.zeros_of_exponent() > MAX_ZEROS_OF_EXPONENT)
}

/// Whether well-formed JSON has a number that is outside of the range of a float, or has too many
/// digits after its decimal mark. The exponent of the number 0 is limited in both directions. The
/// exponents in these texts are too few for the limit of all exponents together.
pub(super) fn has_json_number_out_of_range(text: &str) -> bool {
    let outside = outside_of_texts(text);
    let is_part = |part: char| part.is_ascii_digit() || "+-.eE".contains(part);
    let mut numbers = outside.split(|part| !is_part(part));
    numbers.any(|text| {
        // The word `true` leaves an `e`, which is not a number.
        let (Some(number), Ok(value)) = (Number::parse(text), text.parse::<f64>()) else {
            return false;
        };
        let digits_after = number.fraction.len() as i64 - number.exponent;
        let rounds_to_zero = value == 0.0 && !number.is_zero();
        !value.is_finite() || rounds_to_zero || digits_after.abs() > MAX_DIGITS_AFTER
    })
}

/// A JSON value without the characters of its texts and keys.
fn outside_of_texts(json: &str) -> String {
    let (mut outside, mut is_text, mut is_escaped) = (String::new(), false, false);
    for character in json.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => {
                is_text = !is_text;
                outside.push('"');
            }
            _ if is_text => {}
            _ => outside.push(character),
        }
    }
    outside
}

/// The words for true and false, in upper or lower case. Postgres also reads their beginnings.
pub(super) fn has_boolean_form(text: &str) -> bool {
    const WORDS: [&str; 12] = [
        "true", "t", "yes", "y", "on", "1", "false", "f", "no", "n", "off", "0",
    ];
    let text = trimmed(text).to_ascii_lowercase();
    WORDS.contains(&text.as_str())
}

/// The text with `0` for every digit, `+` for every sign of a zone and one `0` for a fraction.
fn shape(text: &str) -> String {
    let text = trimmed(text);
    let (date, time) = text.split_at_checked(10).unwrap_or((text, ""));
    let digit = |character: char| match character {
        '0'..='9' => '0',
        _ => character,
    };
    let mut shape: String = date.chars().map(digit).collect();
    for character in time.chars().map(digit) {
        let is_more_of_fraction = character == '0' && shape.ends_with(".0");
        match character {
            _ if is_more_of_fraction => {}
            '-' => shape.push('+'),
            't' | 'z' => shape.push(character.to_ascii_uppercase()),
            _ => shape.push(character),
        }
    }
    shape.replacen('T', " ", 1)
}

/// The only form of a day by default.
pub(super) fn has_date_form(text: &str) -> bool {
    shape(text) == "0000-00-00"
}

/// The forms of a time by default: seconds, a fraction and a zone may be missing, or all.
pub(super) fn has_timestamp_form(text: &str) -> bool {
    const TIMES: [&str; 3] = ["00:00", "00:00:00", "00:00:00.0"];
    const ZONES: [&str; 5] = ["", "Z", "+00", "+0000", "+00:00"];
    let shape = shape(text);
    let Some(time) = shape.strip_prefix("0000-00-00 ") else {
        return shape == "0000-00-00";
    };
    ZONES.iter().any(|zone| {
        let time = time.strip_suffix(*zone);
        time.is_some_and(|time| TIMES.contains(&time.strip_suffix(' ').unwrap_or(time)))
    })
}

/// Second 60 and hour 24, which Postgres moves to the next minute and day.
pub(super) fn has_other_second_or_hour(text: &str) -> bool {
    let time = text.trim_start().get(11..).unwrap_or_default();
    time.starts_with("24") || time.get(6..8) == Some("60")
}

/// Digits beyond the sixth of a fraction, which Postgres rounds.
pub(super) fn has_finer_fraction(text: &str) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit);
    digits.skip(6).any(|digit| digit != b'0')
}

/// Years before Christ or of more than four digits in UTC, in a value as Postgres writes it.
pub(super) fn has_other_year(value: &str) -> bool {
    value.ends_with("BC") || value.find('-').is_some_and(|digits| digits > 4)
}

/// Hyphens that are not between the groups of 8, 4, 4, 4 and 12 digits. Postgres takes one after
/// any four digits.
pub(super) fn has_other_hyphens(text: &str) -> bool {
    let hyphens = text.trim_matches(['{', '}']).match_indices('-');
    let positions: Vec<usize> = hyphens.map(|(position, _)| position).collect();
    !positions.is_empty() && positions != [8, 13, 18, 23]
}
