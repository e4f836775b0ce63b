//! The types of one column each, and the converter of whole rows.

use proptest::prelude::*;

use super::*;

/// A canonical text, `None` for NULL, or the code of a fault.
pub(super) type Outcome = Result<Option<&'static str>, &'static str>;

/// The rules of a column whose definition has these fields and a name.
pub(super) fn rules(fields: &str) -> ColumnRules {
    let definition = definition(&format!("{{\"name\":\"c\",{fields}}}"));
    ColumnRules::new(&definition, &definition.columns[0])
}

/// Converts a cell to its canonical text, to `None` for NULL, or to the code of its fault.
pub(super) fn convert(rules: &ColumnRules, cell: &str) -> Result<Option<String>, &'static str> {
    let mut text = "before".to_owned();
    match rules.convert(cell, &mut text) {
        Ok(span) => Ok(span.map(|(start, end)| text[start..end].to_owned())),
        Err(fault) => {
            assert_eq!(text, "before", "a fault appends nothing");
            Err(fault.code)
        }
    }
}

pub(super) fn assert_outcomes(fields: &str, cases: &[(&str, Outcome)]) {
    let rules = rules(fields);
    for (cell, expected) in cases {
        let found = convert(&rules, cell);
        let found = found.as_ref().map(Option::as_deref).map_err(|code| *code);
        assert_eq!(found, *expected, "{cell:?} with {fields}");
    }
}

fn definition(columns: &str) -> Definition {
    let json = format!("{{\"columns\":[{columns}]}}");
    Definition::from_json(json.as_bytes()).unwrap()
}

const NULL: Outcome = Ok(None);
const WRONG: Outcome = Err("wrong_type");
const OUT: Outcome = Err("out_of_range");
const MISSING: Outcome = Err("missing_value");

fn is(text: &'static str) -> Outcome {
    Ok(Some(text))
}

/// The fields of a column, and for its cells: a good one, the same with blanks around it, a wrong
/// one, one out of range, and one in the form of a locale that was not declared.
const TYPES: [(&str, [(&str, Outcome); 5]); 9] = [
    (
        r#""type":"text""#,
        [
            ("a\u{e9}\n", Ok(Some("a\u{e9}\n"))),
            (" a\t", Ok(Some(" a\t"))),
            ("NaN", Ok(Some("NaN"))),
            ("\u{1f980}", Ok(Some("\u{1f980}"))),
            ("1.234,50", Ok(Some("1.234,50"))),
        ],
    ),
    (
        r#""type":"integer""#,
        [
            ("042", Ok(Some("42"))),
            (" \t42 ", Ok(Some("42"))),
            ("4 2", WRONG),
            ("9223372036854775808", OUT),
            ("1.234", WRONG),
        ],
    ),
    (
        r#""type":"numeric""#,
        [
            ("1.50", Ok(Some("1.50"))),
            (" 1.50\t", Ok(Some("1.50"))),
            ("one", WRONG),
            ("1e1001", OUT),
            ("9,99", WRONG),
        ],
    ),
    (
        r#""type":"float""#,
        [
            ("1.50", Ok(Some("1.5"))),
            ("\t1.50 ", Ok(Some("1.5"))),
            ("inf", WRONG),
            ("1e400", OUT),
            ("1,5", WRONG),
        ],
    ),
    (
        r#""type":"boolean""#,
        [
            ("Yes", Ok(Some("true"))),
            (" 0 ", Ok(Some("false"))),
            ("maybe", WRONG),
            ("2", WRONG),
            ("sim", WRONG),
        ],
    ),
    (
        r#""type":"date""#,
        [
            ("2024-02-29", Ok(Some("2024-02-29"))),
            (" 2024-02-29 ", Ok(Some("2024-02-29"))),
            ("2023-02-29", WRONG),
            ("0000-01-01", OUT),
            ("29/02/2024", WRONG),
        ],
    ),
    (
        r#""type":"timestamp""#,
        [
            (
                "2024-02-29 01:00+01",
                Ok(Some("2024-02-29T00:00:00.000000Z")),
            ),
            ("\t2024-02-29 ", Ok(Some("2024-02-29T00:00:00.000000Z"))),
            ("2024-02-29 24:00", WRONG),
            ("2024-02-29T00:00:00.0000001", OUT),
            ("29/02/2024 01:00", WRONG),
        ],
    ),
    (
        r#""type":"uuid""#,
        [
            (
                "019AB2F4-0000-7ABC-8DEF-0123456789AB",
                Ok(Some("019ab2f4-0000-7abc-8def-0123456789ab")),
            ),
            (
                " {019ab2f400007abc8def0123456789ab} ",
                Ok(Some("019ab2f4-0000-7abc-8def-0123456789ab")),
            ),
            ("019ab2f4", WRONG),
            ("019ab2f400007abc8def0123456789abc", WRONG),
            ("019ab2f4:0000:7abc:8def:0123456789ab", WRONG),
        ],
    ),
    (
        r#""type":"json""#,
        [
            ("{\"a\":[1]}", Ok(Some("{\"a\":[1]}"))),
            (" 1\t", Ok(Some(" 1\t"))),
            ("{'a':1}", WRONG),
            ("1e400", OUT),
            ("1,5", WRONG),
        ],
    ),
];

#[test]
fn every_type_accepts_its_own_values_and_no_others() {
    let mut names = Vec::new();
    for (fields, cases) in TYPES {
        assert_outcomes(fields, &cases);
        names.push(fields.split('"').nth(3).unwrap().to_owned());
    }
    assert_eq!(names, ColumnType::ALL.map(|kind| kind.name().to_owned()));
}

#[test]
fn words_for_null_are_compared_with_the_whole_cell_before_anything_else() {
    for (fields, cases) in TYPES {
        let good = cases[0];
        assert_outcomes(fields, &[("", NULL), good]);
        let with_words = format!("{fields},\"null\":[\"NA\",\" - \"]");
        let cases = [("NA", NULL), (" - ", NULL), good];
        assert_outcomes(&with_words, &cases);
        if !fields.contains("text") {
            let others = [("", WRONG), ("na", WRONG), (" NA", WRONG), ("-", WRONG)];
            assert_outcomes(&with_words, &others);
            assert_outcomes(fields, &[(" ", WRONG)]);
        }
        let required = format!("{with_words},\"required\":true");
        assert_outcomes(&required, &[("NA", MISSING), (" - ", MISSING), good]);
    }
    let text = r#""type":"text","null":["NA"]"#;
    let cases = [("", is("")), ("na", is("na")), (" NA", is(" NA"))];
    assert_outcomes(text, &cases);
    assert_outcomes(r#""type":"integer","null":["1"]"#, &[("1", NULL)]);
}

#[test]
fn the_message_of_a_blank_cell_says_how_such_cells_become_null() {
    let message = |fields: &str, cell: &str| {
        let fault = canonical(&rules(fields), cell, &mut String::new());
        fault.unwrap_err().message
    };
    let numeric = r#""type":"numeric","null":["NA"]"#;
    assert_eq!(
        message(numeric, ""),
        "expected a value of type numeric, and the cell is empty; if such cells mean NULL, add `\"\"` to the list `null` of the column"
    );
    assert_eq!(
        message(r#""type":"numeric""#, " "),
        "expected a value of type numeric, and the cell has only blanks; if such cells mean NULL, add their text, with all its blanks, to the list `null` of the definition, or to the option `null` of the upload"
    );
    let others = TYPES.into_iter();
    for (fields, _) in others.filter(|(fields, _)| !fields.contains("text")) {
        for cell in [" ", "\t ", "\u{a0}"] {
            let message = message(fields, cell);
            assert!(message.contains("cell has only blanks; if"), "{message}");
            assert!(message.contains("add their text, with all its blanks,"));
        }
        assert!(!message(fields, "?").contains("NULL"), "{fields}");
    }
    // An empty text that is declared as a word is not a fault.
    let word = r#""type":"boolean","null":[],"true":["x"],"false":[""]"#;
    assert_outcomes(word, &[("", is("false")), (" ", is("false"))]);
}

#[test]
fn cells_are_put_into_the_order_of_the_definition() {
    let definition = definition(
        r#"{"name":"a","type":"integer"},{"name":"b","type":"text"},{"name":"c","type":"boolean"},{"name":"d","type":"date"}"#,
    );
    let sources = [Some(3), Some(0), None, Some(1)];
    let mut converter = Converter::new(&definition, &sources, 4);
    let rows = [
        (
            ["x", "2024-01-01", "ignored", "007"],
            [Some("7"), Some("x"), None, Some("2024-01-01")],
        ),
        (["", "", "", ""], [None; 4]),
        (["é", "", "1", "-1"], [Some("-1"), Some("é"), None, None]),
    ];
    for (cells, expected) in rows {
        converter.convert(cells.into_iter()).unwrap();
        let found: Vec<_> = converter.cells().collect();
        assert_eq!(found, expected, "{cells:?}");
    }
}

#[test]
fn only_cells_without_the_usual_text_of_their_value_are_changed() {
    let columns = r#"{"name":"a","type":"numeric","null":["NA",""]},{"name":"b","type":"text"},{"name":"c","type":"timestamp"}"#;
    // Column 1 of the file is not stored.
    let sources = [Some(3), Some(0), Some(2)];
    let mut converter = Converter::new(&definition(columns), &sources, 4);
    /// The cells of a row, and the changed ones.
    type Case<'a> = (&'a [&'a str], &'a [(u32, &'a str)]);
    let rows: [Case<'_>; 7] = [
        (&[" x ", "", "2024-02-29T10:00:00Z", "7.50"], &[]),
        (
            &["", "ignored", "2024-02-29 10:00", "07.50"],
            &[(1, "ignored"), (2, "2024-02-29 10:00"), (3, "07.50")],
        ),
        (&["", "", "", ""], &[]),
        (&["NA", "", "", "NA"], &[(3, "NA")]),
        (&["é", "é", "2024-02-29T10:00:00.500000Z"], &[(1, "é")]),
        (&[], &[]),
        (&["", " "], &[(1, " ")]),
    ];
    for (cells, expected) in rows {
        converter.convert(cells.iter().copied()).unwrap();
        let found: Vec<_> = converter.changed().collect();
        assert_eq!(found, expected, "{cells:?}");
    }
}

#[test]
fn a_cell_that_two_columns_take_is_changed_if_either_value_differs() {
    let columns = r#"{"name":"a","type":"integer"},{"name":"b","type":"text"}"#;
    let mut converter = Converter::new(&definition(columns), &[Some(0), Some(0)], 1);
    for (cell, expected) in [("7", None), ("07", Some((0, "07")))] {
        converter.convert([cell].into_iter()).unwrap();
        assert!(converter.changed().eq(expected), "{cell}");
    }
}

#[test]
fn cells_that_are_missing_at_the_end_are_null() {
    let columns = r#"{"name":"a","type":"integer"},{"name":"b","type":"integer"}"#;
    let sources = [Some(2), Some(0)];
    let mut converter = Converter::new(&definition(columns), &sources, 3);
    converter.convert(["1", "2", "3"].into_iter()).unwrap();
    converter.convert(["1"].into_iter()).unwrap();
    assert!(converter.cells().eq([None, Some("1")]));

    let columns = columns.replacen('}', r#","required":true}"#, 1);
    let mut converter = Converter::new(&definition(&columns), &sources, 3);
    let fault = converter.convert(["1"].into_iter()).unwrap_err();
    assert_eq!((fault.column, fault.code), (2, "missing_value"));
}

#[test]
fn a_fault_names_the_column_of_the_file_and_the_next_row_is_converted() {
    let columns = r#"{"name":"a","type":"integer"},{"name":"b","type":"float"}"#;
    let mut converter = Converter::new(&definition(columns), &[Some(1), Some(0)], 2);
    for (cells, column, code) in [
        (["x", "1"], 0, "wrong_type"),
        (["1", "1e1"], 1, "wrong_type"),
        (["1e999", "x"], 0, "out_of_range"),
    ] {
        let fault = converter.convert(cells.into_iter()).unwrap_err();
        assert_eq!((fault.column, fault.code), (column, code), "{cells:?}");
    }
    converter.convert(["1", "2"].into_iter()).unwrap();
    assert!(converter.cells().eq([Some("2"), Some("1.0")]));
}

/// Texts that are near to values of many types.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}",
        "[ \t]?[-+]?[0-9]{0,25}[.,]?[0-9]{0,25}([eE][-+]?[0-9]{1,4})?[ \t]?",
        "[-+0-9.,eE ]{0,12}",
        "[0-2]?[0-9]{3}-[01][0-9]-[0-3][0-9]([T ][0-2][0-9]:[0-6][0-9](:[0-6][0-9](\\.[0-9]{0,8})?)?)? ?(Z|[-+][0-2][0-9](:?[0-6][0-9])?)?",
        "[{]?[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}[}]?",
        "(?i:true|t|yes|y|on|1|false|f|no|n|off|0)",
        "[\\[{]{0,2}(\"[a\\\\u0d8]{0,6}\"|[0-9.e-]{1,5}|null)?[:,]?[0-9]?[\\]}]{0,2}",
    ]
}

/// Texts that are nearly values of one type, and too long to be in a message by chance.
fn long_texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[p-z]{8,12}",
        "[1-9][0-9]{18,30}",
        "-?[1-9][0-9]{8,16}[.,][0-9]{8,16}[.,]?",
        "[1-9]{9}e[1-9][0-9]{8}",
        "[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}[T ]?[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9}",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12,13}",
        "\\{\"[a-z]{8,12}\":[1-9][0-9]{8,12}[,}]?",
    ]
}

proptest! {
    #[test]
    fn the_canonical_text_of_any_cell_is_canonical(cell in texts()) {
        for (fields, _) in TYPES {
            let rules = rules(fields);
            if let Ok(Some(canonical)) = convert(&rules, &cell) {
                let again = convert(&rules, &canonical);
                prop_assert_eq!(again, Ok(Some(canonical)), "{:?} with {}", cell, fields);
            }
        }
    }

    #[test]
    fn a_message_contains_neither_the_cell_nor_a_long_part_of_it(cell in long_texts()) {
        let parts = cell.split(|character: char| !character.is_alphanumeric());
        let parts = parts.filter(|part| part.len() >= 8);
        let parts: Vec<&str> = parts.chain([cell.as_str()]).collect();
        let mut faults = 0;
        for (fields, _) in TYPES {
            if let Err(fault) = canonical(&rules(fields), &cell, &mut String::new()) {
                faults += 1;
                for part in &parts {
                    prop_assert!(!fault.message.contains(*part), "{}: {}", part, fault.message);
                }
            }
        }
        // A whole number may be a value of five types. No other cell is a value of more.
        prop_assert!(faults >= TYPES.len() - 5, "{} has {} faults", cell, faults);
    }
}
