//! The records of uploads of two tenants.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use carga_common::error::{ErrorKind, PortError};
use carga_common::store::{Store, UploadQuery};
use carga_common::tenant::Tenant;
use carga_common::upload::{Status, Upload, UploadId};
use futures::future::try_join_all;
use uuid::Uuid;

use super::{begin, new_upload_of, two_tenants};
use crate::sample::{self, first};
use crate::store::{StoreFixture, check_status, end_well, fail, find, seal, store_new};

/// The error of a creation that is a conflict.
async fn conflict(store: &dyn Store, tenant: &Tenant, public_id: UploadId) -> Result<PortError> {
    let outcome = store.create(&new_upload_of(tenant, public_id)).await;
    let error = outcome.err().context("the upload was created")?;
    ensure!(error.kind() == ErrorKind::Conflict, "{}", error.chain());
    Ok(error)
}

async fn of(store: &dyn Store, tenant: &Tenant, public_id: UploadId) -> Result<Upload> {
    let found = store.upload_of(tenant, public_id).await?;
    found.context("the tenant has no such upload")
}

pub(crate) async fn each_tenant_uses_a_public_id_once<F: StoreFixture>(fixture: &F) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let [one, other] = two_tenants()?;
    let id: UploadId = Uuid::new_v4().into();
    let created = [
        begin(store, &one, id).await?,
        begin(store, &other, id).await?,
    ];
    ensure!(created[0].id == id && created[1].id != id, "{created:?}");
    for (upload, tenant) in created.iter().zip([&one, &other]) {
        ensure!(upload.public_id == id && upload.tenant == *tenant);
        ensure!(find(store, upload.id).await?.public_id == id);
    }
    // The answer is the same whether the public id of the other upload is its id or not.
    let own: UploadId = Uuid::new_v4().into();
    begin(store, &other, own).await?;
    for (tenant, public_id) in [(&one, id), (&other, id), (&other, own)] {
        conflict(store, tenant, public_id).await?;
    }
    // The id stays used after its upload has ended.
    fail(store, created[1].id).await?;
    conflict(store, &other, id).await?;
    check_status(store, created[0].id, Status::Receiving).await
}

/// The id that the store has made for an upload is free for every tenant, even for its own.
pub(crate) async fn an_id_of_the_database_is_no_public_id_of_another_upload<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let [one, other] = two_tenants()?;
    let id: UploadId = Uuid::new_v4().into();
    begin(store, &one, id).await?;
    let made = begin(store, &other, id).await?.id;
    for tenant in [&one, &other] {
        ensure!(store.upload_of(tenant, made).await?.is_none());
        let created = begin(store, tenant, made).await?;
        ensure!(
            created.public_id == made && created.id != made,
            "{created:?}"
        );
        ensure!(of(store, tenant, made).await?.id == created.id);
        conflict(store, tenant, made).await?;
    }
    Ok(())
}

pub(crate) async fn of_concurrent_creations_of_one_id_each_tenant_makes_one<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const CALLERS: usize = 3;
    let handles = [fixture.open().await?, fixture.open().await?];
    let mut tenants = two_tenants()?.to_vec();
    tenants.push("b".parse()?);
    for _ in 0..5 {
        let id: UploadId = Uuid::new_v4().into();
        let creations = (0..CALLERS * tenants.len()).map(|number| {
            let store = handles[number % handles.len()].clone();
            let new = new_upload_of(&tenants[number / CALLERS], id);
            tokio::spawn(async move { store.create(&new).await })
        });
        let mut created = Vec::new();
        for outcome in try_join_all(creations).await? {
            match outcome {
                Ok(upload) => created.push(upload),
                Err(error) => ensure!(error.kind() == ErrorKind::Conflict, "{}", error.chain()),
            }
        }
        ensure!(created.len() == tenants.len(), "{created:?}");
        let found: BTreeSet<&Tenant> = created.iter().map(|upload| &upload.tenant).collect();
        ensure!(found == tenants.iter().collect(), "{created:?}");
        ensure!(created.iter().all(|upload| upload.public_id == id));
        let ids: BTreeSet<UploadId> = created.iter().map(|upload| upload.id).collect();
        ensure!(ids.len() == tenants.len() && ids.contains(&id), "{ids:?}");
    }
    Ok(())
}

pub(crate) async fn a_tenant_finds_its_own_uploads_only<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let [one, other] = two_tenants()?;
    let shared: UploadId = Uuid::new_v4().into();
    let first_one = begin(store, &one, shared).await?;
    let second_one = begin(store, &other, shared).await?;
    let alone = begin(store, &one, UploadId::generate()).await?;
    ensure!(of(store, &one, shared).await?.id == first_one.id);
    ensure!(of(store, &other, shared).await?.id == second_one.id);
    ensure!(of(store, &one, alone.public_id).await?.id == alone.id);
    ensure!(store.upload_of(&other, alone.id).await?.is_none());
    ensure!(store.upload_of(&"none".parse()?, shared).await?.is_none());

    // Rows, seal and end belong to one of the two uploads.
    store_new(store, &sample::batches(second_one.id, 1, 10)?).await?;
    end_well(store, second_one.id, 1, 10).await?;
    ensure!(of(store, &other, shared).await?.status == Status::Completed);
    let untouched = of(store, &one, shared).await?;
    ensure!(untouched.status == Status::Receiving && untouched.rows_inserted.is_none());
    ensure!(fixture.rows_in_table(first_one.id).await? == 0);
    Ok(())
}

/// The uploads of a tenant, read in pages of `limit`. A page begins behind a public id, as a client
/// knows it.
async fn pages(store: &dyn Store, query: &UploadQuery) -> Result<Vec<Upload>> {
    let mut all: Vec<Upload> = Vec::new();
    loop {
        let query = UploadQuery {
            before: all.last().map(|last| (last.created_at, last.public_id)),
            ..query.clone()
        };
        let page = store.uploads(&query).await?;
        ensure!(page.len() <= query.limit as usize);
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Lists all uploads of a tenant, or of all tenants, in pages of this length.
fn listing(tenant: Option<&Tenant>, limit: u32) -> UploadQuery {
    UploadQuery {
        tenant: tenant.cloned(),
        created_by: None,
        status: None,
        dataset: None,
        limit,
        before: None,
    }
}

pub(crate) async fn a_tenant_lists_its_own_uploads_only<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const EQUALIZE_CREATED_AT: &str =
        "UPDATE uploads SET created_at = (SELECT min(created_at) FROM uploads)";
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let tenants = two_tenants()?;
    let mut expected = [BTreeSet::new(), BTreeSet::new()];
    for _ in 0..12 {
        let id: UploadId = Uuid::new_v4().into();
        for (tenant, expected) in tenants.iter().zip(&mut expected) {
            expected.insert(begin(store, tenant, id).await?.id);
        }
    }
    // All pages begin between uploads of the same time.
    fixture.execute(EQUALIZE_CREATED_AT).await?;
    for (tenant, expected) in tenants.iter().zip(&expected) {
        for limit in [1, 5, 12, 100] {
            let listed = pages(store, &listing(Some(tenant), limit)).await?;
            let ids = listed.iter().map(|upload| &upload.id);
            ensure!(ids.eq(expected.iter().rev()), "{limit}: {listed:?}");
            ensure!(listed.iter().all(|upload| upload.tenant == *tenant));
        }
    }
    ensure!(store.uploads(&listing(None, 100)).await?.len() == 24);

    // A status is looked for among the uploads of the tenant.
    let other = &tenants[1];
    let failed = begin(store, other, UploadId::generate()).await?.id;
    fail(store, failed).await?;
    for (tenant, count) in tenants.iter().zip([0, 1]) {
        let query = UploadQuery {
            status: Some(Status::Failed),
            ..listing(Some(tenant), 100)
        };
        ensure!(store.uploads(&query).await?.len() == count, "{tenant}");
    }
    Ok(())
}

pub(crate) async fn the_content_of_another_tenant_is_new<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let [one, other] = two_tenants()?;
    let content = seal(1, 10).sha256;
    let shared: UploadId = Uuid::new_v4().into();
    let stored = begin(store, &one, shared).await?;
    store_new(store, &sample::batches(stored.id, 1, 10)?).await?;
    end_well(store, stored.id, 1, 10).await?;
    let asking = begin(store, &other, shared).await?;
    ensure!(
        store
            .same_content(&other, content, asking.id)
            .await?
            .is_none()
    );
    ensure!(
        store
            .claim_content(first(asking.id), content)
            .await?
            .is_none()
    );
    store_new(store, &sample::batches(asking.id, 1, 10)?).await?;
    end_well(store, asking.id, 1, 10).await?;

    // Now each tenant has the content, and learns the id that it knows.
    for (tenant, holder) in [(&one, &stored), (&other, &asking)] {
        let new = begin(store, tenant, UploadId::generate()).await?;
        let found = store.same_content(tenant, content, new.id).await?;
        ensure!(found == Some(shared), "{found:?}");
        let found = store.claim_content(first(new.id), content).await?;
        ensure!(found == Some(shared), "{found:?}");
        ensure!(
            store
                .same_content(tenant, content, holder.id)
                .await?
                .is_none()
        );
    }
    Ok(())
}
