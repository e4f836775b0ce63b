//! Values of every type that a conversion could change.

use std::iter;

use anyhow::{Result, ensure};
use carga_common::dataset::{ColumnType, Definition, TypedColumn};
use serde_json::{Value, json};

use super::{Cells, definition};

const TEXTS: &[&str] = &[
    "",
    " ",
    "é🦀e\u{301}",
    "a\"b\\c\nd\te",
    "NULL",
    "null",
    "\\N",
    "\u{1}\u{7f}",
    "007",
    "1e5",
    "'; DROP TABLE uploads; --",
    "\u{10ffff}",
];

const INTEGERS: &[&str] = &[
    "0",
    "-1",
    "7",
    "9223372036854775807",
    "-9223372036854775808",
    "9007199254740993",
];

const NUMERICS: &[&str] = &[
    "0",
    "0.00",
    "1",
    "-1.50",
    "10000",
    "9999.9999",
    "100000000",
    "0.0001",
    "-0.00000001",
    "12345678901234567890",
    "1.0",
    "0.1",
    "-99999999999999999999.5",
];

const FLOATS: &[&str] = &["0.0", "1.5", "-1.5", "0.1", "1e16", "1e-7", "5e-324"];

const BOOLEANS: &[&str] = &["true", "false"];

const DATES: &[&str] = &[
    "0001-01-01",
    "9999-12-31",
    "1970-01-01",
    "1969-12-31",
    "2000-01-01",
    "1999-12-31",
    "2024-02-29",
    "1582-10-10",
];

const TIMESTAMPS: &[&str] = &[
    "0001-01-01T00:00:00.000000Z",
    "9999-12-31T23:59:59.999999Z",
    "1970-01-01T00:00:00.000000Z",
    "1999-12-31T23:59:59.999999Z",
    "2024-02-29T12:34:56.000001Z",
    "1969-12-31T23:59:59.100000Z",
];

const UUIDS: &[&str] = &[
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "67e55044-10b1-426f-9247-bb680e5fe0c8",
];

const JSON: &[&str] = &[
    "null",
    "true",
    "0",
    "-1.5",
    "\"\"",
    "[]",
    "{}",
    "[1,[2,null],\"é🦀\"]",
    r#"{ "b": 1, "a": { "text": "\"x\"\n\\u0041" } }"#,
    r#""\u00e9""#,
];

/// Values that a conversion could change, in canonical form.
fn values(kind: ColumnType) -> Vec<String> {
    let texts = match kind {
        ColumnType::Text => TEXTS,
        ColumnType::Integer => INTEGERS,
        ColumnType::Numeric => NUMERICS,
        ColumnType::Float => FLOATS,
        ColumnType::Boolean => BOOLEANS,
        ColumnType::Date => DATES,
        ColumnType::Timestamp => TIMESTAMPS,
        ColumnType::Uuid => UUIDS,
        ColumnType::Json => JSON,
    };
    let texts = texts.iter().map(|text| (*text).to_owned());
    texts.chain(more_values(kind)).collect()
}

/// Values that are long or many.
fn more_values(kind: ColumnType) -> Vec<String> {
    let digits = "1234567890".repeat(10);
    match kind {
        ColumnType::Text => vec!["x".repeat(10_000), "\"🦀\\".repeat(1000)],
        ColumnType::Numeric => vec![
            digits.clone(),
            format!("0.{digits}"),
            format!("-{digits}.{digits}"),
            format!("1{}", "0".repeat(99)),
            format!("0.{}1", "0".repeat(99)),
        ],
        ColumnType::Float => {
            let extremes = [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 1.0 / 3.0];
            let all = extremes.into_iter().chain(random_floats().take(500));
            all.map(|number| format!("{number:?}")).collect()
        }
        _ => Vec::new(),
    }
}

/// Floats of random bits, by the generator of Knuth's MMIX.
fn random_floats() -> impl Iterator<Item = f64> {
    let next = |bits: &u64| {
        let product = bits.wrapping_mul(6_364_136_223_846_793_005);
        Some(product.wrapping_add(1_442_695_040_888_963_407))
    };
    let floats = iter::successors(Some(1), next).map(f64::from_bits);
    floats.filter(|number| number.is_finite())
}

/// A definition with a column of every type.
pub(super) fn every_type() -> Result<Definition> {
    let column = |kind: ColumnType| json!({ "name": format!("a {kind}"), "type": kind.name() });
    let columns: Vec<Value> = ColumnType::ALL.into_iter().map(column).collect();
    definition(&json!(columns))
}

/// Rows in which every value appears, each cell is NULL once, and all cells are NULL once.
pub(super) fn every_value() -> Vec<Cells> {
    let values = ColumnType::ALL.map(values);
    let count = values.iter().map(Vec::len).max().unwrap_or_default();
    let row = |index: usize| -> Cells {
        let cells = values.iter().map(|of_type| &of_type[index % of_type.len()]);
        cells.cloned().map(Some).collect()
    };
    let mut rows: Vec<Cells> = (0..count).map(row).collect();
    for (column, row) in rows.iter_mut().take(values.len()).enumerate() {
        row[column] = None;
    }
    rows.extend((0..values.len()).map(row));
    rows.push(vec![None; values.len()]);
    rows
}

/// Checks that the rows have the same values.
pub(super) fn check_cells(
    columns: &[TypedColumn],
    found: &[Cells],
    expected: &[Cells],
) -> Result<()> {
    ensure!(
        found.len() == expected.len(),
        "expected {} rows, found {}",
        expected.len(),
        found.len()
    );
    for (found, expected) in found.iter().zip(expected) {
        ensure!(found.len() == columns.len(), "{} cells", found.len());
        for ((found, expected), column) in found.iter().zip(expected).zip(columns) {
            let is_same = match (column.kind, found, expected) {
                // Postgres writes the same value in its own form.
                (ColumnType::Json, Some(found), Some(expected)) => {
                    let found: Value = serde_json::from_str(found)?;
                    found == serde_json::from_str::<Value>(expected)?
                }
                _ => found == expected,
            };
            // A long cell would hide the rest of the message.
            let short = |cell: &Option<String>| -> Option<String> {
                cell.as_ref().map(|text| text.chars().take(250).collect())
            };
            let (found, expected) = (short(found), short(expected));
            ensure!(
                is_same,
                "`{}`: expected {expected:?}, found {found:?}",
                column.name
            );
        }
    }
    Ok(())
}
