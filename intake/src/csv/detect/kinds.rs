//! Kinds of values: what a cell looks like, without its meaning.

/// The kind of a cell's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Empty,
    /// A word for a missing value, such as `NA`. It says nothing about its column.
    Missing,
    Number,
    /// A date, a time or both.
    Time,
    Boolean,
    Text,
}

/// Words for a missing value, in lower case.
const MISSING: [&[u8]; 23] = [
    b"na", b"n/a", b"#n/a", b"n.a.", b"<na>", b"nan", b"null", b"(null)", b"none", b"nil", b"nd",
    b"unknown", b"missing", b"#value!", b"#div/0!", b"-", b"--", b"?", b"*", b":", b".", b"..",
    b"\\n",
];

/// The length of the longest of these words.
const MISSING_BYTES: usize = 7;

/// The longest text that is examined. Longer ones are text.
const MAX_BYTES: usize = 40;

impl Kind {
    pub(super) fn of(cell: &[u8]) -> Self {
        let cell = cell.trim_ascii();
        if cell.is_empty() {
            return Self::Empty;
        }
        if cell.len() > MAX_BYTES {
            return Self::Text;
        }
        // Most numbers, without the work for the unusual ones.
        if cell.iter().all(u8::is_ascii_digit) {
            return Self::Number;
        }
        let mut lower = [0; MAX_BYTES];
        let lower = &mut lower[..cell.len()];
        lower.copy_from_slice(cell);
        lower.make_ascii_lowercase();
        let lower = &*lower;
        if lower.len() <= MISSING_BYTES && MISSING.contains(&lower) {
            Self::Missing
        } else if !lower[0].is_ascii_lowercase() && is_number(lower) {
            Self::Number
        } else if is_time(lower) {
            Self::Time
        } else if matches!(lower, b"true" | b"false") {
            Self::Boolean
        } else {
            Self::Text
        }
    }

    /// Whether a value of this kind hardly ever names a column.
    pub(super) fn is_value(self) -> bool {
        matches!(self, Self::Number | Self::Time | Self::Boolean)
    }
}

/// A number with a sign, decimals, thousands, an exponent, a currency or a per cent sign. At least
/// half of its characters are digits, so that `e.` or `$` alone are text.
fn is_number(cell: &[u8]) -> bool {
    const CURRENCIES: [&str; 5] = ["$", "€", "£", "¥", "%"];
    let mut rest = cell;
    for _ in 0..2 {
        for symbol in CURRENCIES.map(str::as_bytes) {
            rest = rest.strip_prefix(symbol).unwrap_or(rest).trim_ascii();
            rest = rest.strip_suffix(symbol).unwrap_or(rest).trim_ascii();
        }
        if let [b'-' | b'+' | b'<' | b'>', number @ ..] = rest {
            rest = number;
        }
    }
    let (mantissa, exponent) = match rest.iter().position(|byte| *byte == b'e') {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let is_exponent = |text: &[u8]| {
        let digits = text
            .strip_prefix(b"-")
            .or(text.strip_prefix(b"+"))
            .unwrap_or(text);
        !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    };
    let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b',' | b'\'' | b' ');
    let digits = mantissa.iter().filter(|byte| byte.is_ascii_digit()).count();
    digits > 0
        && mantissa.iter().all(is_part)
        && 2 * digits >= mantissa.len()
        && is_few_separators(mantissa)
        && exponent.is_none_or(is_exponent)
}

/// Whether the number's separators are one decimal mark, or thousands marks with three digits
/// after each. An address such as `10.0.0.1` is not a number.
fn is_few_separators(mantissa: &[u8]) -> bool {
    let groups: Vec<&[u8]> = mantissa.split(|byte| !byte.is_ascii_digit()).collect();
    match groups.as_slice() {
        [_] | [_, _] => true,
        // The last group may be decimals.
        [_, middle @ .., _] => middle.iter().all(|group| group.len() == 3),
        [] => false,
    }
}

/// A date such as `2018-01-31`, `1/2/2018` or `3 Jan 2018`, a time such as `09:30:00`, or both.
fn is_time(cell: &[u8]) -> bool {
    const MONTHS: [&[u8]; 12] = [
        b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov",
        b"dec",
    ];
    let (mut numbers, mut separators, mut months) = (0, 0, 0);
    let mut rest = cell;
    while let Some(first) = rest.first() {
        let same = |is: fn(&u8) -> bool| rest.iter().take_while(|byte| is(byte)).count();
        let length = match first {
            b'0'..=b'9' => {
                let length = same(u8::is_ascii_digit);
                // A year has four digits, and a fraction of a second up to nine.
                if length > 9 {
                    return false;
                }
                numbers += 1;
                length
            }
            b'a'..=b'z' => {
                let length = same(u8::is_ascii_lowercase);
                let word = &rest[..length];
                let is_month = length >= 3 && MONTHS.iter().any(|month| word.starts_with(month));
                months += usize::from(is_month);
                if !is_month && !matches!(word, b"t" | b"z" | b"am" | b"pm" | b"utc" | b"gmt") {
                    return false;
                }
                length
            }
            b'-' | b'/' | b':' => {
                separators += 1;
                1
            }
            b'.' | b' ' | b'+' | b',' => 1,
            _ => return false,
        };
        rest = &rest[length..];
    }
    let dots = cell.iter().filter(|byte| **byte == b'.').count();
    let is_clock = cell.contains(&b':') && numbers >= 2;
    // `31.1.2018` has two dots.
    is_clock || months == 1 && numbers >= 1 || numbers == 3 && (separators == 2 || dots == 2)
}

/// The pattern of a text with digits: each digit is `9`, and everything else is kept, so that
/// `col1` differs from `val1`. `None` for a text without digits, of which the pattern says little.
pub(super) fn pattern(cell: &[u8]) -> Option<Vec<u8>> {
    let cell = cell.trim_ascii();
    if cell.len() > MAX_BYTES || !cell.iter().any(u8::is_ascii_digit) {
        return None;
    }
    let class = |byte: &u8| match byte {
        b'0'..=b'9' => b'9',
        other => other.to_ascii_lowercase(),
    };
    Some(cell.iter().map(class).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_recognised_in_the_forms_that_programs_write() {
        let cases = [
            (Kind::Empty, &["", "  "][..]),
            (Kind::Missing, &["NA", "n/a", "NaN", "NULL", "-", "\\N"]),
            (
                Kind::Number,
                &[
                    "0",
                    "-1",
                    "+3.5",
                    "1,5",
                    "1.234,56",
                    "1,234,567.8",
                    "1e-5",
                    "6.02E+23",
                    "$5",
                    "5 %",
                    "£0.99",
                    "1'000",
                    ".5",
                    "12 345",
                    "<5",
                ],
            ),
            (
                Kind::Time,
                &[
                    "2018-01-31",
                    "1/2/2018",
                    "31.1.2018",
                    "09:30",
                    "09:30:00.123",
                    "2018-01-31T09:30:00Z",
                    "3 Jan 2018",
                    "Jan-18",
                    "2018-01-31 09:30:00+02:00",
                ],
            ),
            (Kind::Boolean, &["true", "FALSE"]),
            (
                Kind::Text,
                &[
                    "name", "e", "10.0.0.1", "A-1", "x:y", "1a", "may be", "column_1", "-x", "$",
                    "2nd", "a/b/c", "Ü",
                ],
            ),
        ];
        for (kind, cells) in cases {
            for cell in cells {
                assert_eq!(Kind::of(cell.as_bytes()), kind, "{cell:?}");
            }
        }
    }

    #[test]
    fn only_a_text_with_digits_has_a_pattern() {
        assert_eq!(pattern(b"AB-12").as_deref(), Some(&b"ab-99"[..]));
        assert_eq!(pattern(b"name"), None);
    }
}
