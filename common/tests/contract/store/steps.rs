//! Steps that many cases take with an upload.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::store::{
    ArchivedBatch, Completed, NewUpload, Removal, Seal, Store, StoreOutcome,
};
use carga_common::tenant::Tenant;
use carga_common::upload::{Dialect, Failure, UploadId};
use jiff::Timestamp;

use super::{STORED, StoreFixture};
use crate::sample::{self, first};

pub(super) fn new_upload(id: UploadId, columns: Vec<String>) -> NewUpload {
    NewUpload {
        id,
        tenant: Tenant::default(),
        created_by: None,
        filename: Some("sample.csv".to_owned()),
        dialect: Dialect::rfc4180(false),
        columns,
        dataset: None,
        bytes_total: None,
    }
}

/// Creates an upload with the sample's columns.
pub(super) async fn begin(store: &dyn Store) -> Result<UploadId> {
    let id = UploadId::generate();
    store.create(&new_upload(id, sample::columns())).await?;
    Ok(id)
}

pub(super) fn seal(batches: u32, rows: u64) -> Seal {
    Seal {
        rows,
        rejected: 0,
        blank_lines: 0,
        batches,
        bytes: rows * 10,
        sha256: [7; 32].into(),
        duplicate_of: None,
        dialect: None,
    }
}

pub(super) fn failure() -> Failure {
    Failure::new("interrupted", "the connection was lost")
}

pub(super) async fn fail(store: &dyn Store, id: UploadId) -> Result<()> {
    ensure!(store.fail(first(id), &failure(), None).await?);
    Ok(())
}

/// Stores batches that are all new.
pub(super) async fn store_new(store: &dyn Store, batches: &[ArchivedBatch]) -> Result<()> {
    // A worker stores groups of about this size.
    for group in batches.chunks(30) {
        let mut outcomes = store.store(group).await?;
        // The upload of all batches is being sealed at this moment.
        while outcomes == vec![StoreOutcome::Locked; group.len()] {
            outcomes = store.store(group).await?;
        }
        ensure!(outcomes == vec![STORED; group.len()], "{outcomes:?}");
    }
    Ok(())
}

/// Creates an upload, stores its batches and completes it.
pub(super) async fn complete(store: &dyn Store, batches: u32, per_batch: u32) -> Result<UploadId> {
    let id = begin(store).await?;
    store_new(store, &sample::batches(id, batches, per_batch)?).await?;
    end_well(store, id, batches, u64::from(batches * per_batch)).await?;
    Ok(id)
}

/// Seals and completes an upload whose batches are all stored.
pub(super) async fn end_well(
    store: &dyn Store,
    id: UploadId,
    batches: u32,
    rows: u64,
) -> Result<()> {
    ensure!(store.seal(first(id), &seal(batches, rows)).await?);
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    Ok(())
}

/// Sets the end of an upload back by this time.
pub(super) async fn set_back<F: StoreFixture>(
    fixture: &F,
    id: UploadId,
    by: Duration,
) -> Result<()> {
    let time = Timestamp::now().checked_sub(by)?;
    let time = time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
    let statement = format!("UPDATE uploads SET finished_at = '{time}' WHERE id = '{id}'");
    fixture.execute(&statement).await
}

/// Removes all rows of an upload. Returns how many calls left rows to remove.
pub(super) async fn remove_all(store: &dyn Store, id: UploadId) -> Result<u32> {
    let mut calls = 0;
    loop {
        match store.remove_rows(id).await? {
            Removal::Done => return Ok(calls),
            Removal::More => calls += 1,
            Removal::Busy => anyhow::bail!("another process is removing the rows"),
        }
    }
}
