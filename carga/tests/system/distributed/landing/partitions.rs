//! Partitions are made ahead of time and dropped when their rows are gone; rows of a week without a
//! partition are stored all the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::error::ErrorKind;
use carga_common::store::{Removal, Store};
use carga_common::upload::{UploadId, UploadKey};
use carga_testkit::Scope;
use sqlx::PgPool;

use super::{batches, begin, check_rows, connect, count, end_well, execute, store_new};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn rows_of_a_week_without_a_partition_are_stored_and_read() -> Result<()> {
    const DROP_WEEKS: &str = "DO $$
        DECLARE
            name regclass;
        BEGIN
            FOR name IN SELECT inhrelid::regclass FROM pg_inherits
                        WHERE inhparent = 'landing'::regclass AND inhrelid <> 'landing_rest'::regclass
            LOOP
                EXECUTE format('DROP TABLE %s', name);
            END LOOP;
        END
        $$";
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(&scope).await?;
    sqlx::raw_sql(DROP_WEEKS).execute(&pool).await?;
    let id = begin(store.as_ref()).await?;
    store_new(store.as_ref(), &batches(id)?).await?;
    ensure!(count(&pool, "landing_rest").await? == 40);
    end_well(store.as_ref(), id).await?;
    check_rows(store.as_ref(), id).await?;

    // The partition of this week cannot be made any more, but that of the next week can.
    store.extend_landing().await?;
    ensure!(!has_partition(&pool, 0).await? && has_partition(&pool, 1).await?);
    check_rows(store.as_ref(), id).await?;
    ensure!(store.undo(UploadKey::first(id)).await?);
    ensure!(store.remove_rows(id).await? == Removal::Done);
    ensure!(count(&pool, "landing").await? == 0);
    store.close().await;
    scope.close().await
}

#[tokio::test]
async fn the_partition_of_the_next_week_is_made_without_waiting_for_others() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(&scope).await?;
    ensure!(has_partition(&pool, 0).await? && has_partition(&pool, 1).await?);
    let name: String = sqlx::query_scalar("SELECT landing_week(upload_week(now()) + 1)")
        .fetch_one(&pool)
        .await?;
    sqlx::raw_sql(&format!("DROP TABLE {name}"))
        .execute(&pool)
        .await?;

    let mut other = pool.begin().await?;
    sqlx::query("LOCK TABLE landing IN SHARE UPDATE EXCLUSIVE MODE")
        .execute(&mut *other)
        .await?;
    let refused = store.extend_landing().await;
    ensure!(
        refused.is_err_and(|error| error.kind() == ErrorKind::Unavailable),
        "it waited for the other transaction"
    );
    other.rollback().await?;
    store.extend_landing().await?;
    ensure!(has_partition(&pool, 1).await?);
    store.close().await;
    scope.close().await
}

#[tokio::test]
async fn a_partition_is_dropped_when_its_week_is_over_and_its_uploads_keep_no_rows() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(&scope).await?;
    let id = begin_four_weeks_ago(store.as_ref(), &pool).await?;
    store_new(store.as_ref(), &batches(id)?).await?;
    end_well(store.as_ref(), id).await?;
    ensure!(!store.shrink_landing().await?, "dropped rows that are kept");
    check_rows(store.as_ref(), id).await?;

    let set_back = "UPDATE uploads SET finished_at = now() - interval '2 days' WHERE id = $1";
    execute(&pool, set_back, id).await?;
    ensure!(store.expire_rows(DAY).await? == 1);
    ensure!(store.shrink_landing().await? && !store.shrink_landing().await?);
    ensure!(!has_partition(&pool, -4).await? && has_partition(&pool, 0).await?);
    ensure!(store.remove_rows(id).await? == Removal::Done);
    let upload = store.upload(id).await?;
    ensure!(
        upload.is_some_and(|upload| upload.expired_at.is_some() && !upload.cleanup_pending),
        "the record is wrong"
    );
    store.close().await;
    scope.close().await
}

#[tokio::test]
async fn an_upload_with_a_dataset_keeps_no_partition() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(&scope).await?;
    let id = begin_four_weeks_ago(store.as_ref(), &pool).await?;
    ensure!(!store.shrink_landing().await?, "dropped without a dataset");
    let set_dataset = r#"UPDATE uploads
        SET dataset = '{"name":"sales","columns":[],"missing":[],"ignored":[]}' WHERE id = $1"#;
    execute(&pool, set_dataset, id).await?;
    ensure!(store.shrink_landing().await?, "kept with a dataset");
    ensure!(!has_partition(&pool, -4).await? && has_partition(&pool, 0).await?);
    store.close().await;
    scope.close().await
}

#[tokio::test]
async fn an_upload_whose_staged_rows_can_still_be_merged_keeps_its_partition() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(&scope).await?;
    let id = begin_four_weeks_ago(store.as_ref(), &pool).await?;
    let end_without_a_merge = r#"UPDATE uploads
        SET status = 'partial', rows_dead = 5, rows_duplicate = 0,
            dataset = '{"name":"sales","columns":[],"missing":[],"ignored":[],"merge":{}}'
        WHERE id = $1"#;
    execute(&pool, end_without_a_merge, id).await?;
    ensure!(
        !store.shrink_landing().await?,
        "dropped rows that a retry merges"
    );
    execute(&pool, "UPDATE uploads SET rows_dead = 0 WHERE id = $1", id).await?;
    ensure!(store.shrink_landing().await?, "kept after the merge");
    store.close().await;
    scope.close().await
}

/// Begins an upload whose rows go into the partition of a week that is over.
async fn begin_four_weeks_ago(store: &dyn Store, pool: &PgPool) -> Result<UploadId> {
    sqlx::query("SELECT add_landing_week(upload_week(now()) - 4)")
        .execute(pool)
        .await?;
    let id = begin(store).await?;
    let set_number = "UPDATE uploads SET number = (upload_week(now()) - 4) << 40 WHERE id = $1";
    execute(pool, set_number, id).await?;
    Ok(id)
}

/// Whether the week that begins `weeks` after this one has a partition.
async fn has_partition(pool: &PgPool, weeks: i64) -> Result<bool> {
    let sql = "SELECT to_regclass(landing_week(upload_week(now()) + $1)) IS NOT NULL";
    Ok(sqlx::query_scalar(sql).bind(weeks).fetch_one(pool).await?)
}
