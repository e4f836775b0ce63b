//! During an upgrade, the previous version stores and removes rows of the same uploads.

use anyhow::{Result, ensure};
use carga_common::store::{Removal, Store, StoreOutcome};
use carga_common::upload::{Failure, UploadId, UploadKey};
use carga_testkit::Scope;
use sqlx::PgPool;
use sqlx::types::Json;

use super::{
    BATCH_ROWS, BATCHES, batches, check_rows, connect, count, end_well, execute, new_upload,
    store_new,
};

#[tokio::test]
async fn an_upload_that_two_versions_stored_is_read_and_removed_whole() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(&scope).await?;
    let id = store_by_two_versions(store.as_ref(), &pool).await?;
    let replayed = store.store(&batches(id)?).await?;
    ensure!(
        replayed == [StoreOutcome::Replay { rejected: 0 }; BATCHES as usize],
        "{replayed:?}"
    );
    end_well(store.as_ref(), id).await?;
    check_rows(store.as_ref(), id).await?;
    let visible: i64 = sqlx::query_scalar("SELECT count(*) FROM upload_rows WHERE upload_id = $1")
        .bind(id.as_uuid())
        .fetch_one(&pool)
        .await?;
    ensure!(visible == 40, "the view has {visible} rows");
    ensure!(store.undo(UploadKey::first(id)).await?);
    ensure!(store.remove_rows(id).await? == Removal::Done);
    for table in ["landing", "rows", "batches"] {
        ensure!(count(&pool, table).await? == 0, "{table} has rows left");
    }
    store.close().await;
    scope.close().await
}

/// The previous version does not know that an upload has rows in the table `landing`.
#[tokio::test]
async fn a_removal_by_the_previous_version_leaves_the_other_rows_to_this_one() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(&scope).await?;
    let id = store_by_two_versions(store.as_ref(), &pool).await?;
    let failure = Failure::new("interrupted", "the connection was lost");
    ensure!(store.fail(UploadKey::first(id), &failure, None).await?);
    for statement in previous::REMOVAL {
        execute(&pool, statement, id).await?;
    }
    ensure!(count(&pool, "rows").await? == 0);
    ensure!(count(&pool, "landing").await? == 20);
    let upload = store.upload(id).await?;
    ensure!(upload.is_some_and(|upload| upload.cleanup_pending));
    ensure!(store.remove_rows(id).await? == Removal::Done);
    for table in ["landing", "batches"] {
        ensure!(count(&pool, table).await? == 0, "{table} has rows left");
    }
    let upload = store.upload(id).await?;
    ensure!(upload.is_some_and(|upload| !upload.cleanup_pending));
    store.close().await;
    scope.close().await
}

/// The statements of the previous version, which runs beside this one during an upgrade.
mod previous {
    pub(super) const CREATE: &str =
        "INSERT INTO uploads (id, status, filename, dialect, columns, bytes_total)
         VALUES ($1, 'receiving', $2, $3, $4, $5)";

    pub(super) const LEASE: &str = "INSERT INTO upload_leases (upload_id) VALUES ($1)";

    pub(super) const ENTER: &str =
        "INSERT INTO batches (upload_id, epoch, seq, rows, first_row, archive_bytes, archive_crc32)
         SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[])
         ON CONFLICT DO NOTHING
         RETURNING upload_id, epoch, seq";

    /// The version itself copies the same columns. `$2` is the first of ten row numbers.
    pub(super) const ROWS: &str = "INSERT INTO rows (upload_id, row_number, fields)
         SELECT $1, number, ARRAY[number::text, 'name of ' || number]
         FROM generate_series($2::bigint, $2::bigint + 9) AS number";

    pub(super) const REMOVAL: [&str; 3] = [
        "DELETE FROM rows WHERE ctid = ANY (ARRAY (SELECT ctid FROM rows WHERE upload_id = $1 LIMIT 50000))",
        "DELETE FROM batches WHERE upload_id = $1",
        "UPDATE uploads SET cleanup_pending = false, updated_at = now() WHERE id = $1",
    ];
}

/// Creates an upload as the previous version does, and stores its batches in turn: the first as the
/// previous version does, the second as this one does, and so on.
async fn store_by_two_versions(store: &dyn Store, pool: &PgPool) -> Result<UploadId> {
    let upload = new_upload();
    let id = upload.id;
    sqlx::query(previous::CREATE)
        .bind(id.as_uuid())
        .bind(&upload.filename)
        .bind(Json(&upload.dialect))
        .bind(&upload.columns)
        .bind(None::<i64>)
        .execute(pool)
        .await?;
    execute(pool, previous::LEASE, id).await?;
    for (batch, seq) in batches(id)?.into_iter().zip(1..) {
        if seq % 2 == 0 {
            store_new(store, &[batch]).await?;
            continue;
        }
        let first_row = batch.batch.first_row().cast_signed();
        sqlx::query(previous::ENTER)
            .bind(vec![id.as_uuid()])
            .bind(vec![1])
            .bind(vec![seq])
            .bind(vec![BATCH_ROWS as i32])
            .bind(vec![first_row])
            .bind(vec![batch.archive_bytes.cast_signed()])
            .bind(vec![0_i64])
            .execute(pool)
            .await?;
        sqlx::query(previous::ROWS)
            .bind(id.as_uuid())
            .bind(first_row)
            .execute(pool)
            .await?;
    }
    Ok(id)
}
