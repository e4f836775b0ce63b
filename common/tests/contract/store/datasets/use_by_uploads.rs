//! Uploads of a dataset need its table, and a dataset that no upload needs can be deleted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::dataset::{DatasetKey, Mode};
use carga_common::error::ErrorKind;
use carga_common::store::{DeleteOutcome, PutOutcome, Store, UploadQuery};
use carga_common::upload::{Status, UploadId};
use futures::future::join;
use serde_json::json;

use super::merging::{create_dataset, merge};
use super::{
    batches, begin, complete, count, create, definition, key, new_typed_upload, sample_cells,
    sample_definition,
};
use crate::sample::{self, first};
use crate::store::{
    Relation, StoreFixture, check_sample_rows, check_status, end_well, fail, find, new_upload,
    remove_all, seal, store_new,
};

/// Longer than any test takes.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

pub(crate) async fn an_upload_of_a_missing_dataset_is_not_created<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (key, definition) = (key("sales")?, sample_definition()?);
    let new = new_typed_upload(UploadId::generate(), &key, &definition);
    let created = store.create(&new).await;
    ensure!(created.is_err_and(|error| error.kind() == ErrorKind::NotFound));
    ensure!(store.upload(new.id).await?.is_none());
    create(store.as_ref(), &key, &definition).await?;
    let created = store.create(&new).await?;
    for upload in [created, find(store.as_ref(), new.id).await?] {
        ensure!(upload.dataset == new.dataset, "{upload:?}");
        ensure!(upload.columns == new.columns, "{upload:?}");
        ensure!(upload.stored_columns() == sample::columns(), "{upload:?}");
    }
    Ok(())
}

/// The dataset is deleted and declared again after the upload has read its definition.
pub(crate) async fn an_upload_with_other_columns_than_its_dataset_is_not_created<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let (store, key) = (handle.as_ref(), key("sales")?);
    let new = new_typed_upload(UploadId::generate(), &key, &sample_definition()?);
    let number = json!({ "name": "number", "type": "integer", "required": true });
    let text = json!({ "name": "name", "type": "text" });
    let date = json!({ "name": "name", "type": "date" });
    let required = json!({ "name": "day", "type": "date", "required": true });
    for columns in [
        json!([&number]),
        json!([&text, &number]),
        json!([&number, &date]),
        json!([&number, &text, &required]),
    ] {
        create(store, &key, &definition(&columns)?).await?;
        let created = store.create(&new).await;
        let is_missing = created.is_err_and(|error| error.kind() == ErrorKind::NotFound);
        ensure!(is_missing, "{columns}");
        ensure!(store.upload(new.id).await?.is_none(), "{columns}");
        let deleted = store.delete_dataset(&key).await?;
        ensure!(deleted == DeleteOutcome::Deleted, "{columns}: {deleted:?}");
    }
    // A column at the end does not change where the rows of the upload go.
    let day = json!({ "name": "day", "type": "date" });
    create(store, &key, &definition(&json!([&number, &text, &day]))?).await?;
    let created = store.create(&new).await?;
    ensure!(created.dataset == new.dataset, "{created:?}");
    Ok(())
}

/// The dataset is deleted and declared again, with a table of its own, after the upload has read
/// its definition.
pub(crate) async fn an_upload_into_another_table_than_that_of_its_dataset_is_not_created<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (key, definition) = (key("sales")?, sample_definition()?);
    create(store.as_ref(), &key, &definition).await?;
    let mut new = new_typed_upload(UploadId::generate(), &key, &definition);
    let dataset = new.dataset.as_mut().context("no dataset")?;
    dataset.table = Some("shop.sales".parse()?);
    let created = store.create(&new).await;
    ensure!(created.is_err_and(|error| error.kind() == ErrorKind::NotFound));
    ensure!(store.upload(new.id).await?.is_none());
    Ok(())
}

pub(crate) async fn an_upload_keeps_the_columns_of_its_dataset<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (key, narrow) = (key("sales")?, sample_definition()?);
    create(store.as_ref(), &key, &narrow).await?;
    let new = new_typed_upload(UploadId::generate(), &key, &narrow);
    store.create(&new).await?;
    let wide = definition(&json!([
        { "name": "number", "type": "integer", "required": true },
        { "name": "name", "type": "text", "null": ["-"] },
        { "name": "day", "type": "date" },
    ]))?;
    let outcome = store.put_dataset(&key, &wide).await?;
    ensure!(outcome == PutOutcome::Changed, "{outcome:?}");
    let upload = find(store.as_ref(), new.id).await?;
    ensure!(upload.dataset == new.dataset, "{upload:?}");
    Ok(())
}

pub(crate) async fn uploads_are_listed_by_dataset<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let definition = sample_definition()?;
    let (sales, other) = (key("sales")?, key("a \"b\"; '")?);
    create(store.as_ref(), &sales, &definition).await?;
    create(store.as_ref(), &other, &definition).await?;
    let mut expected = Vec::new();
    for _ in 0..3 {
        expected.push(begin(store.as_ref(), &sales, &definition).await?);
        begin(store.as_ref(), &other, &definition).await?;
        crate::store::begin(store.as_ref()).await?;
    }
    let completed = complete(store.as_ref(), &sales, &definition, &sample_cells(1)).await?;
    expected.push(completed);
    expected.reverse();
    let listed = async |status, limit, dataset: &DatasetKey| -> Result<Vec<UploadId>> {
        let mut listed: Vec<UploadId> = Vec::new();
        let mut before = None;
        loop {
            let query = UploadQuery {
                tenant: Some(dataset.tenant.clone()),
                created_by: None,
                status,
                dataset: Some(dataset.name.clone()),
                limit,
                before,
            };
            let page = store.uploads(&query).await?;
            let Some(last) = page.last() else {
                return Ok(listed);
            };
            before = Some((last.created_at, last.id));
            listed.extend(page.iter().map(|upload| upload.id));
        }
    };
    for limit in [1, 3, 100] {
        let found = listed(None, limit, &sales).await?;
        ensure!(found == expected, "{limit} per page: {found:?}");
    }
    let found = listed(Some(Status::Completed), 100, &sales).await?;
    ensure!(found == [completed], "{found:?}");
    ensure!(listed(None, 100, &other).await?.len() == 3);
    ensure!(listed(None, 100, &key("none")?).await?.is_empty());
    Ok(())
}

async fn check_uses(store: &dyn Store, key: &DatasetKey, uploads: u64) -> Result<()> {
    let outcome = store.delete_dataset(key).await?;
    ensure!(
        outcome == DeleteOutcome::InUse { uploads },
        "expected {uploads} uploads, found {outcome:?}"
    );
    Ok(())
}

/// Expires an upload that has ended well.
pub(super) async fn expire<F: StoreFixture>(
    fixture: &F,
    store: &dyn Store,
    id: UploadId,
) -> Result<()> {
    let time = "2020-01-01T00:00:00.000000Z";
    let statement = format!("UPDATE uploads SET finished_at = '{time}' WHERE id = '{id}'");
    fixture.execute(&statement).await?;
    ensure!(store.expire_rows(MONTH).await? == 1);
    Ok(())
}

pub(crate) async fn a_dataset_in_use_is_not_deleted<F: StoreFixture>(fixture: &F) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (sales, other, definition) = (key("sales")?, key("other")?, sample_definition()?);
    create(store, &sales, &definition).await?;
    create(store, &other, &definition).await?;
    complete(store, &other, &definition, &sample_cells(1)).await?;
    crate::store::complete(store, 1, 1).await?;

    let cancelled = begin(store, &sales, &definition).await?;
    check_uses(store, &sales, 1).await?;
    let sealed = begin(store, &sales, &definition).await?;
    ensure!(store.seal(first(sealed), &seal(1, 1)).await?);
    let failed = begin(store, &sales, &definition).await?;
    store_new(store, &batches(failed, &definition, &sample_cells(2))?).await?;
    fail(store, failed).await?;
    let undone = complete(store, &sales, &definition, &sample_cells(2)).await?;
    let expired = complete(store, &sales, &definition, &sample_cells(2)).await?;
    check_uses(store, &sales, 5).await?;

    // An upload needs the table until its rows are removed.
    ensure!(store.cancel(first(cancelled)).await?);
    ensure!(store.undo(first(undone)).await?);
    expire(fixture, store, expired).await?;
    check_uses(store, &sales, 5).await?;
    for (id, left) in [(cancelled, 4), (failed, 3), (undone, 2), (expired, 1)] {
        remove_all(store, id).await?;
        check_uses(store, &sales, left).await?;
    }
    fail(store, sealed).await?;
    remove_all(store, sealed).await?;
    let deleted = store.delete_dataset(&sales).await?;
    ensure!(deleted == DeleteOutcome::Deleted, "{deleted:?}");
    ensure!(count(fixture, Relation::View, &other).await? == 1);
    check_status(store, sealed, Status::Failed).await
}

pub(crate) async fn a_status_of_a_newer_build_keeps_the_dataset<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let (store, key, definition) = (handle.as_ref(), key("sales")?, sample_definition()?);
    create(store, &key, &definition).await?;
    let id = complete(store, &key, &definition, &sample_cells(1)).await?;
    let newer = format!("UPDATE uploads SET status = 'archived' WHERE id = '{id}'");
    fixture.execute(&newer).await?;
    check_uses(store, &key, 1).await
}

pub(crate) async fn rows_of_an_expired_merge_keep_the_dataset<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let key = key("sales")?;
    create_dataset(store).await?;
    let row = |sku| (sku, Some("1"), None);
    let id = merge(store, Mode::Update, &[row("a"), row("b")]).await?;
    expire(fixture, store, id).await?;
    remove_all(store, id).await?;
    ensure!(count(fixture, Relation::View, &key).await? == 2);
    check_uses(store, &key, 1).await?;
    // Such an upload cannot be undone, but its rows can be deleted by hand.
    let delete = format!("DELETE FROM {}", F::table(&key));
    fixture.execute(&delete).await?;
    let deleted = store.delete_dataset(&key).await?;
    ensure!(deleted == DeleteOutcome::Deleted, "{deleted:?}");
    Ok(())
}

pub(crate) async fn a_deleted_dataset_leaves_no_table<F: StoreFixture>(fixture: &F) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let (key, definition) = (key("sales")?, sample_definition()?);
    ensure!(store.delete_dataset(&key).await? == DeleteOutcome::Missing);
    let empty = fixture.catalog().await?;
    create(store, &key, &definition).await?;
    ensure!(fixture.catalog().await? != empty);
    let undone = complete(store, &key, &definition, &sample_cells(3)).await?;
    ensure!(store.undo(first(undone)).await?);
    remove_all(store, undone).await?;
    ensure!(store.delete_dataset(&key).await? == DeleteOutcome::Deleted);
    ensure!(fixture.catalog().await? == empty);
    ensure!(store.dataset(&key).await?.is_none());
    ensure!(store.datasets(&key.tenant, None, 10).await?.is_empty());
    ensure!(store.delete_dataset(&key).await? == DeleteOutcome::Missing);
    // The record of its upload stays, and its rows stay removed.
    ensure!(find(store, undone).await?.dataset.is_some());
    ensure!(store.row_page(undone, 0).await?.is_none());
    remove_all(store, undone).await?;

    check_new_table(store, &key).await?;
    ensure!(count(fixture, Relation::Table, &key).await? == 2);
    Ok(())
}

/// Creates the dataset again with other columns, and stores two rows.
async fn check_new_table(store: &dyn Store, key: &DatasetKey) -> Result<()> {
    let definition = definition(&json!([
        { "name": "name", "type": "text" },
        { "name": "number", "type": "numeric" },
    ]))?;
    create(store, key, &definition).await?;
    let mut rows = sample_cells(2);
    for row in &mut rows {
        row.reverse();
    }
    let id = complete(store, key, &definition, &rows).await?;
    let page = crate::store::rows(store, id).await?;
    ensure!(page.iter().map(|row| &row.fields).eq(&rows), "{page:?}");
    Ok(())
}

pub(crate) async fn a_deletion_and_a_new_upload_exclude_each_other<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (one, two) = (fixture.open().await?, fixture.open().await?);
    let (key, definition) = (key("sales")?, sample_definition()?);
    for round in 0..20 {
        one.put_dataset(&key, &definition).await?;
        let new = new_typed_upload(UploadId::generate(), &key, &definition);
        // Each of the two starts first in half of the rounds.
        let (created, deleted) = match round % 2 {
            0 => join(one.create(&new), two.delete_dataset(&key)).await,
            _ => {
                let (deleted, created) = join(two.delete_dataset(&key), one.create(&new)).await;
                (created, deleted)
            }
        };
        match (created, deleted?) {
            (Ok(_), DeleteOutcome::InUse { uploads: 1 }) => {
                let batches = batches(new.id, &definition, &sample_cells(2))?;
                store_new(one.as_ref(), &batches).await?;
                end_well(one.as_ref(), new.id, 1, 2).await?;
                check_sample_rows(one.as_ref(), new.id, 2).await?;
                ensure!(one.undo(first(new.id)).await?);
                remove_all(one.as_ref(), new.id).await?;
            }
            (Err(error), DeleteOutcome::Deleted) => {
                ensure!(error.kind() == ErrorKind::NotFound, "{}", error.chain());
                ensure!(one.upload(new.id).await?.is_none());
            }
            (created, deleted) => anyhow::bail!("{created:?}, {deleted:?}"),
        }
    }
    // Uploads without a dataset are created all the same.
    one.create(&new_upload(UploadId::generate(), sample::columns()))
        .await?;
    Ok(())
}
