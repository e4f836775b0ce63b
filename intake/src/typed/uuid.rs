//! UUIDs, of any version.
//!
//! A UUID has 32 hexadecimal digits in upper or lower case, with hyphens as `8-4-4-4-12` or
//! without any. Braces may enclose it.

use super::Fault;

/// The positions of the hyphens.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The numbers of digits before each hyphen.
const DIGITS_BEFORE_HYPHENS: [usize; 4] = [8, 12, 16, 20];

/// Converts a UUID.
pub(super) fn canonical(text: &str, out: &mut String) -> Result<(), Fault> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}'),
        None => Some(text),
    };
    let Some(uuid) = inner.filter(|text| is_uuid(text.as_bytes())) else {
        let message = "expected a UUID: 32 hexadecimal digits, in groups of `8-4-4-4-12` or in one";
        return Err(Fault::wrong_type(message));
    };
    let digits = uuid.bytes().filter(|byte| *byte != b'-');
    for (index, digit) in digits.enumerate() {
        if DIGITS_BEFORE_HYPHENS.contains(&index) {
            out.push('-');
        }
        out.push(char::from(digit.to_ascii_lowercase()));
    }
    Ok(())
}

fn is_uuid(text: &[u8]) -> bool {
    let has_hyphens = match text.len() {
        36 => true,
        32 => false,
        _ => return false,
    };
    let mut bytes = text.iter().enumerate();
    bytes.all(
        |(index, byte)| match has_hyphens && HYPHENS.contains(&index) {
            true => *byte == b'-',
            false => byte.is_ascii_hexdigit(),
        },
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::typed::tests::{convert, rules};

    const CANONICAL: &str = "019ab2f4-0000-7abc-8def-0123456789ab";

    #[test]
    fn hyphens_and_braces_and_upper_case_are_optional() {
        let rules = rules(r#""type":"uuid""#);
        let simple = CANONICAL.replace('-', "");
        for text in [
            CANONICAL.to_owned(),
            CANONICAL.to_uppercase(),
            simple.clone(),
            format!("{{{CANONICAL}}}"),
            format!(" {{{}}}\t", simple.to_uppercase()),
        ] {
            let expected = Ok(Some(CANONICAL.to_owned()));
            assert_eq!(convert(&rules, &text), expected, "{text}");
        }
    }

    #[test]
    fn other_digits_hyphens_or_braces_are_wrong() {
        let rules = rules(r#""type":"uuid""#);
        let simple = CANONICAL.replace('-', "");
        for text in [
            String::from("-"),
            simple[1..].to_owned(),
            simple.replace('f', "g"),
            format!("{simple}0"),
            format!("{{{simple}"),
            format!("{simple}}}"),
            format!("{{{{{simple}}}}}"),
            format!("{{ {simple}}}"),
            format!("urn:uuid:{CANONICAL}"),
            CANONICAL.replace("-7abc-", "7-abc-"),
            CANONICAL.replacen('-', "0", 1),
            format!("-{}", &simple[1..]),
            format!("é{}", &simple[2..]),
        ] {
            assert_eq!(convert(&rules, &text), Err("wrong_type"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_16_bytes_are_converted_to_their_canonical_text(bytes in any::<u128>()) {
            let simple = format!("{bytes:032X}");
            let converted = convert(&rules(r#""type":"uuid""#), &simple).unwrap().unwrap();
            prop_assert_eq!(converted.replace('-', ""), simple.to_lowercase());
            prop_assert_eq!(converted.len(), CANONICAL.len());
        }
    }
}
