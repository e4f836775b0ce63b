//! Rows in the tables of two tenants.

use anyhow::{Result, ensure};
use carga_common::dataset::{DatasetKey, Mode};
use carga_common::store::StoreOutcome;
use carga_common::upload::{UploadDataset, UploadId};

use super::two_datasets;
use crate::sample::{self, first};
use crate::store::datasets::merging::{self, Row, merge_into, merged};
use crate::store::datasets::{
    batches, complete, count, create, new_typed_upload, sample_cells, sample_definition, stored,
};
use crate::store::validation::{difference, try_rows};
use crate::store::{Relation, StoreFixture, end_well, fail, find, remove_all, rows, store_new};

/// The dataset of an upload of a tenant that updates rows by their key.
fn updating(key: &DatasetKey) -> Result<UploadDataset> {
    Ok(UploadDataset {
        tenant: key.tenant.clone(),
        ..merged(Mode::Update)?
    })
}

/// The values of the rows in the table of a dataset, in the order of their keys.
async fn values<F: StoreFixture>(fixture: &F, key: &DatasetKey) -> Result<Vec<Vec<String>>> {
    let columns = merging::columns()?;
    let found = fixture.typed_rows(key, Relation::Table, &columns).await?;
    let cells = |fields: Vec<Option<String>>| fields.into_iter().flatten().collect();
    let mut values: Vec<Vec<String>> = found
        .into_iter()
        .map(|(_, row)| cells(row.fields))
        .collect();
    values.sort();
    Ok(values)
}

pub(crate) async fn rows_go_into_the_table_of_their_tenant<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let definition = sample_definition()?;
    let keys = two_datasets()?;
    let public_id = UploadId::generate();
    let mut uploads = Vec::new();
    for key in &keys {
        create(store, key, &definition).await?;
        let new = new_typed_upload(public_id, key, &definition);
        uploads.push(store.create(&new).await?.id);
    }
    // One group has the batches of both tenants.
    let given = [sample_cells(3), sample_cells(5)];
    let mut group = Vec::new();
    for (id, cells) in uploads.iter().zip(&given) {
        group.extend(batches(*id, &definition, cells)?);
    }
    store_new(store, &group).await?;
    for (id, cells) in uploads.iter().zip(&given) {
        end_well(store, *id, 1, cells.len() as u64).await?;
    }
    for ((key, id), cells) in keys.iter().zip(&uploads).zip(&given) {
        for relation in [Relation::Table, Relation::View] {
            ensure!(count(fixture, relation, key).await? == cells.len());
            let found = stored(fixture, relation, (key, &definition), *id).await?;
            ensure!(found == *cells, "{key}: {found:?}");
        }
        let found = rows(store, *id).await?;
        ensure!(found.iter().map(|row| &row.fields).eq(cells), "{found:?}");
    }
    Ok(())
}

pub(crate) async fn a_removal_leaves_the_rows_of_another_tenant<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let definition = sample_definition()?;
    let [one, other] = two_datasets()?;
    for key in [&one, &other] {
        create(store, key, &definition).await?;
        complete(store, key, &definition, &sample_cells(4)).await?;
    }
    let new = new_typed_upload(UploadId::generate(), &other, &definition);
    let failed = store.create(&new).await?.id;
    store_new(store, &batches(failed, &definition, &sample_cells(1500))?).await?;
    fail(store, failed).await?;
    remove_all(store, failed).await?;
    ensure!(count(fixture, Relation::Table, &other).await? == 4);
    let undone = complete(store, &other, &definition, &sample_cells(7)).await?;
    ensure!(store.undo(first(undone)).await?);
    remove_all(store, undone).await?;
    ensure!(count(fixture, Relation::Table, &other).await? == 4);
    ensure!(count(fixture, Relation::Table, &one).await? == 4);
    Ok(())
}

pub(crate) async fn a_merge_and_its_undo_change_the_table_of_one_tenant<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const FIRST: [Row<'_>; 2] = [("a", Some("1"), Some("x")), ("b", Some("2"), Some("y"))];
    const SECOND: [Row<'_>; 2] = [("b", Some("9"), Some("z")), ("c", Some("3"), Some("w"))];
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let [one, other] = two_datasets()?;
    for key in [&one, &other] {
        create(store, key, &merging::definition()?).await?;
        merge_into(store, updating(key)?, &FIRST).await?;
    }
    let before = values(fixture, &one).await?;
    ensure!(before.len() == 2 && values(fixture, &other).await? == before);

    let second = merge_into(store, updating(&other)?, &SECOND).await?;
    let upload = find(store, second).await?;
    ensure!((upload.rows_inserted, upload.rows_updated) == (Some(1), Some(1)));
    let after = values(fixture, &other).await?;
    let changed = [["a", "1", "x"], ["b", "9", "z"], ["c", "3", "w"]];
    ensure!(after == changed, "{after:?}");
    ensure!(values(fixture, &one).await? == before);

    ensure!(store.undo(first(second)).await?);
    remove_all(store, second).await?;
    ensure!(values(fixture, &other).await? == before);
    ensure!(values(fixture, &one).await? == before);
    Ok(())
}

pub(crate) async fn the_table_of_a_tenant_rejects_rows_with_their_column<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let definition = sample_definition()?;
    let [one, other] = two_datasets()?;
    for key in [&one, &other] {
        create(store, key, &definition).await?;
    }
    let table = F::table(&other);
    let index = format!("CREATE UNIQUE INDEX one_of_a_name ON {table} (name)");
    fixture.execute(&index).await?;
    for (key, rejected) in [(&one, 0), (&other, 1)] {
        let mut new = new_typed_upload(UploadId::generate(), key, &definition);
        new.columns = sample::columns();
        if let Some(dataset) = &mut new.dataset {
            dataset.missing = Vec::new();
            dataset.ignored = Vec::new();
            dataset.sources = vec![Some(0), Some(1)];
        }
        let id = store.create(&new).await?.id;
        let row = |number: u32| vec![Some(number.to_string()), Some("the same".to_owned())];
        let batch = sample::typed_batches_of(id, &sample::columns(), (1..=2).map(row), 5)?;
        let expected = StoreOutcome::Stored { rejected };
        ensure!(store.store(&batch).await? == [expected], "{key}");
        let found = store.rejected_page(id, 0).await?;
        ensure!(found.len() == rejected as usize, "{found:?}");
        for row in found {
            ensure!(row.code == "unique_violation" && row.row == 2, "{row:?}");
            ensure!(row.column.as_deref() == Some("name"), "{row:?}");
        }
    }
    Ok(())
}

pub(crate) async fn a_trial_reads_the_table_of_its_tenant<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const STORED: [Row<'_>; 2] = [("a", Some("1"), None), ("b", Some("2"), None)];
    const GIVEN: [Row<'_>; 2] = [("a", Some("3"), None), ("b", Some("4"), None)];
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let [one, other] = two_datasets()?;
    for key in [&one, &other] {
        create(store, key, &merging::definition()?).await?;
    }
    merge_into(store, updating(&other)?, &STORED).await?;
    for (key, inserted, updated) in [(&one, 2, 0), (&other, 0, 2)] {
        let tried = try_rows(fixture, store, updating(key)?, &GIVEN).await?;
        let found = difference(tried)?;
        ensure!(
            (found.inserted, found.updated) == (inserted, updated),
            "{key}: {found:?}"
        );
    }
    Ok(())
}
