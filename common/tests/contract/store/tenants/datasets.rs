//! Datasets of two tenants, with their tables.

use anyhow::{Context, Result, ensure};
use carga_common::dataset::Definition;
use carga_common::error::ErrorKind;
use carga_common::store::{DeleteOutcome, NewUpload, PutOutcome, Store, UploadQuery};
use carga_common::tenant::Tenant;
use carga_common::upload::UploadId;
use futures::future::try_join_all;
use serde_json::json;

use super::{two_datasets, two_tenants};
use crate::sample::first;
use crate::store::datasets::{
    complete, count, create, key_of, new_typed_upload, sample_cells, sample_definition,
};
use crate::store::{Relation, StoreFixture, remove_all};

/// A definition with one column.
fn narrow() -> Result<Definition> {
    let json = json!({ "columns": [{ "name": "number", "type": "integer" }] });
    Ok(Definition::from_json(json.to_string().as_bytes())?)
}

/// The names of a tenant's datasets.
async fn listed(store: &dyn Store, tenant: &Tenant) -> Result<Vec<String>> {
    let (mut names, mut last) = (Vec::new(), None);
    loop {
        let page = store.datasets(tenant, last.as_ref(), 2).await?;
        let Some(dataset) = page.last() else {
            return Ok(names);
        };
        last = Some(dataset.name.clone());
        ensure!(page.iter().all(|dataset| dataset.tenant == *tenant));
        names.extend(page.iter().map(|dataset| dataset.name.to_string()));
    }
}

pub(crate) async fn datasets_of_two_tenants_with_one_name_are_independent<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let [one, other] = two_datasets()?;
    create(store, &one, &sample_definition()?).await?;
    ensure!(store.dataset(&other).await?.is_none());
    ensure!(store.delete_dataset(&other).await? == DeleteOutcome::Missing);
    create(store, &other, &narrow()?).await?;
    create(store, &key_of(other.tenant.clone(), "only")?, &narrow()?).await?;
    ensure!(listed(store, &one.tenant).await? == ["sales"]);
    ensure!(listed(store, &other.tenant).await? == ["only", "sales"]);
    ensure!(listed(store, &"none".parse()?).await?.is_empty());

    // A change of one definition leaves the other one and its time.
    let before = store.dataset(&one).await?.context("no such dataset")?;
    let wide = sample_definition()?;
    ensure!(store.put_dataset(&one, &wide).await? == PutOutcome::Unchanged);
    let changed = json!({ "columns": [
        { "name": "number", "type": "integer" },
        { "name": "added", "type": "date" },
    ] });
    let changed = Definition::from_json(changed.to_string().as_bytes())?;
    ensure!(store.put_dataset(&other, &changed).await? == PutOutcome::Changed);
    ensure!(store.dataset(&one).await? == Some(before));
    let found = store.dataset(&other).await?.context("no such dataset")?;
    ensure!(
        found.key() == other && found.definition == changed,
        "{found:?}"
    );
    Ok(())
}

pub(crate) async fn a_tenant_deletes_its_own_dataset_only<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let [one, other] = two_datasets()?;
    let definition = sample_definition()?;
    for key in [&one, &other] {
        create(store, key, &definition).await?;
    }
    let kept = complete(store, &other, &definition, &sample_cells(3)).await?;
    // The uploads of the other tenant do not keep this dataset.
    ensure!(store.delete_dataset(&one).await? == DeleteOutcome::Deleted);
    ensure!(store.dataset(&one).await?.is_none());
    ensure!(count(fixture, Relation::View, &other).await? == 3);
    let in_use = DeleteOutcome::InUse { uploads: 1 };
    ensure!(store.delete_dataset(&other).await? == in_use);

    create(store, &one, &definition).await?;
    complete(store, &one, &definition, &sample_cells(2)).await?;
    ensure!(store.undo(first(kept)).await?);
    remove_all(store, kept).await?;
    ensure!(store.delete_dataset(&other).await? == DeleteOutcome::Deleted);
    ensure!(count(fixture, Relation::View, &one).await? == 2);
    Ok(())
}

pub(crate) async fn concurrent_first_datasets_of_a_tenant_are_all_created<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handles = [fixture.open().await?, fixture.open().await?];
    for tenant in ["acme-2", "b"] {
        let tenant: Tenant = tenant.parse()?;
        let mut keys = Vec::new();
        for number in 0..8 {
            keys.push(key_of(tenant.clone(), &format!("dataset {number}"))?);
        }
        let definition = sample_definition()?;
        let puts = keys.iter().cloned().zip(handles.iter().cycle());
        let puts = puts.map(|(key, store)| {
            let (store, definition) = (store.clone(), definition.clone());
            tokio::spawn(async move { store.put_dataset(&key, &definition).await })
        });
        for outcome in try_join_all(puts).await? {
            ensure!(outcome? == PutOutcome::Created);
        }
        for key in &keys {
            ensure!(count(fixture, Relation::View, key).await? == 0);
        }
    }
    Ok(())
}

/// Names that would collide if the name of a table did not separate the tenant from the dataset.
pub(crate) async fn every_dataset_has_a_table_of_its_own_whatever_the_names_are<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let definition = sample_definition()?;
    let keys = [
        ("default", "a-b"),
        ("default", "a_b"),
        ("default", "a.b"),
        ("default", "b"),
        ("default", "datasets_a"),
        ("a", "b"),
        ("a", "a_b"),
        ("a_b", "b"),
        ("a-b", "b"),
        ("a_b", "a.b"),
        ("datasets", "b"),
    ];
    let mut created = Vec::new();
    for (tenant, name) in keys {
        let key = key_of(tenant.parse()?, name)?;
        create(store, &key, &definition).await?;
        created.push(key);
    }
    for (key, rows) in created.iter().zip(1..) {
        complete(store, key, &definition, &sample_cells(rows)).await?;
    }
    for (key, rows) in created.iter().zip(1..) {
        for relation in [Relation::Table, Relation::View] {
            let found = count(fixture, relation, key).await?;
            ensure!(found == rows, "{key}: expected {rows} rows, found {found}");
        }
    }
    Ok(())
}

pub(crate) async fn an_upload_into_a_dataset_of_another_tenant_is_not_created<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let [one, other] = two_datasets()?;
    let definition = sample_definition()?;
    create(store, &one, &definition).await?;
    let id = UploadId::generate();
    let own = new_typed_upload(id, &other, &definition);
    let foreign = NewUpload {
        tenant: other.tenant.clone(),
        ..new_typed_upload(id, &one, &definition)
    };
    for new in [own, foreign] {
        let outcome = store.create(&new).await;
        ensure!(outcome.is_err_and(|error| error.kind() == ErrorKind::NotFound));
        ensure!(store.upload_of(&other.tenant, id).await?.is_none());
    }
    Ok(())
}

pub(crate) async fn uploads_are_listed_by_the_dataset_of_their_tenant<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let definition = sample_definition()?;
    let id = UploadId::generate();
    let mut created = Vec::new();
    for key in two_datasets()? {
        create(store, &key, &definition).await?;
        let upload = store
            .create(&new_typed_upload(id, &key, &definition))
            .await?;
        created.push((key, upload.id));
    }
    let listed = async |tenant: Option<Tenant>| -> Result<Vec<UploadId>> {
        let query = UploadQuery {
            tenant,
            created_by: None,
            status: None,
            dataset: Some("sales".parse()?),
            limit: 10,
            before: None,
        };
        let listed = store.uploads(&query).await?;
        Ok(listed.iter().map(|upload| upload.id).collect())
    };
    for (key, id) in created {
        ensure!(listed(Some(key.tenant)).await? == [id]);
    }
    ensure!(listed(Some("none".parse()?)).await?.is_empty());
    ensure!(listed(None).await?.len() == two_tenants()?.len());
    Ok(())
}
