//! The type of one column after its cells, and the promise of a suggestion: the definition takes
//! every cell that was counted as fit.

#![allow(clippy::unwrap_used)]

use carga_common::settings::{Mode, Settings};
use futures::{FutureExt, stream};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::typed::{ColumnRules, canonical};

/// The dialect, because the files here are too short to show it.
const DIALECT: &str = "delimiter=;&quote=\"&encoding=utf-8&skip=0&header=true&trim=false";

fn suggest_with(options: &str, file: &str) -> Result<SuggestedDataset, Refusal> {
    let settings = Settings::read(Mode::Embedded, &|_| None);
    let settings = settings.unwrap_or_else(|error| panic!("{error}"));
    let options = options.split('&').filter_map(|pair| pair.split_once('='));
    let options: Vec<_> = options
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let pieces: Vec<io::Result<Bytes>> = vec![Ok(Bytes::copy_from_slice(file.as_bytes()))];
    let suggested = suggest_for_file(&options, &settings.intake, stream::iter(pieces));
    // Nothing here waits, so the future is ready at once.
    suggested
        .now_or_never()
        .unwrap_or_else(|| panic!("reading from memory waited"))
}

fn suggested(file: &str) -> SuggestedDataset {
    suggest_with(DIALECT, file).unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// The suggestion for a column `a` with these cells, beside a column that no row lacks.
fn column(cells: &[&str]) -> (serde_json::Value, Evidence) {
    let rows: String = cells.iter().map(|cell| format!("{cell};x\n")).collect();
    let mut suggested = suggested(&format!("a;b\n{rows}"));
    let json = suggested.dataset.to_json()["columns"][0].clone();
    (json, suggested.evidence.swap_remove(0))
}

/// A column with one field beside its name and whether it is required.
fn expected(kind: &str, fields: serde_json::Value) -> serde_json::Value {
    let mut column = json!({ "name": "a", "type": kind, "required": true });
    if let (Some(column), serde_json::Value::Object(fields)) = (column.as_object_mut(), fields) {
        column.extend(fields);
    }
    column
}

#[test]
fn a_column_has_the_strictest_type_that_all_cells_fit() {
    let pt = json!({ "true": ["sim"], "false": ["não", "nao"] });
    for (cells, kind, fields) in [
        (&["1", "-2", "+3", "0"][..], "integer", json!({})),
        (&["1", "2.50"][..], "numeric", json!({})),
        (&["0.123", "0.456"][..], "numeric", json!({})),
        (&["9223372036854775808"][..], "numeric", json!({})),
        (&["1", "2.5", "1e3"][..], "float", json!({})),
        (&["true", "F", "yes"][..], "boolean", json!({})),
        (&["sim", "NÃO"][..], "boolean", pt),
        (&["1", "0"][..], "integer", json!({})),
        (&["y", "n"][..], "text", json!({})),
        (&["2024-02-29"][..], "date", json!({})),
        (
            &["31/12/2025", "1/2/2026"][..],
            "date",
            json!({ "format": "%d/%m/%Y" }),
        ),
        (
            &["12/31/2025", "1/2/2026"][..],
            "date",
            json!({ "format": "%m/%d/%Y" }),
        ),
        (&["01.02.2026"][..], "date", json!({ "format": "%d.%m.%Y" })),
        (&["01-02-2026"][..], "date", json!({ "format": "%d-%m-%Y" })),
        (&["2026/01/02"][..], "date", json!({ "format": "%Y/%m/%d" })),
        (
            &["2024-02-29", "2024-02-29T10:00Z"][..],
            "timestamp",
            json!({}),
        ),
        (
            &["019ab2f4-0000-7abc-8def-0123456789ab"][..],
            "uuid",
            json!({}),
        ),
        (&["{}", "[1, 2]"][..], "json", json!({})),
        (&["{}", "x"][..], "text", json!({})),
        (&["2023-02-29"][..], "text", json!({})),
        (&["1", " "][..], "text", json!({})),
    ] {
        let (found, evidence) = column(cells);
        assert_eq!(found, expected(kind, fields), "{cells:?}: {}", evidence.why);
        assert_eq!(evidence.fits, cells.len() as u64, "{cells:?}");
    }
}

#[test]
fn marks_in_numbers_are_proposed_only_where_they_have_one_meaning() {
    let comma = json!({ "decimal": "," });
    let german = json!({ "decimal": ",", "thousands": "." });
    let french = json!({ "decimal": ",", "thousands": " " });
    for (cells, kind, fields) in [
        (&["1.249,90", "3"][..], "numeric", german.clone()),
        (&["1.234", "1,5"][..], "numeric", german),
        (&["12,50", "3"][..], "numeric", comma),
        (&["1\u{a0}234,50"][..], "numeric", french),
        (&["1,249.90"][..], "numeric", json!({ "thousands": "," })),
        (
            &["1,234,567", "1,234"][..],
            "integer",
            json!({ "thousands": "," }),
        ),
        (&["1.234.567"][..], "integer", json!({ "thousands": "." })),
        (&["1.234", "1.5"][..], "numeric", json!({})),
        (&["1 234"][..], "text", json!({})),
    ] {
        let (found, evidence) = column(cells);
        assert_eq!(found, expected(kind, fields), "{cells:?}: {}", evidence.why);
    }
    for cells in [&["1.234", "5"][..], &["1,234"]] {
        let (found, evidence) = column(cells);
        assert_eq!(found["type"], "text", "{cells:?}");
        assert!(evidence.why.contains("may be the decimal mark"));
    }
}

#[test]
fn a_leading_zero_and_an_ambiguous_day_make_a_text_and_the_reason_says_so() {
    let (found, evidence) = column(&["1", "007"]);
    assert_eq!(found["type"], "text");
    assert!(
        evidence.why.contains("begins with a zero"),
        "{}",
        evidence.why
    );
    let (found, evidence) = column(&["01/02/2026", "03/04/2026"]);
    assert_eq!(found["type"], "text");
    let both = "both `%d/%m/%Y` and `%m/%d/%Y` fit";
    assert!(evidence.why.starts_with(both), "{}", evidence.why);
}

#[test]
fn words_between_values_of_a_type_mean_null_in_every_column() {
    let found = suggested("a;b;c;d\n1;NA;-;\n-;x;y;\n3;x;y;\n");
    assert_eq!(found.dataset.null, ["", "-"]);
    let kinds: Vec<&str> = found.evidence.iter().map(|it| it.kind.name()).collect();
    assert_eq!(kinds, ["integer", "text", "text", "text"]);
    let counts: Vec<_> = found
        .evidence
        .iter()
        .map(|it| (it.fits, it.nulls))
        .collect();
    assert_eq!(counts, [(2, 1), (3, 0), (2, 1), (0, 3)]);
    let required = found.dataset.columns.iter().map(|column| column.required);
    assert_eq!(required.collect::<Vec<_>>(), [false, true, false, false]);
    assert_eq!(found.evidence[3].why, "the column has no value");
    assert!(
        found.evidence[0]
            .why
            .ends_with("cells that are `-` are NULL")
    );
}

#[test]
fn one_percent_of_the_cells_may_not_fit() {
    let long = "x".repeat(200);
    let cells = |numbers: usize| [vec!["1"; numbers], vec![long.as_str(), "n/a"]].concat();
    let (found, evidence) = column(&cells(198));
    assert_eq!(found["type"], "integer");
    assert_eq!((evidence.fits, evidence.nulls), (198, 0));
    assert_eq!(evidence.does_not_fit, [&long[..100], "n/a"]);
    assert!(
        evidence.why.starts_with("2 of 200 cells"),
        "{}",
        evidence.why
    );
    assert_eq!(column(&cells(197)).0["type"], "text");
    let few = [vec!["1"; 99], vec!["x"]].concat();
    assert_eq!(column(&few).0["type"], "text");
}

#[test]
fn a_type_that_most_of_the_first_cells_do_not_fit_is_given_up() {
    let cells = [vec!["x"; 1024], vec!["1"; 200_000]].concat();
    assert_eq!(column(&cells).0["type"], "text");
}

#[test]
fn rejected_records_are_counted_and_a_likely_key_is_named() {
    let found = suggested("id;n\nA1;1\nA2;2;3\nA3;4\n");
    assert_eq!(found.rejected, 1);
    assert_eq!(found.evidence[0].fits, 2);
    assert!(found.evidence[0].why.contains("could be the key"));
    assert!(found.dataset.key.is_empty());
}

#[test]
fn the_options_of_datasets_are_refused_and_those_of_rejected_rows_apply() {
    for (options, code) in [
        ("dataset=sales", "malformed_option"),
        ("on_error=abort&delimiter=;&header=true", "too_many_fields"),
        ("max_rejects=0&delimiter=;&header=true", "too_many_rejects"),
    ] {
        let refused = suggest_with(options, "a;b\n1;2\n3;4;5\n").unwrap_err();
        assert_eq!(refused.failure.code, code, "{options}");
    }
}

/// Cells of every type, and some that fit none. None has a delimiter or a quote.
fn cells() -> impl Strategy<Value = Vec<String>> {
    let one = prop_oneof![
        "[+-]?[0-9]{1,20}",
        "-?[0-9]{0,4}[.,][0-9]{1,4}(e[0-9]{1,3})?",
        "[1-9][0-9]{0,2}[., ][0-9]{3}([.,][0-9]{1,3})?",
        "(true|no|F|sim|NÃO|1|0|oui|non)",
        "[0-3]?[0-9][-/.][01]?[0-9][-/.]20[0-9]{2}",
        "20[0-9]{2}[-/][01][0-9][-/][0-3][0-9](T1[0-9]:30Z)?",
        "(NA|-|NULL)?",
        "[a-c ]{1,3}",
    ];
    // One kind of cells, so that the column often has a type, with a few others.
    (one.clone(), prop::collection::vec(one, 0..4), 1_usize..200)
        .prop_map(|(most, others, times)| [vec![most; times], others].concat())
}

proptest! {
    #[test]
    fn the_definition_takes_every_cell_that_was_counted_as_fit(cells in cells()) {
        let rows: String = cells.iter().map(|cell| format!("{cell};x\n")).collect();
        let found = suggested(&format!("a;b\n{rows}"));
        let json = found.dataset.to_json().to_string();
        let definition = Definition::from_json(json.as_bytes()).unwrap();
        prop_assert_eq!(&definition, &found.dataset);
        let rules = ColumnRules::new(&definition, &definition.columns[0]);
        let (mut fits, mut nulls) = (0, 0);
        for cell in &cells {
            if rules.is_null(cell) {
                nulls += 1;
            } else if canonical(&rules, cell, &mut String::new()).is_ok() {
                fits += 1;
            }
        }
        let evidence = &found.evidence[0];
        prop_assert_eq!(evidence.nulls, nulls);
        // The definition may take more cells, such as `1` in a column of booleans.
        prop_assert!(fits >= evidence.fits, "{} of {:?}", fits, evidence);
        prop_assert!(!definition.columns[0].required || nulls == 0);
    }
}
