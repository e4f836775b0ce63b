//! The record and the visible rows of an upload, as a case expects them.

use anyhow::{Result, ensure};
use carga_common::store::{Store, StoreOutcome, StoredRow};
use carga_common::upload::{Status, Upload, UploadId};

use crate::sample;

/// The outcomes of a batch without rejected rows.
pub(super) const STORED: StoreOutcome = StoreOutcome::Stored { rejected: 0 };
pub(super) const REPLAY: StoreOutcome = StoreOutcome::Replay { rejected: 0 };

/// The upload; fails if it does not exist.
pub(super) async fn find(store: &dyn Store, id: UploadId) -> Result<Upload> {
    let found = store.upload(id).await?;
    anyhow::Context::context(found, "no such upload")
}

pub(super) async fn check_status(store: &dyn Store, id: UploadId, expected: Status) -> Result<()> {
    let status = find(store, id).await?.status;
    ensure!(status == expected, "expected {expected}, found {status}");
    Ok(())
}

/// The visible rows of an upload.
pub(super) async fn rows(store: &dyn Store, id: UploadId) -> Result<Vec<StoredRow>> {
    let (mut rows, mut after_seq) = (Vec::new(), 0);
    while let Some(page) = store.row_page(id, after_seq).await? {
        rows.extend(page.rows);
        after_seq = page.last_seq;
    }
    Ok(rows)
}

/// Checks that the visible rows are exactly the first `count` sample rows.
pub(super) async fn check_sample_rows(store: &dyn Store, id: UploadId, count: u64) -> Result<()> {
    let sample = |row_number| StoredRow {
        row_number,
        fields: sample::cells(row_number).into_iter().map(Some).collect(),
    };
    let found = rows(store, id).await?;
    ensure!(
        found.len() as u64 == count,
        "expected {count} rows, found {}",
        found.len()
    );
    ensure!(found.into_iter().eq((1..=count).map(sample)));
    Ok(())
}
