//! The landing table of Postgres: its index, its partitions, and the rows of the previous version.

mod index;
mod partitions;
mod retention;
mod versions;

use std::sync::Arc;

use anyhow::{Result, ensure};
use carga_common::archive::ArchiveCompression;
use carga_common::batch::{Batch, BatchEncoder, BatchLimits};
use carga_common::settings::SecretUrl;
use carga_common::store::{
    ArchivedBatch, Completed, NewUpload, PostgresSettings, PostgresStore, Seal, Store, StoreOutcome,
};
use carga_common::upload::{Dialect, UploadId, UploadKey};
use carga_testkit::Scope;
use sqlx::PgPool;

/// Rows of a batch, and batches of an upload.
const BATCH_ROWS: u64 = 10;
const BATCHES: u64 = 4;

async fn connect(scope: &Scope) -> Result<Arc<dyn Store>> {
    let settings = PostgresSettings {
        url: SecretUrl::new(scope.database_url().to_owned()),
        program: "landing".to_owned(),
        connections: 2,
        migrate: true,
        allow_unknown: false,
    };
    Ok(Arc::new(PostgresStore::connect(settings).await?))
}

fn new_upload() -> NewUpload {
    NewUpload {
        id: UploadId::generate(),
        tenant: Default::default(),
        created_by: None,
        filename: None,
        dialect: Dialect::rfc4180(false),
        columns: ["number", "name"].map(String::from).to_vec(),
        bytes_total: None,
        dataset: None,
    }
}

async fn begin(store: &dyn Store) -> Result<UploadId> {
    Ok(store.create(&new_upload()).await?.id)
}

fn cells(row_number: u64) -> [String; 2] {
    [row_number.to_string(), format!("name of {row_number}")]
}

/// All batches of an upload.
fn batches(id: UploadId) -> Result<Vec<ArchivedBatch>> {
    let limits = BatchLimits {
        rows: BATCH_ROWS as u32,
        bytes: 1 << 20,
    };
    let columns = new_upload().columns;
    let mut encoder = BatchEncoder::new(UploadKey::first(id), &columns, "00-trace", limits);
    let mut encoded = Vec::new();
    for number in 1..=BATCHES * BATCH_ROWS {
        encoded.extend(encoder.push(number, cells(number).iter().map(String::as_str))?);
    }
    encoded.extend(encoder.finish().0);
    let archived = |batch: Batch| ArchivedBatch {
        archive_compression: ArchiveCompression::None,
        archive_bytes: batch.size_bytes() as u64,
        archive_crc32: 0,
        object_bytes: batch.size_bytes() as u64,
        batch,
    };
    let decoded = encoded.into_iter().map(|batch| Batch::decode(batch.body));
    decoded.map(|batch| Ok(archived(batch?))).collect()
}

async fn store_new(store: &dyn Store, batches: &[ArchivedBatch]) -> Result<()> {
    let outcomes = store.store(batches).await?;
    ensure!(
        outcomes == vec![StoreOutcome::Stored { rejected: 0 }; batches.len()],
        "{outcomes:?}"
    );
    Ok(())
}

/// Seals and completes an upload whose batches are all stored.
async fn end_well(store: &dyn Store, id: UploadId) -> Result<()> {
    let seal = Seal {
        rows: BATCHES * BATCH_ROWS,
        rejected: 0,
        blank_lines: 0,
        batches: BATCHES as u32,
        bytes: 1000,
        sha256: [7; 32].into(),
        duplicate_of: None,
        dialect: None,
    };
    ensure!(store.seal(UploadKey::first(id), &seal).await?);
    ensure!(store.complete(UploadKey::first(id), 0).await? == Completed::Yes);
    Ok(())
}

/// Checks that all rows are read back, in order.
async fn check_rows(store: &dyn Store, id: UploadId) -> Result<()> {
    let (mut next, mut after_seq) = (1, 0);
    while let Some(page) = store.row_page(id, after_seq).await? {
        for row in page.rows {
            let expected = cells(next).map(Some);
            ensure!(
                row.row_number == next && row.fields == expected,
                "expected row {next}, found {row:?}"
            );
            next += 1;
        }
        after_seq = page.last_seq;
    }
    ensure!(next == BATCHES * BATCH_ROWS + 1, "row {next} is missing");
    Ok(())
}

/// Counts the rows of a table.
async fn count(pool: &PgPool, table: &str) -> Result<i64> {
    let sql = format!("SELECT count(*) FROM {table}");
    Ok(sqlx::query_scalar(&sql).fetch_one(pool).await?)
}

/// Runs a statement whose only parameter is the id of an upload.
async fn execute(pool: &PgPool, statement: &str, id: UploadId) -> Result<()> {
    sqlx::query(statement)
        .bind(id.as_uuid())
        .execute(pool)
        .await?;
    Ok(())
}
