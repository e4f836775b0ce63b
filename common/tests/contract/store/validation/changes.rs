//! The columns that an upload would change.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::store::Difference;
use carga_common::upload::UploadDataset;

use super::{difference, try_rows};
use crate::store::StoreFixture;
use crate::store::datasets::merging::{Row, create_dataset, merge, merged};

const BEFORE: [Row<'_>; 5] = [
    ("a", Some("1"), Some("x")),
    ("b", Some("2"), Some("y")),
    ("c", Some("3"), None),
    ("d", Some("4"), Some("")),
    ("e", Some("5"), Some("z")),
];

fn check_changes(found: &Difference, expected: &[(&str, u64)]) -> Result<()> {
    let expected = expected.iter();
    let expected = expected.map(|(column, rows)| ((*column).to_owned(), *rows));
    let expected: BTreeMap<String, u64> = expected.collect();
    ensure!(found.changed_columns == expected, "{found:?}");
    Ok(())
}

pub(crate) async fn changed_columns_are_those_of_updated_rows<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    merge(store, Mode::Update, &BEFORE).await?;
    // In order: another row with this key follows, one value, two values, NULL becomes an empty
    // text, the row violates a constraint, the same row as before, a new row.
    let given = [
        ("a", Some("8"), Some("other")),
        ("a", Some("9"), Some("x")),
        ("b", Some("9"), None),
        ("c", Some("3"), Some("")),
        ("d", None, Some("other")),
        ("e", Some("5"), Some("z")),
        ("f", Some("6"), Some("other")),
    ];
    let tried = try_rows(fixture, store, merged(Mode::Update)?, &given).await?;
    let found = difference(tried)?;
    ensure!((found.updated, found.rejected) == (3, 1), "{found:?}");
    check_changes(&found, &[("note", 2), ("stock", 2)])
}

pub(crate) async fn a_trial_compares_only_the_columns_of_the_file<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    merge(store, Mode::Update, &BEFORE).await?;
    let dataset = UploadDataset {
        missing: vec!["note".to_owned()],
        sources: vec![Some(0), Some(1), None],
        ..merged(Mode::Update)?
    };
    let given = [("a", "1"), ("b", "9"), ("g", "7")];
    let given = given.map(|(sku, stock)| (sku, Some(stock), None));
    let found = difference(try_rows(fixture, store, dataset, &given).await?)?;
    let counts = (found.inserted, found.updated, found.duplicate);
    ensure!(counts == (1, 1, 1), "{found:?}");
    check_changes(&found, &[("stock", 1)])
}

pub(crate) async fn no_column_is_changed_unless_rows_are_updated<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    merge(store, Mode::Update, &BEFORE).await?;
    let given = [("a", Some("9"), None), ("f", Some("6"), Some("x"))];
    for mode in [Mode::Ignore, Mode::Append] {
        let found = difference(try_rows(fixture, store, merged(mode)?, &given).await?)?;
        ensure!((found.inserted, found.updated) == (1, 0), "{found:?}");
        check_changes(&found, &[])?;
    }
    Ok(())
}
