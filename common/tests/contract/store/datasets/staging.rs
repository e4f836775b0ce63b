//! Rows that are staged until their upload is merged into the table of a dataset.

use anyhow::{Context, Result, ensure};
use carga_common::dataset::Mode;
use carga_common::error::ErrorKind;
use carga_common::store::{ArchivedBatch, Completed, Completion, Retried, RetryScope, Store};
use carga_common::upload::{RejectLimit, Status, UploadDataset, UploadId};

use super::merging::{
    batches, begin, check_figures, check_table, columns, create_dataset, merge, merged, send,
};
use crate::sample::{self, first};
use crate::store::dead_letters::dead;
use crate::store::{StoreFixture, check_status, fail, find, remove_all, rows, seal, store_new};

pub(crate) async fn staged_rows_are_nowhere_before_the_merge<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let a = ("a", Some("1"), Some("x"));
    let given = [a, ("b", Some("2"), None), ("c", Some("3"), Some(""))];
    let id = send(store, merged(Mode::Update)?, &given).await?;
    check_table(fixture, &[]).await?;
    ensure!(rows(store, id).await?.is_empty());
    ensure!(fixture.rows_in_table(id).await? == 3);
    let completion = store.completion(id).await?;
    let is_ready = matches!(completion, Completion::Ready { violating: 0, .. });
    ensure!(is_ready, "{completion:?}");

    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    let expected = [(id, 1, given[0]), (id, 2, given[1]), (id, 3, given[2])];
    check_table(fixture, &expected).await?;
    ensure!(rows(store, id).await?.len() == 3);
    ensure!(fixture.rows_in_table(id).await? == 0);
    check_figures(store, id, [3, 0, 0, 0]).await?;
    check_status(store, id, Status::Completed).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::No);
    check_table(fixture, &expected).await
}

pub(crate) async fn a_merge_waits_for_all_batches<F: StoreFixture>(fixture: &F) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let given = ["a", "b", "c"].map(|sku| (sku, Some("1"), None));
    let id = begin(store, merged(Mode::Update)?).await?;
    let batches = batches(id, &given)?;
    store_new(store, &batches[..1]).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::No);
    ensure!(store.seal(first(id), &seal(2, 3)).await?);
    ensure!(store.complete(first(id), 0).await? == Completed::No);
    check_table(fixture, &[]).await?;
    store_new(store, &batches[1..]).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    check_figures(store, id, [3, 0, 0, 0]).await
}

/// Stores the first batch of an upload to merge. Its second batch is a dead letter.
async fn with_a_dead_letter(store: &dyn Store) -> Result<(UploadId, ArchivedBatch)> {
    let given = [
        ("a", Some("1"), None),
        ("b", Some("1"), None),
        ("a", Some("2"), None),
    ];
    let id = begin(store, merged(Mode::Update)?).await?;
    let mut batches = batches(id, &given)?;
    let last = batches.pop().context("no batch")?;
    store_new(store, &batches).await?;
    store.park(&dead(Some(last.batch.id))).await?;
    ensure!(store.seal(first(id), &seal(2, 3)).await?);
    ensure!(store.complete(first(id), 1).await? == Completed::Yes);
    check_status(store, id, Status::Partial).await?;
    check_figures(store, id, [0, 0, 0, 0]).await?;
    ensure!(find(store, id).await?.rows_dead == 3);
    Ok((id, last))
}

pub(crate) async fn no_row_is_merged_while_a_batch_is_a_dead_letter<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let (id, last) = with_a_dead_letter(store).await?;
    check_table(fixture, &[]).await?;
    ensure!(rows(store, id).await?.is_empty());

    // The retry merges all rows in the order of the file, so the last row with a key wins.
    let retried = store.retry(first(id), RetryScope::Upload).await?;
    ensure!(retried == Retried::Batches(1), "{retried:?}");
    ensure!(store.complete(first(id), 0).await? == Completed::No);
    store_new(store, &[last]).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    check_status(store, id, Status::Completed).await?;
    let expected = [
        (id, 3, ("a", Some("2"), None)),
        (id, 2, ("b", Some("1"), None)),
    ];
    check_table(fixture, &expected).await?;
    check_figures(store, id, [2, 0, 1, 0]).await?;
    ensure!(find(store, id).await?.rows_dead == 0);
    ensure!(store.dead_letters(0, 10).await?.is_empty());
    Ok(())
}

pub(crate) async fn an_upload_that_was_not_merged_is_undone<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let (id, _) = with_a_dead_letter(store).await?;
    ensure!(store.undo(first(id)).await?);
    remove_all(store, id).await?;
    ensure!(fixture.rows_in_table(id).await? == 0);
    check_table(fixture, &[]).await?;
    ensure!(store.dead_letters(0, 10).await?.is_empty());
    check_status(store, id, Status::Undone).await
}

pub(crate) async fn a_merge_with_too_many_rejects_changes_nothing<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let a = ("a", Some("1"), Some("x"));
    let old = merge(store, Mode::Update, &[a]).await?;
    let violating = [("b", None, None), ("c", None, None)];
    let most = [("a", Some("2"), None), violating[0], violating[1]];
    let limited = RejectLimit {
        rows: Some(1),
        ..RejectLimit::default()
    };
    // No row of the second file fits.
    for (given, reject_limit) in [
        (&most[..], limited),
        (&violating[..], RejectLimit::default()),
    ] {
        let dataset = UploadDataset {
            reject_limit,
            ..merged(Mode::Update)?
        };
        let id = send(store, dataset, given).await?;
        let completed = store.complete(first(id), 0).await?;
        ensure!(
            completed == Completed::TooManyRejects { rejected: 2 },
            "{completed:?}"
        );
        check_table(fixture, &[(old, 1, a)]).await?;
        check_status(store, id, Status::Processing).await?;
        ensure!(store.rejected_page(id, 0).await?.len() == 2);
        // If this process ends now, another one must come to the same result.
        let completion = store.completion(id).await?;
        let is_too_many = matches!(completion, Completion::TooManyRejects { rejected: 2, .. });
        ensure!(is_too_many, "{completion:?}");
        ensure!(store.complete(first(id), 0).await? == Completed::No);

        fail(store, id).await?;
        let upload = find(store, id).await?;
        ensure!(upload.rows_read == given.len() as u64, "{upload:?}");
        ensure!(upload.rows_rejected == 2, "{upload:?}");
        remove_all(store, id).await?;
        ensure!(fixture.rows_in_table(id).await? == 0);
        check_table(fixture, &[(old, 1, a)]).await?;
    }
    Ok(())
}

pub(crate) async fn a_staged_row_without_its_origin_is_invalid<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let id = begin(store, merged(Mode::Ignore)?).await?;
    let columns: Vec<String> = columns()?.into_iter().map(|column| column.name).collect();
    let batch = sample::by_hand(id, 1, &columns, r#"[["a","1",null]]"#)?;
    let outcome = store.store(&[sample::archived(batch)]).await;
    let is_invalid = outcome
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::Invalid);
    ensure!(is_invalid, "{outcome:?}");
    ensure!(store.ledger(first(id)).await?.is_empty());
    ensure!(fixture.rows_in_table(id).await? == 0);
    Ok(())
}

pub(crate) async fn a_cancelled_upload_leaves_no_staged_row<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let given = ["a", "b", "c"].map(|sku| (sku, Some("1"), None));
    let id = send(store, merged(Mode::Update)?, &given).await?;
    ensure!(fixture.rows_in_table(id).await? == 3);
    ensure!(store.cancel(first(id)).await?);
    ensure!(store.complete(first(id), 0).await? == Completed::No);
    remove_all(store, id).await?;
    ensure!(fixture.rows_in_table(id).await? == 0);
    ensure!(store.ledger(first(id)).await?.is_empty());
    check_table(fixture, &[]).await
}
