use proptest::prelude::*;

use crate::typed::tests::{Outcome, assert_outcomes, convert, rules};

const WRONG: Outcome = Err("wrong_type");
const OUT: Outcome = Err("out_of_range");
const NUMERIC: &str = r#""type":"numeric""#;

fn is(text: &'static str) -> Outcome {
    Ok(Some(text))
}

#[test]
fn an_integer_has_a_sign_and_digits_only() {
    let cases = [
        ("0", is("0")),
        ("-0", is("0")),
        ("+007", is("7")),
        ("-9223372036854775808", is("-9223372036854775808")),
        ("9223372036854775807", is("9223372036854775807")),
        ("0000000000000000000000000000001", is("1")),
        ("9223372036854775808", OUT),
        ("-9223372036854775809", OUT),
        ("99999999999999999999999999", OUT),
        ("1.0", WRONG),
        ("1.", WRONG),
        ("1e3", WRONG),
        ("1_000", WRONG),
        ("1,000", WRONG),
        ("0x10", WRONG),
        ("- 1", WRONG),
        ("--1", WRONG),
        ("+", WRONG),
        ("١", WRONG),
        ("1\u{a0}", WRONG),
    ];
    assert_outcomes(r#""type":"integer""#, &cases);
}

#[test]
fn thousands_marks_stand_between_groups_of_three_digits() {
    let cases = [
        ("1.234.567", is("1234567")),
        ("-12.345", is("-12345")),
        ("1234567", is("1234567")),
        ("007", is("7")),
        ("1.23", WRONG),
        ("1.2345", WRONG),
        ("1234.567", WRONG),
        ("1.234567", WRONG),
        ("1..234", WRONG),
        (".234", WRONG),
        ("1.234.", WRONG),
        ("0.123", WRONG),
        ("000.123", WRONG),
        ("9.223.372.036.854.775.808", OUT),
    ];
    assert_outcomes(r#""type":"integer","thousands":".""#, &cases);
}

#[test]
fn a_numeric_keeps_its_fraction_and_loses_its_exponent() {
    let cases = [
        ("12.50", is("12.50")),
        ("-0.00", is("0.00")),
        ("-00.10", is("-0.10")),
        (".5", is("0.5")),
        ("5.", is("5")),
        ("+5.E0", is("5")),
        ("1.5e3", is("1500")),
        ("1.50e1", is("15.0")),
        ("1234e-2", is("12.34")),
        ("123e-5", is("0.00123")),
        (".5E+3", is("500")),
        ("0.05e1", is("0.5")),
        ("0.5e1", is("5")),
        ("-0e5", is("0")),
        ("0e-5", is("0.00000")),
        ("0.00e1", is("0.0")),
        ("9,99", WRONG),
        ("1,234.5", WRONG),
        ("", Ok(None)),
        (".", WRONG),
        ("e5", WRONG),
        ("1e", WRONG),
        ("1e+", WRONG),
        ("1e5.0", WRONG),
        ("1_0", WRONG),
        ("0x1f", WRONG),
        ("NaN", WRONG),
        ("Infinity", WRONG),
        ("1 000", WRONG),
        ("€5", WRONG),
        ("(5)", WRONG),
        ("5-", WRONG),
    ];
    assert_outcomes(NUMERIC, &cases);
}

#[test]
fn a_numeric_is_read_with_its_declared_marks_and_currencies() {
    let column = r#""type":"numeric","decimal":",","thousands":".","currency":["R","R$","€"]"#;
    let cases = [
        ("1.234,56", is("1234.56")),
        ("1234,56", is("1234.56")),
        ("9,99", is("9.99")),
        ("9.99", WRONG),
        ("0.123", WRONG),
        ("R$ 1.234,50", is("1234.50")),
        ("R$\u{a0}1.234,50", is("1234.50")),
        ("R$1", is("1")),
        ("-R$ 1", is("-1")),
        ("R$ -1", is("-1")),
        ("R$-1", is("-1")),
        ("R1", is("1")),
        ("5 €", is("5")),
        ("5\u{202f}€", is("5")),
        ("-5€", is("-5")),
        ("1,5e2€", is("150")),
        ("-R$ -1", WRONG),
        ("R$  1", WRONG),
        ("€ 5 €", WRONG),
        ("5 $", WRONG),
        ("5  €", WRONG),
        ("5 €-", WRONG),
        ("€", WRONG),
        ("R$", WRONG),
    ];
    assert_outcomes(column, &cases);
}

#[test]
fn a_blank_may_be_the_thousands_mark_and_also_precede_the_currency() {
    let column = r#""type":"numeric","decimal":",","thousands":" ","currency":["€","EUR"]"#;
    let cases = [
        ("1 234 567,8 €", is("1234567.8")),
        ("1 234 €", is("1234")),
        ("1234 €", is("1234")),
        ("1234EUR", is("1234")),
        ("1 2345 €", WRONG),
        ("1  234", WRONG),
    ];
    assert_outcomes(column, &cases);
}

#[test]
fn every_blank_is_the_same_thousands_mark() {
    for declared in [" ", "\u{a0}", "\u{202f}"] {
        let column = format!(r#""type":"integer","thousands":"{declared}""#);
        let cases = [
            ("1 234", is("1234")),
            ("1\u{a0}234\u{a0}567", is("1234567")),
            ("1\u{202f}234", is("1234")),
            ("1\u{2009}234", WRONG),
            ("1\t234", WRONG),
            ("1,234", WRONG),
        ];
        assert_outcomes(&column, &cases);
    }
    let comma = r#""type":"integer","thousands":",""#;
    assert_outcomes(comma, &[("1,234", is("1234")), ("1 234", WRONG)]);
    let thin = "\"type\":\"integer\",\"thousands\":\"\u{2009}\"";
    let cases = [("1\u{2009}234", is("1234")), ("1 234", WRONG)];
    assert_outcomes(thin, &cases);
}

#[test]
fn a_number_after_its_currency_begins_with_a_digit() {
    let column = r#""currency":["Rs","S/","$"]"#;
    let cases = [
        ("Rs500", is("500")),
        ("Rs 0.500", is("0.500")),
        ("0.500 Rs", is("0.500")),
        (".5 $", is("0.5")),
        ("5.$", is("5")),
        ("Rs.500", WRONG),
        ("Rs .500", WRONG),
        ("S/.100", WRONG),
        ("-$.5", WRONG),
        ("$-.5", WRONG),
    ];
    assert_outcomes(&format!("{NUMERIC},{column}"), &cases);
    let float = format!(r#""type":"float","decimal":",",{column}"#);
    let cases = [("Rs1,5", is("1.5")), ("Rs,500", WRONG), ("Rs.500", WRONG)];
    assert_outcomes(&float, &cases);
    let grouped = format!(r#"{NUMERIC},"decimal":",","thousands":".",{column}"#);
    let cases = [("Rs1.500", is("1500")), ("Rs.500", WRONG)];
    assert_outcomes(&grouped, &cases);
}

#[test]
fn a_float_is_read_with_its_declared_marks() {
    let column = r#""type":"float","decimal":",","thousands":"'","currency":["CHF"]"#;
    let cases = [
        ("CHF 1'234,5", is("1234.5")),
        ("-1'234e-1", is("-123.4")),
        ("1.5", WRONG),
    ];
    assert_outcomes(column, &cases);
}

#[test]
fn a_numeric_has_the_digits_that_postgres_stores() {
    let rules = rules(NUMERIC);
    let code = |text: String| convert(&rules, &text).map(drop);
    assert_eq!(code("9".repeat(131_072)), Ok(()));
    assert_eq!(code("0".repeat(10) + &"9".repeat(131_072)), Ok(()));
    assert_eq!(code("9".repeat(131_073)), Err("out_of_range"));
    assert_eq!(code(format!("0.{}", "0".repeat(16_383))), Ok(()));
    assert_eq!(
        code(format!("0.{}", "0".repeat(16_384))),
        Err("out_of_range")
    );
    assert_eq!(code("9".repeat(131_072) + "e1"), Err("out_of_range"));
}

#[test]
fn an_exponent_adds_at_most_1000_zeros() {
    let rules = rules(NUMERIC);
    let length = |text: &str| convert(&rules, text).map(|text| text.unwrap_or_default().len());
    assert_eq!(length("1e1000"), Ok(1001));
    assert_eq!(length("1.5e1001"), Ok(1002));
    assert_eq!(length("1e-1001"), Ok(1003));
    for text in [
        "1e1001",
        "1e-1002",
        "0e5000",
        "1e999999999999999999999999",
        "1e-99999999999999999999999",
    ] {
        assert_eq!(length(text), Err("out_of_range"), "{text}");
    }
}

#[test]
fn the_message_names_the_type_and_the_declared_marks() {
    let message = |column: &str, cell: &str| {
        let fault = crate::typed::canonical(&rules(column), cell, &mut String::new());
        fault.unwrap_err().message
    };
    assert_eq!(
        message(NUMERIC, "9,99"),
        "expected a numeric value: digits with the decimal mark `.`"
    );
    let column = r#""type":"float","decimal":",","thousands":".","currency":["€","R$"]"#;
    assert_eq!(
        message(column, "x"),
        "expected a float: digits with the decimal mark `,`, with `.` or nothing between thousands, with `€` or `R$` or nothing before or after it"
    );
    assert_eq!(
        message(r#""type":"integer","thousands":"'""#, "1.5"),
        "expected an integer: digits without a decimal mark, with `'` or nothing between thousands"
    );
    for (mark, name) in [
        ("\u{202f}", "a blank"),
        ("\u{2009}", "the character U+2009"),
    ] {
        let column = format!(r#""type":"integer","thousands":"{mark}""#);
        let message = message(&column, "x");
        assert!(message.contains(&format!(", with {name} or ")), "{message}");
    }
}

#[test]
fn the_message_has_the_first_declared_currencies_and_stays_short() {
    let currencies = (0..1000).map(|number| "x".repeat(2000 - number));
    let currencies: Vec<String> = currencies.collect();
    let column = rules(&format!("{NUMERIC},\"currency\":{currencies:?}"));
    let fault = crate::typed::canonical(&column, "y", &mut String::new());
    let message = fault.unwrap_err().message;
    assert!(message.len() < 1000, "{} bytes", message.len());
    assert!(message.contains("x…` or … or nothing before"));
}

/// The digits of a number with thousands marks.
fn grouped(digits: &str, mark: char) -> String {
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(mark);
        }
        grouped.push(digit);
    }
    grouped
}

/// A number without zeros before its first digit, and without the sign of zero.
fn simplest(is_negative: bool, integer: &str, fraction: &str) -> String {
    let integer = integer.trim_start_matches('0');
    let is_zero = integer.is_empty() && fraction.chars().all(|digit| digit == '0');
    let sign = if is_negative && !is_zero { "-" } else { "" };
    let integer = if integer.is_empty() { "0" } else { integer };
    match fraction {
        "" => format!("{sign}{integer}"),
        _ => format!("{sign}{integer}.{fraction}"),
    }
}

proptest! {
    #[test]
    fn any_integer_is_read_back(value in any::<i64>(), zeros in "0{0,3}") {
        let canonical = Ok(Some(value.to_string()));
        let integer = rules(r#""type":"integer""#);
        prop_assert_eq!(convert(&integer, &value.to_string()), canonical.clone());
        let (sign, digits) = (if value < 0 { "-" } else { "+" }, value.unsigned_abs().to_string());
        prop_assert_eq!(convert(&integer, &format!("\t{sign}{zeros}{digits} ")), canonical.clone());
        let with_marks = rules(r#""type":"integer","thousands":",""#);
        prop_assert_eq!(convert(&with_marks, &format!("{sign}{}", grouped(&digits, ','))), canonical);
    }

    #[test]
    fn an_integer_beyond_64_bits_is_out_of_range(value in any::<i128>()) {
        prop_assume!(i64::try_from(value).is_err());
        let integer = rules(r#""type":"integer""#);
        prop_assert_eq!(convert(&integer, &value.to_string()), Err("out_of_range"));
    }

    #[test]
    fn any_decimal_keeps_all_its_digits(
        is_negative in any::<bool>(),
        integer in "[0-9]{1,40}",
        fraction in "[0-9]{0,40}",
    ) {
        let sign = if is_negative { "-" } else { "" };
        let expected = Ok(Some(simplest(is_negative, &integer, &fraction)));
        let plain = format!("{sign}{integer}.{fraction}");
        prop_assert_eq!(convert(&rules(NUMERIC), &plain), expected.clone());
        prop_assert_eq!(convert(&rules(NUMERIC), &format!("{plain}e0")), expected.clone());
        prop_assume!(!integer.starts_with('0'));
        let local = rules(r#""type":"numeric","decimal":",","thousands":".","currency":["€"]"#);
        let text = format!("{sign}{},{fraction} €", grouped(&integer, '.'));
        prop_assert_eq!(convert(&local, &text), expected);
    }

    #[test]
    fn an_exponent_moves_the_decimal_mark(
        is_negative in any::<bool>(),
        integer in "[0-9]{0,6}",
        fraction in "[0-9]{0,6}",
        exponent in -20_i32..20,
    ) {
        prop_assume!(!integer.is_empty() || !fraction.is_empty());
        // With zeros on both sides, the mark is always between two digits.
        let digits = format!("{integer:0>30}{fraction:0<30}");
        let (before, _) = digits.split_at((30 + exponent) as usize);
        let digits_after = (fraction.len() as i32 - exponent).max(0) as usize;
        let after = &digits[before.len()..before.len() + digits_after];
        let expected = simplest(is_negative, before, after);
        let sign = if is_negative { "-" } else { "+" };
        let text = format!("{sign}{integer}.{fraction}e{exponent}");
        prop_assert_eq!(convert(&rules(NUMERIC), &text), Ok(Some(expected)));
    }
}
