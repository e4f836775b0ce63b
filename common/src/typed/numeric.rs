//! Decimal numbers in Postgres' binary format: digits of base 10,000 around the decimal mark.

/// How many decimal digits make one digit of Postgres.
const GROUP: usize = 4;

/// The most digits before the decimal mark, and after it, that Postgres stores.
const MAX_INTEGER_DIGITS: usize = 131_072;
const MAX_FRACTION_DIGITS: usize = 16_383;

const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;

/// The length of a value and the four words before its digits: the number of digits, the weight,
/// the sign, and the number of decimal digits after the mark. The weight is the power of 10,000
/// that belongs to the first digit.
const HEADER_BYTES: usize = 4 + 4 * 2;

/// Appends the length of a number and the number. Returns `None` if the text is not a number.
pub(super) fn append(buffer: &mut Vec<u8>, text: &str) -> Option<()> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (NEGATIVE, digits),
        None => (POSITIVE, text),
    };
    let (integer, fraction) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (digits, ""),
    };
    if integer.is_empty()
        || integer.len() > MAX_INTEGER_DIGITS
        || fraction.len() > MAX_FRACTION_DIGITS
    {
        return None;
    }
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    let weight = append_digits(buffer, integer.as_bytes(), fraction.as_bytes())?;
    let count = (buffer.len() - start - HEADER_BYTES) / 2;
    let (weight, sign) = match count {
        0 => (0, POSITIVE),
        _ => (weight, sign),
    };
    let length = (buffer.len() - start - 4) as u32;
    let (length_at, words_at) = buffer[start..start + HEADER_BYTES].split_at_mut(4);
    length_at.copy_from_slice(&length.to_be_bytes());
    let words = [count as u16, weight as u16, sign, fraction.len() as u16];
    for (word_at, word) in words_at.chunks_exact_mut(2).zip(words) {
        word_at.copy_from_slice(&word.to_be_bytes());
    }
    Some(())
}

/// Appends the digits of base 10,000 without the zeros around them. Returns the weight of the first
/// one.
fn append_digits(buffer: &mut Vec<u8>, integer: &[u8], fraction: &[u8]) -> Option<i32> {
    // Groups begin at the decimal mark, so the first group of the integer may be short or empty,
    // and zeros are added to the last group of the fraction.
    let (first, rest) = integer.split_at(integer.len() % GROUP);
    let before_point = std::iter::once(first).chain(rest.chunks(GROUP)).map(value);
    let after_point = fraction.chunks(GROUP).map(|digits| {
        let missing = GROUP - digits.len();
        value(digits).map(|value| value * 10_u16.pow(missing as u32))
    });
    let start = buffer.len();
    let mut weight = (rest.len() / GROUP) as i32;
    for digit in before_point.chain(after_point) {
        match digit? {
            0 if buffer.len() == start => weight -= 1,
            digit => buffer.extend_from_slice(&digit.to_be_bytes()),
        }
    }
    while buffer.len() > start && buffer.ends_with(&[0, 0]) {
        buffer.truncate(buffer.len() - 2);
    }
    Some(weight)
}

/// The value of at most four decimal digits.
fn value(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0, |value: u16, digit| {
        let is_digit = digit.is_ascii_digit();
        is_digit.then(|| value * 10 + u16::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The words of a number behind its length: count, weight, sign, scale, and the digits.
    fn words(text: &str) -> Option<Vec<u16>> {
        let mut buffer = vec![7];
        append(&mut buffer, text)?;
        let (length, words) = buffer[1..].split_first_chunk::<4>().unwrap();
        assert_eq!(u32::from_be_bytes(*length) as usize, words.len(), "{text}");
        let word = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
        Some(words.chunks_exact(2).map(word).collect())
    }

    /// The known words are those of `numeric_send`.
    #[test]
    fn a_number_has_the_digits_weight_sign_and_scale_of_postgres() {
        let minus_1 = (-1_i16).cast_unsigned();
        let minus_2 = (-2_i16).cast_unsigned();
        let known: [(&str, &[u16]); 13] = [
            ("0", &[0, 0, 0, 0]),
            ("0.00", &[0, 0, 0, 2]),
            ("1", &[1, 0, 0, 0, 1]),
            ("-1", &[1, 0, 0x4000, 0, 1]),
            ("9999", &[1, 0, 0, 0, 9999]),
            ("10000", &[1, 1, 0, 0, 1]),
            ("-100000000", &[1, 2, 0x4000, 0, 1]),
            ("12345.678", &[3, 1, 0, 3, 1, 2345, 6780]),
            ("1.50", &[2, 0, 0, 2, 1, 5000]),
            ("0.0001", &[1, minus_1, 0, 4, 1]),
            ("0.00001234", &[1, minus_2, 0, 8, 1234]),
            ("10000.00010", &[3, 1, 0, 5, 1, 0, 1]),
            ("20000000.5", &[3, 1, 0, 1, 2000, 0, 5000]),
        ];
        for (text, expected) in known {
            assert_eq!(words(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn zero_has_no_sign() {
        assert_eq!(words("-0.0"), words("0.0"));
    }

    #[test]
    fn the_longest_number_of_postgres_is_appended_and_a_longer_one_is_a_fault() {
        let longest = "9".repeat(MAX_INTEGER_DIGITS);
        let words_of_longest = words(&longest).unwrap();
        assert_eq!(words_of_longest[..4], [32_768, 32_767, 0, 0]);
        assert_eq!(words(&(longest + "9")), None);
        let finest = format!("0.{}1", "0".repeat(MAX_FRACTION_DIGITS - 1));
        assert_eq!(words(&finest).unwrap()[3], 16_383);
        assert_eq!(words(&(finest + "1")), None);
    }

    #[test]
    fn a_text_that_is_not_a_number_is_a_fault() {
        for text in [
            "", "-", ".5", "5.", "+1", "1e3", "1,5", "1.2.3", " 1", "--1", "NaN",
        ] {
            assert_eq!(words(text), None, "{text}");
        }
    }

    /// Writes the decimal number that these words mean.
    fn read_back(words: &[u16]) -> String {
        let (header, digits) = words.split_first_chunk::<4>().unwrap();
        let weight = i32::from(header[1].cast_signed());
        let scale = usize::from(header[3]);
        let digit = |power: i32| {
            let index = usize::try_from(weight - power).ok();
            let digit = index.and_then(|index| digits.get(index));
            digit.copied().unwrap_or_default()
        };
        let integer: String = (0..=weight.max(0))
            .rev()
            .map(|power| format!("{:04}", digit(power)))
            .collect();
        let integer = match integer.trim_start_matches('0') {
            "" => "0",
            digits => digits,
        };
        let groups = 1..=scale.div_ceil(GROUP) as i32;
        let fraction: String = groups
            .map(|group| format!("{:04}", digit(-group)))
            .collect();
        let sign = if header[2] == NEGATIVE { "-" } else { "" };
        match scale {
            0 => format!("{sign}{integer}"),
            _ => format!("{sign}{integer}.{}", &fraction[..scale]),
        }
    }

    proptest! {
        #[test]
        fn a_number_keeps_all_its_digits(number in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?") {
            let is_zero = !number.contains(|digit: char| ('1'..='9').contains(&digit));
            let canonical = match is_zero {
                true => number.trim_start_matches('-'),
                false => number.as_str(),
            };
            prop_assert_eq!(read_back(&words(&number).unwrap()), canonical);
        }
    }
}
