//! The promises of `ValidationStore`. The datasets and the rows are those of the merges.

pub(super) mod changes;
pub(super) mod differences;
pub(super) mod limits;
pub(super) mod reading;

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use carga_common::store::{Difference, Store, Trial, TrialBatches, Tried};
use carga_common::upload::{UploadDataset, UploadId};
use futures::StreamExt;
use futures::stream;
use tokio::time::Instant;

use super::StoreFixture;
use super::datasets::merging::{Row, columns};
use crate::sample;

/// Longer than any trial takes.
const MINUTE: Duration = Duration::from_secs(60);

/// The trial of a file with these rows.
pub(super) fn trial(dataset: UploadDataset, given: &[Row<'_>]) -> Trial {
    Trial {
        dataset,
        columns: ["SKU", "Stock", "Note"].map(String::from).to_vec(),
        rows_read: given.len() as u64,
        rows_rejected: 0,
        time_limit: MINUTE,
    }
}

/// The messages of these rows, with two rows each.
fn messages(given: &[Row<'_>]) -> Result<Vec<Bytes>> {
    let text = |text: &str| text.to_owned();
    let row = |(sku, stock, note): &Row<'_>| {
        let note = note.map(text);
        vec![Some(text(sku)), stock.map(text), note]
    };
    let columns: Vec<String> = columns()?.into_iter().map(|column| column.name).collect();
    let rows = given.iter().map(row);
    let batches = sample::encoded_batches_of(UploadId::generate(), &columns, rows, 2)?;
    Ok(batches.into_iter().map(|batch| batch.body).collect())
}

pub(super) fn stream_of(messages: Vec<Bytes>) -> TrialBatches<'static> {
    stream::iter(messages.into_iter().map(Ok)).boxed()
}

/// Checks that this work leaves the whole database as it was.
async fn without_trace<F: StoreFixture, T>(
    fixture: &F,
    work: impl Future<Output = T>,
) -> Result<T> {
    const LATEST: Duration = Duration::from_secs(10);
    let before = fixture.contents().await?;
    let outcome = work.await;
    // After a failure, the server drops a temporary table when it closes the connection.
    let deadline = Instant::now() + LATEST;
    loop {
        let after = fixture.contents().await?;
        if after == before {
            return Ok(outcome);
        }
        ensure!(
            Instant::now() < deadline,
            "before: {before:?}, after: {after:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Tries these rows, and checks that nothing is stored.
pub(super) async fn try_rows<F: StoreFixture>(
    fixture: &F,
    store: &dyn Store,
    dataset: UploadDataset,
    given: &[Row<'_>],
) -> Result<Tried> {
    let trial = trial(dataset, given);
    let batches = stream_of(messages(given)?);
    Ok(without_trace(fixture, store.validate(&trial, batches)).await??)
}

pub(super) fn difference(tried: Tried) -> Result<Difference> {
    match tried {
        Tried::Difference(difference) => Ok(difference),
        other => bail!("expected a difference, found {other:?}"),
    }
}
