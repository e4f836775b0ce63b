//! The rows of batches that violate a constraint of their dataset's table: kept as rejected rows,
//! and counted in the ledger.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::batch::{Batch, BatchId};
use crate::store::postgres::table_rows::Violations;
use crate::store::postgres::{key, rejects};
use crate::store::sql::{self, count};
use crate::store::violations::rejected_rows;
use crate::upload::{UploadDataset, UploadId};

/// Counts rejected rows in ledger entries. Each list has one value per batch.
const COUNT: &str = "UPDATE batches b SET rejected = r.rejected
    FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[]) AS r (upload_id, epoch, seq, rejected)
    WHERE b.upload_id = r.upload_id AND b.epoch = r.epoch AND b.seq = r.seq";

/// The batches with rejected rows among those of three lists.
const COUNTED: &str = "SELECT b.upload_id, b.epoch, b.seq, b.rejected
    FROM unnest($1::uuid[], $2::int[], $3::int[]) AS r (upload_id, epoch, seq)
    JOIN batches b ON b.upload_id = r.upload_id AND b.epoch = r.epoch AND b.seq = r.seq
    WHERE b.rejected > 0";

/// Keeps the violating rows of new batches as rejected rows. Returns how many each batch has.
pub(super) async fn record(
    connection: &mut PgConnection,
    batches: &[&Batch],
    datasets: &HashMap<UploadId, UploadDataset>,
    violations: &Violations,
) -> sqlx::Result<HashMap<BatchId, u32>> {
    let mut counts = HashMap::new();
    if violations.is_empty() {
        return Ok(counts);
    }
    let uploads = violations.keys();
    let uploads: Vec<Uuid> = uploads
        .map(|position| batches[*position].id.upload.id.as_uuid())
        .collect();
    let file_columns = file_columns(connection, uploads).await?;
    for (position, violations) in violations {
        let batch = batches[*position];
        let upload = batch.id.upload.id;
        let (dataset, columns) = (&datasets[&upload], &file_columns[&upload]);
        let rows = rejected_rows(batch, dataset, columns, violations).map_err(sql::invalid)?;
        rejects::insert(connection, upload, &rows).await?;
        counts.insert(batch.id, rows.len() as u32);
    }
    count_in_ledger(connection, &counts).await?;
    Ok(counts)
}

/// The columns of the files of these uploads.
async fn file_columns(
    connection: &mut PgConnection,
    uploads: Vec<Uuid>,
) -> sqlx::Result<HashMap<UploadId, Vec<String>>> {
    let found: Vec<(Uuid, Vec<String>)> =
        sqlx::query_as("SELECT id, columns FROM uploads WHERE id = ANY($1)")
            .bind(uploads)
            .fetch_all(connection)
            .await?;
    let found = found.into_iter().map(|(id, columns)| (id.into(), columns));
    Ok(found.collect())
}

async fn count_in_ledger(
    connection: &mut PgConnection,
    counts: &HashMap<BatchId, u32>,
) -> sqlx::Result<()> {
    let ids: Vec<BatchId> = counts.keys().copied().collect();
    let (uploads, epochs, seqs) = lists(&ids);
    let counts: Vec<i32> = counts.values().map(|count| count.cast_signed()).collect();
    sqlx::query(COUNT)
        .bind(uploads)
        .bind(epochs)
        .bind(seqs)
        .bind(counts)
        .execute(connection)
        .await?;
    Ok(())
}

/// How many rows of these batches were rejected when they were stored. A batch that is missing here
/// has none.
pub(super) async fn of_replays(
    connection: &mut PgConnection,
    batches: &[BatchId],
) -> sqlx::Result<HashMap<BatchId, u32>> {
    if batches.is_empty() {
        return Ok(HashMap::new());
    }
    let (uploads, epochs, seqs) = lists(batches);
    let found: Vec<(Uuid, i32, i32, i32)> = sqlx::query_as(COUNTED)
        .bind(uploads)
        .bind(epochs)
        .bind(seqs)
        .fetch_all(connection)
        .await?;
    let counted = found.into_iter().map(|(upload, epoch, seq, rejected)| {
        let id = BatchId {
            upload: key(upload, epoch),
            seq: seq.cast_unsigned(),
        };
        Ok::<_, sqlx::Error>((id, count("rejected", rejected)?))
    });
    counted.collect()
}

/// The uploads, the epochs and the numbers of batches.
fn lists(batches: &[BatchId]) -> (Vec<Uuid>, Vec<i32>, Vec<i32>) {
    let uploads = batches.iter().map(|id| id.upload.id.as_uuid());
    let epochs = batches.iter().map(|id| id.upload.epoch.get());
    let seqs = batches.iter().map(|id| id.seq.cast_signed());
    (uploads.collect(), epochs.collect(), seqs.collect())
}
