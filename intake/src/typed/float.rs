//! Binary floating-point numbers of 64 bits.
//!
//! They have the syntax of decimal numbers (see `number`) and are rounded to the nearest value of
//! 64 bits. A number that would round to infinity, or to zero without being zero, is out of range,
//! as in Postgres.

use std::fmt::{self, Write};

use super::Fault;
use super::number::NumberRules;

/// Converts a floating-point number.
pub(super) fn canonical(rules: &NumberRules, text: &str, out: &mut String) -> Result<(), Fault> {
    let number = rules.parse(text);
    let number = number.ok_or_else(|| rules.wrong_type("a float"))?;
    // The buffer also holds the number in Rust's syntax while it is parsed.
    let start = out.len();
    number.push_float(out);
    let parsed: Option<f64> = out[start..].parse().ok();
    out.truncate(start);
    let value = match parsed {
        // Without the sign of minus zero.
        Some(value) if value == 0.0 && number.is_zero() => 0.0,
        Some(value) if value != 0.0 && value.is_finite() => value,
        _ => {
            let message = "the float is not between 5e-324 and 1.7976931348623157e308, or 0";
            return Err(Fault::out_of_range(message));
        }
    };
    let _: fmt::Result = write!(out, "{value:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::typed::tests::{assert_outcomes, convert, rules};

    #[test]
    fn a_float_beyond_64_bits_is_out_of_range() {
        let cases = [
            ("1.7976931348623157e308", Ok(Some("1.7976931348623157e308"))),
            ("1.7976931348623159e308", Err("out_of_range")),
            ("-1e309", Err("out_of_range")),
            ("1e99999999999999999999", Err("out_of_range")),
            ("5e-324", Ok(Some("5e-324"))),
            ("-2e-324", Err("out_of_range")),
            ("1e-99999999999999999999", Err("out_of_range")),
            ("0e99999999999999999999", Ok(Some("0.0"))),
            ("-0.000e-5", Ok(Some("0.0"))),
            ("-0", Ok(Some("0.0"))),
            ("0.1", Ok(Some("0.1"))),
            ("123456789012345678", Ok(Some("1.2345678901234568e17"))),
            ("+.5E+1", Ok(Some("5.0"))),
            ("5.", Ok(Some("5.0"))),
        ];
        assert_outcomes(r#""type":"float""#, &cases);
    }

    proptest! {
        #[test]
        fn any_finite_float_is_read_back_from_its_digits(value in any::<f64>()) {
            prop_assume!(value.is_finite());
            let canonical = if value == 0.0 { "0.0".to_owned() } else { format!("{value:?}") };
            let rules = rules(r#""type":"float""#);
            prop_assert_eq!(convert(&rules, &format!("{value:?}")), Ok(Some(canonical.clone())));
            prop_assert_eq!(convert(&rules, &format!("{value}")), Ok(Some(canonical.clone())));
            prop_assert_eq!(convert(&rules, &format!("{value:E}")), Ok(Some(canonical)));
        }
    }
}
