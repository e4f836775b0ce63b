//! A trial finds what an upload of the same rows does afterwards.

use std::slice;

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::rejects::RejectedRow;
use carga_common::store::{Completed, Difference, Store, TRIAL_REJECTS, Tried};
use carga_common::upload::UploadDataset;
use proptest::collection::vec;
use proptest::option;
use proptest::sample::select;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::{difference, try_rows};
use crate::sample::first;
use crate::store::datasets::merging::{
    Row, appended, batches, begin, create_dataset, merge, merged,
};
use crate::store::{StoreFixture, find, seal};

/// Tries these rows, uploads them, and checks that both have the same outcome.
async fn try_and_upload<F: StoreFixture>(
    fixture: &F,
    store: &dyn Store,
    dataset: UploadDataset,
    given: &[Row<'_>],
) -> Result<Difference> {
    let merge = match &dataset.merge {
        Some(merge) => Some(merge.clone()),
        None => merged(Mode::Append)?.merge,
    };
    let tried = UploadDataset {
        merge,
        ..dataset.clone()
    };
    let is_staged = dataset.is_staged();
    let mut difference = difference(try_rows(fixture, store, tried, given).await?)?;

    let id = begin(store, dataset).await?;
    let batches = batches(id, given)?;
    store.store(&batches).await?;
    let seal = seal(batches.len() as u32, given.len() as u64);
    ensure!(store.seal(first(id), &seal).await?);
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    let upload = find(store, id).await?;
    let mut rejects = store.rejected_page(id, 0).await?;
    rejects.truncate(TRIAL_REJECTS);
    if !is_staged {
        leave_out_reasons(&mut difference.rejects, given);
        leave_out_reasons(&mut rejects, given);
    }
    let uploaded = Difference {
        inserted: upload.rows_inserted.unwrap_or(0),
        updated: upload.rows_updated.unwrap_or(0),
        duplicate: upload.rows_duplicate.unwrap_or(0),
        rejected: upload.rows_violating.unwrap_or(0),
        rejects,
        changed_columns: difference.changed_columns.clone(),
        warnings: Vec::new(),
    };
    ensure!(
        difference == uploaded,
        "{given:?}: {difference:?}, {uploaded:?}"
    );
    Ok(difference)
}

/// Leaves the reasons out of the rows that lack a value. Some of them violate two constraints, and
/// an upload that does not stage its rows may report the other one.
fn leave_out_reasons(rejects: &mut [RejectedRow], given: &[Row<'_>]) {
    for row in rejects {
        if given[row.row as usize - 1].1.is_none() {
            row.code.clear();
            row.message.clear();
            (row.column, row.constraint) = (None, None);
        }
    }
}

fn counts(difference: &Difference) -> [u64; 4] {
    let Difference {
        inserted,
        updated,
        duplicate,
        rejected,
        ..
    } = difference;
    [*inserted, *updated, *duplicate, *rejected]
}

/// The table before the uploads of the cases.
const BEFORE: [Row<'_>; 3] = [
    ("a", Some("1"), Some("x")),
    ("b", Some("2"), Some("y")),
    ("c", Some("3"), None),
];

/// Rows with every outcome. Two keys are twice in the file, and two rows lack a required value.
const GIVEN: [Row<'_>; 8] = [
    ("a", Some("1"), Some("x")),
    ("b", Some("2"), Some("z")),
    ("d", Some("1"), None),
    ("c", None, Some("n")),
    ("e", None, None),
    ("f", Some("6"), Some("")),
    ("d", Some("2"), Some("w")),
    ("b", Some("4"), Some("y")),
];

pub(crate) async fn a_trial_finds_what_an_update_would_do<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    merge(store, Mode::Update, &BEFORE).await?;
    let found = try_and_upload(fixture, store, merged(Mode::Update)?, &GIVEN).await?;
    ensure!(counts(&found) == [2, 1, 3, 2], "{found:?}");
    let rejects = found.rejects.iter();
    let rejects = rejects.map(|row| (row.row, row.code.as_str(), row.column.as_deref()));
    let violation = |row| (row, "not_null_violation", Some("Stock"));
    ensure!(rejects.eq([4, 5].map(violation)), "{found:?}");
    // Nothing is left to do, and the violating rows are the same.
    let again = try_and_upload(fixture, store, merged(Mode::Update)?, &GIVEN).await?;
    ensure!(counts(&again) == [0, 0, 6, 2], "{again:?}");
    Ok(())
}

pub(crate) async fn a_trial_finds_what_an_ignoring_upload_would_do<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    merge(store, Mode::Update, &BEFORE).await?;
    // The row with the key `c` is ignored before its missing value matters.
    let found = try_and_upload(fixture, store, merged(Mode::Ignore)?, &GIVEN).await?;
    ensure!(counts(&found) == [2, 0, 5, 1], "{found:?}");
    Ok(())
}

pub(crate) async fn a_trial_finds_what_an_appending_upload_would_do<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    merge(store, Mode::Update, &BEFORE).await?;
    let found = try_and_upload(fixture, store, merged(Mode::Append)?, &GIVEN).await?;
    ensure!(counts(&found) == [2, 0, 0, 6], "{found:?}");
    // Row 4 violates two constraints, and either is its reason.
    let unique = found.rejects.iter().filter(|row| row.row != 4);
    let unique = unique.filter(|row| row.code == "unique_violation");
    ensure!(unique.map(|row| row.row).eq([1, 2, 7, 8]), "{found:?}");
    // These rows are not staged. The first one is new.
    let given = [slice::from_ref(&("g", Some("7"), None)), &GIVEN[..]].concat();
    let found = try_and_upload(fixture, store, appended()?, &given).await?;
    ensure!(counts(&found) == [1, 0, 0, 8], "{found:?}");
    Ok(())
}

pub(crate) async fn a_trial_finds_what_an_upload_of_any_rows_would_do<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const ROUNDS: usize = 20;
    const KEYS: &[&str] = &["a", "b", "c", "d", "e"];
    const STOCKS: &[&str] = &["1", "2"];
    const NOTES: &[&str] = &["", "x", "y"];
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let stock = option::weighted(0.8, select(STOCKS));
    let note = option::of(select(NOTES));
    let file = vec((select(KEYS), stock, note), 0..12);
    let mut runner = TestRunner::deterministic();
    for round in 0..ROUNDS {
        let tree = file.new_tree(&mut runner);
        let rows = tree.map_err(|reason| anyhow::anyhow!("{reason}"))?;
        let new = format!("new in {round}");
        let mut given: Vec<Row<'_>> = rows.current();
        // An upload without a stored row would fail.
        given.push((new.as_str(), Some("1"), None));
        let mut dataset = match round % 4 {
            0 => merged(Mode::Update)?,
            1 => merged(Mode::Ignore)?,
            2 => merged(Mode::Append)?,
            _ => appended()?,
        };
        if !dataset.is_staged() {
            // Each of these rows violates one constraint at most.
            for (_, stock, _) in &mut given {
                *stock = Some("1");
            }
        }
        if round % 5 == 0 {
            dataset.missing = vec!["note".to_owned()];
            dataset.sources[2] = None;
            for (_, _, note) in &mut given {
                *note = None;
            }
        }
        try_and_upload(fixture, store, dataset, &given).await?;
    }
    Ok(())
}

pub(crate) async fn a_trial_of_a_file_without_rows_finds_no_difference<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    for mode in [Mode::Update, Mode::Ignore, Mode::Append] {
        let tried = try_rows(fixture, store, merged(mode)?, &[]).await?;
        ensure!(
            tried == Tried::Difference(Difference::default()),
            "{tried:?}"
        );
    }
    Ok(())
}
