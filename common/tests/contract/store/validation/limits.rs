//! The limits of a trial: rejected rows and time.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use carga_common::dataset::Mode;
use carga_common::rejects::RejectedRow;
use carga_common::store::{Completed, Store, TRIAL_REJECT_BYTES, TRIAL_REJECTS, Trial, Tried};
use carga_common::upload::{RejectLimit, UploadDataset};
use tokio::time::Instant;

use super::{difference, messages, stream_of, trial, try_rows, without_trace};
use crate::sample::first;
use crate::store::StoreFixture;
use crate::store::datasets::key;
use crate::store::datasets::merging::{Row, appended, begin, create_dataset, merge, merged, send};

/// The keys of 300 rows.
fn keys() -> Vec<String> {
    (1..=300).map(|number| format!("key {number:03}")).collect()
}

pub(crate) async fn a_trial_returns_the_first_100_rejected_rows<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let keys = keys();
    // Every second row lacks a required value.
    let stock = [Some("1"), None].into_iter().cycle();
    let rows = keys.iter().zip(stock);
    let given: Vec<Row<'_>> = rows
        .map(|(key, stock)| (key.as_str(), stock, None))
        .collect();
    for mode in [Mode::Update, Mode::Append] {
        let found = difference(try_rows(fixture, store, merged(mode)?, &given).await?)?;
        ensure!((found.inserted, found.rejected) == (150, 150), "{mode:?}");
        let numbers = found.rejects.iter().map(|row| row.row);
        let first: Vec<u64> = (1..).map(|number| number * 2).take(TRIAL_REJECTS).collect();
        ensure!(numbers.eq(first), "{mode:?}: {:?}", found.rejects);
    }
    Ok(())
}

/// A limit, the rows that were rejected while the file was read, and whether the limit is exceeded
/// if three of ten other rows violate a constraint.
fn limits() -> [(RejectLimit, u64, bool); 10] {
    let any = RejectLimit::default();
    let rows = |rows| RejectLimit {
        rows: Some(rows),
        ..any
    };
    let percent = |percent| RejectLimit {
        percent: Some(percent),
        ..any
    };
    let kept = |kept| RejectLimit { kept, ..any };
    let abort = RejectLimit { abort: true, ..any };
    [
        (any, 1, false),
        (abort, 0, true),
        (rows(2), 0, true),
        (rows(3), 0, false),
        (rows(3), 1, true),
        (kept(2), 0, true),
        (kept(3), 0, false),
        (percent(30.0), 0, false),
        (percent(29.9), 0, true),
        (percent(30.0), 1, true),
    ]
}

pub(crate) async fn the_limit_of_rejected_rows_holds_for_a_trial<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let keys = keys();
    let mut given: Vec<Row<'_>> = Vec::new();
    for (number, key) in (1..=10).zip(&keys) {
        given.push((key.as_str(), (number > 3).then_some("1"), None));
    }
    for (reject_limit, by_intake, is_exceeded) in limits() {
        let dataset = UploadDataset {
            reject_limit,
            ..merged(Mode::Update)?
        };
        let trial = Trial {
            rows_read: 10 + by_intake,
            rows_rejected: by_intake,
            ..trial(dataset, &given)
        };
        let batches = stream_of(messages(&given)?);
        let tried = without_trace(fixture, store.validate(&trial, batches)).await??;
        let is_expected = match &tried {
            Tried::TooManyRejects { .. } => is_exceeded,
            Tried::Difference(found) => !is_exceeded && found.rejected == 3,
            Tried::TooLong => false,
        };
        ensure!(is_expected, "{reject_limit:?}, {by_intake}: {tried:?}");
    }
    Ok(())
}

pub(crate) async fn a_trial_of_rows_that_all_violate_has_too_many_rejects<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let given = ["a", "b", "c"].map(|sku| (sku, None, None));
    let rejected = try_too_many(fixture, store, merged(Mode::Update)?, &given).await?;
    ensure!(rejected == 3, "{rejected}");
    Ok(())
}

/// Tries rows of which too many are rejected. Checks that an upload of the same rows finds the same
/// number, and keeps the same first row. Returns the number.
async fn try_too_many<F: StoreFixture>(
    fixture: &F,
    store: &dyn Store,
    dataset: UploadDataset,
    given: &[Row<'_>],
) -> Result<u64> {
    let tried = try_rows(fixture, store, dataset.clone(), given).await?;
    let id = send(store, dataset, given).await?;
    let completed = store.complete(first(id), 0).await?;
    let Completed::TooManyRejects { rejected } = completed else {
        bail!("{completed:?}");
    };
    let page = store.rejected_page(id, 0).await?;
    let expected = Tried::TooManyRejects {
        rejected,
        first: page.into_iter().next(),
    };
    ensure!(tried == expected, "{tried:?}, {expected:?}");
    Ok(rejected)
}

pub(crate) async fn the_first_reject_of_a_trial_is_the_one_that_an_upload_keeps<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let keys = keys();
    let mut given: Vec<Row<'_>> = Vec::new();
    for (number, key) in (1..=10).zip(&keys) {
        let stock = (![4, 7, 9].contains(&number)).then_some("1");
        given.push((key.as_str(), stock, Some("text")));
    }
    for reject_limit in limits().map(|(limit, _, _)| limit) {
        if !reject_limit.is_exceeded_at_end(3, 10) {
            continue;
        }
        let dataset = UploadDataset {
            reject_limit,
            ..merged(Mode::Update)?
        };
        try_too_many(fixture, store, dataset, &given).await?;
    }
    Ok(())
}

pub(crate) async fn the_rejected_rows_of_a_trial_have_a_limited_size<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let note = "x".repeat(TRIAL_REJECT_BYTES / 4);
    let note = Some(note.as_str());
    let given = [
        ("a", Some("1"), None),
        ("b", None, note),
        ("c", None, note),
        ("d", None, note),
        ("e", None, note),
        ("f", None, None),
    ];
    let found = difference(try_rows(fixture, store, merged(Mode::Update)?, &given).await?)?;
    let kept = |row: &RejectedRow| (row.row, row.fields.is_some());
    let rejects: Vec<_> = found.rejects.iter().map(kept).collect();
    let expected = [(2, true), (3, true), (4, true), (5, false), (6, true)];
    ensure!(rejects == expected, "{rejects:?}");
    Ok(())
}

pub(crate) async fn a_trial_ends_within_its_time_limit<F: StoreFixture>(fixture: &F) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(1);
    const MUCH_LATER: Duration = Duration::from_secs(20);
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let a = ("a", Some("1"), Some("x"));
    merge(store, Mode::Update, &[a]).await?;
    let table = F::table(&key("sales")?);
    for statement in F::slow_insertions(&table) {
        fixture.execute(&statement).await?;
    }
    let given = [a, ("b", Some("2"), None)];
    let trial = Trial {
        time_limit: LIMIT,
        ..trial(merged(Mode::Append)?, &given[1..])
    };
    let batches = stream_of(messages(&given[1..])?);
    let started = Instant::now();
    let tried = without_trace(fixture, store.validate(&trial, batches)).await??;
    ensure!(tried == Tried::TooLong, "{tried:?}");
    ensure!(started.elapsed() < MUCH_LATER, "{:?}", started.elapsed());
    // No lock is left.
    let delete = format!("DELETE FROM {table} WHERE sku = 'a'");
    tokio::time::timeout(MUCH_LATER, fixture.execute(&delete)).await??;
    let created = begin(store, appended()?);
    tokio::time::timeout(MUCH_LATER, created).await??;
    Ok(())
}
