use proptest::prelude::*;
use serde_json::Value;

use crate::typed::tests::{convert, rules};

fn outcome(text: &str) -> Result<(), &'static str> {
    let kept = convert(&rules(r#""type":"json","null":[]"#), text)?;
    assert_eq!(kept.as_deref(), Some(text));
    Ok(())
}

/// Whether a number may have an exponent of three digits or more. Numbers that round to zero are
/// faults, and serde_json reads them.
fn has_long_exponent(text: &str) -> bool {
    let mut exponents = text.split(['e', 'E']).skip(1);
    exponents.any(|text| {
        let digits = text.trim_start_matches(['+', '-']).bytes();
        digits.take_while(u8::is_ascii_digit).count() > 2
    })
}

fn is_read_by_serde(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok()
}

#[test]
fn a_value_is_kept_as_it_was_sent() {
    for text in [
        " {\"b\" : [1, -2.50e+3, true, false, null],\t\"a\":{}}\r\n",
        "[]",
        "[ ]",
        "{ }",
        "[[],{},[{}]]",
        "{\"a\":1,\"a\":2}",
        r#""é \u00e9 \uD83E\udd80 \" \\ \/ \b\f\n\r\t""#,
        "0",
        "-0",
        "-0.0E-5",
        "1e308",
        "123456789012345678901234567890.123456789",
        "null",
    ] {
        assert_eq!(outcome(text), Ok(()), "{text}");
        assert!(is_read_by_serde(text), "{text}");
    }
}

#[test]
fn the_exponents_of_a_value_stand_for_a_limited_number_of_digits() {
    let list = |number: &str, count: usize| format!("[{}]", vec![number; count].join(","));
    for (number, most) in [("0e-16383", 4), ("1e-300", 218), ("1.5e+300", 218)] {
        assert_eq!(outcome(&list(number, most)), Ok(()), "{number}");
        let more = list(number, most + 1);
        assert_eq!(outcome(&more), Err("out_of_range"), "{number}");
    }
    // A number without an exponent is as long in Postgres as in the cell.
    assert_eq!(outcome(&list("1.5", 100_000)), Ok(()));
}

#[test]
fn a_text_that_is_not_json_is_wrong() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{1:2}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{"a" 1}"#,
        r#"{"a":1]"#,
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "1_0",
        "NaN",
        "t",
        "true1",
        "nulll",
        "True",
        "'a'",
        "\"a",
        "\"a\\",
        r#""\x""#,
        r#""\u00g0""#,
        r#""\u00"#,
        r#""\ud800\u12""#,
        r#""\ud800\n""#,
        r#""\ud800\ud800""#,
        r#""\udc00""#,
        "\"\n\"",
        "\"\t\"",
        "1 2",
        "[] []",
        "\u{a0}1",
        "\u{feff}1",
    ] {
        assert_eq!(outcome(text), Err("wrong_type"), "{text:?}");
        assert!(!is_read_by_serde(text), "{text:?}");
    }
}

#[test]
fn a_nul_character_is_wrong_in_texts_and_in_keys() {
    for text in [r#""\u0000""#, r#"{"a\u0000":1}"#] {
        assert_eq!(outcome(text), Err("wrong_type"), "{text}");
        assert!(is_read_by_serde(text), "{text}");
    }
}

#[test]
fn a_value_nests_as_deep_as_serde_json_reads() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let levels = open.matches(['[', '{']).count();
        let deepest = 127 / levels;
        let nested = |times: usize| open.repeat(times) + "1" + &close.repeat(times);
        assert_eq!(outcome(&nested(deepest)), Ok(()), "{open}");
        assert!(is_read_by_serde(&nested(deepest)), "{open}");
        assert_eq!(outcome(&nested(deepest + 1)), Err("out_of_range"), "{open}");
        assert!(!is_read_by_serde(&nested(deepest + 1)), "{open}");
    }
    let endless = "[".repeat(1_000_000);
    assert_eq!(outcome(&endless), Err("out_of_range"));
}

#[test]
fn a_number_that_a_float_or_postgres_cannot_hold_is_out_of_range() {
    const OUT: Result<(), &str> = Err("out_of_range");
    for (text, expected) in [
        ("1e309", OUT),
        ("[-1e309]", OUT),
        ("1e99999999999999999999", OUT),
        ("1e-400", OUT),
        ("5e-324", Ok(())),
        ("0e-16383", Ok(())),
        ("0e-16384", OUT),
        ("0e99999999999999999999", OUT),
    ] {
        assert_eq!(outcome(text), expected, "{text}");
    }
    assert_eq!(outcome(&"9".repeat(308)), Ok(()));
    assert_eq!(outcome(&"9".repeat(309)), OUT);
    let with_zeros = |zeros: usize| format!("1.{}", "0".repeat(zeros));
    assert_eq!(outcome(&with_zeros(16_383)), Ok(()));
    assert_eq!(outcome(&with_zeros(16_384)), OUT);
}

#[test]
fn the_position_of_a_flaw_is_in_the_message() {
    let mut out = String::new();
    let fault = super::canonical("[1, secret]", &mut out).unwrap_err();
    assert!(fault.message.contains("byte 5"), "{}", fault.message);
    assert!(out.is_empty());
}

/// Values of any shape, without floats, which serde_json writes in digits of its own.
fn values() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[^\0]{0,8}".prop_map(Value::from),
    ];
    scalar.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("[^\0]{0,4}", inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_that_serde_json_writes_is_accepted(value in values()) {
        prop_assert_eq!(outcome(&value.to_string()), Ok(()));
        prop_assert_eq!(outcome(&serde_json::to_string_pretty(&value).unwrap()), Ok(()));
    }

    #[test]
    fn any_text_is_json_exactly_if_serde_json_reads_it(
        text in "([\\[\\]{}:, \n]|\"[a\\\\u0d8c\"é]{0,6}\"|true|null|-?[01.]{1,3}(e[-+]?[0-9]{1,2})?|\\PC){0,10}",
    ) {
        prop_assume!(!has_long_exponent(&text));
        let has_nul = text.contains("\\u0000");
        prop_assert_eq!(outcome(&text).is_ok(), is_read_by_serde(&text) && !has_nul);
    }
}
