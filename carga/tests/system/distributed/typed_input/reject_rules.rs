//! The documented rules by which Carga rejects texts that Postgres accepts.

/// Line ends and form feeds around a value, which Carga takes for a part of it.
pub(super) fn has_line_end(text: &str) -> bool {
    text.contains(['\n', '\r', '\u{b}', '\u{c}'])
}

/// Notations that Postgres has read since version 16.
pub(super) fn has_integer_notation(text: &str) -> bool {
    text.contains(['_', 'x', 'X', 'o', 'O', 'b', 'B'])
}

/// Blanks within a number. Postgres 15 reads a blank before an exponent.
pub(super) fn has_inner_blank(text: &str) -> bool {
    text.trim().contains([' ', '\t'])
}

pub(super) fn is_special_float(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("nan") || text.contains("inf")
}

/// Whether a text may have an exponent above `limit` or below its negative.
pub(super) fn has_exponent_above(limit: u64, text: &str) -> bool {
    let exponents = text.split(['e', 'E']).skip(1);
    let digits = exponents.map(|text| text.trim_start_matches(['-', '+']));
    let mut exponents = digits.filter_map(|text| {
        let end = text.find(|character: char| !character.is_ascii_digit());
        text[..end.unwrap_or(text.len())].parse::<u64>().ok()
    });
    exponents.any(|exponent| exponent > limit)
}

/// Postgres also reads the beginnings of the words, where they are unique.
pub(super) fn is_abbreviated_boolean(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    let words = ["true", "false", "yes", "off"];
    !text.is_empty()
        && words
            .iter()
            .any(|word| word.starts_with(&text) && *word != text)
}

/// The text with `0` for every digit, `+` for every sign of a zone and one `0` for a fraction.
fn shape(text: &str) -> String {
    let text = text.trim_matches([' ', '\t']);
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
