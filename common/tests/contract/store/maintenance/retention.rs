//! The rows of uploads that ended well expire after a time; the records stay.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::error::ErrorKind;
use carga_common::tenant::Tenant;
use carga_common::upload::Status;

use crate::sample::{self, first};
use crate::store::{
    StoreFixture, begin, check_sample_rows, complete, fail, find, remove_all, seal, set_back,
};

/// Longer than any test takes.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// How far an upload's end is set back.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub(crate) async fn an_expired_upload_loses_rows_and_ledger_and_keeps_its_record<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let old = complete(store.as_ref(), 3, 10).await?;
    let recent = complete(store.as_ref(), 3, 10).await?;
    ensure!(store.expire_rows(MONTH).await? == 0);
    set_back(fixture, old, YEAR).await?;
    ensure!(store.expire_rows(MONTH).await? == 1);
    ensure!(store.expire_rows(MONTH).await? == 0, "it expired twice");
    let found = store.leftovers(MONTH, MONTH).await?;
    ensure!(
        found.to_remove == [old] && found.to_unarchive == [old],
        "{found:?}"
    );

    // A late delivery must not bring the archive back.
    ensure!(!store.admits(sample::batch(old)?.batch.id).await?);
    ensure!(store.admits(sample::batch(recent)?.batch.id).await?);

    remove_all(store.as_ref(), old).await?;
    store.archive_removed(old).await?;
    ensure!(fixture.rows_in_table(old).await? == 0);
    ensure!(store.ledger(first(old)).await?.is_empty());
    let found = store.leftovers(MONTH, MONTH).await?;
    ensure!(
        found.to_remove.is_empty() && found.to_unarchive.is_empty(),
        "{found:?}"
    );
    let upload = find(store.as_ref(), old).await?;
    ensure!(upload.status == Status::Completed, "{upload:?}");
    ensure!(upload.rows_inserted == Some(30), "{upload:?}");
    ensure!(
        upload.expired_at.is_some() && !upload.cleanup_pending,
        "{upload:?}"
    );
    ensure!(find(store.as_ref(), recent).await?.expired_at.is_none());
    check_sample_rows(store.as_ref(), recent, 30).await
}

pub(crate) async fn uploads_that_keep_no_rows_do_not_expire<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let receiving = begin(store.as_ref()).await?;
    let failed = begin(store.as_ref()).await?;
    fail(store.as_ref(), failed).await?;
    for id in [receiving, failed] {
        set_back(fixture, id, YEAR).await?;
    }
    ensure!(store.expire_rows(MONTH).await? == 0);
    ensure!(find(store.as_ref(), failed).await?.expired_at.is_none());
    Ok(())
}

pub(crate) async fn reading_expired_rows_is_a_conflict<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let id = complete(store.as_ref(), 3, 10).await?;
    let page = store.row_page(id, 0).await?.context("no first page")?;
    set_back(fixture, id, YEAR).await?;
    ensure!(store.expire_rows(MONTH).await? == 1);
    for after_seq in [0, page.last_seq] {
        let Err(error) = store.row_page(id, after_seq).await else {
            anyhow::bail!("a page after batch {after_seq} was read");
        };
        ensure!(error.kind() == ErrorKind::Conflict, "{}", error.chain());
        ensure!(error.chain().contains("CARGA_RETENTION_DAYS"));
    }
    Ok(())
}

pub(crate) async fn the_content_of_an_expired_upload_is_new_again<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = complete(store.as_ref(), 1, 10).await?;
    let (tenant, content) = (Tenant::default(), seal(1, 10).sha256);
    let another = begin(store.as_ref()).await?;
    let key = first(another);
    ensure!(store.same_content(&tenant, content, another).await? == Some(id));
    ensure!(store.claim_content(key, content).await? == Some(id));
    set_back(fixture, id, YEAR).await?;
    ensure!(store.expire_rows(MONTH).await? == 1);
    ensure!(
        store
            .same_content(&tenant, content, another)
            .await?
            .is_none()
    );
    ensure!(store.claim_content(key, content).await?.is_none());
    Ok(())
}
