//! The number of pages that are read through the block range index.

use anyhow::{Result, ensure};
use carga_testkit::Scope;
use serde_json::Value;
use sqlx::types::Json;

use super::connect;

/// 10,000 completed uploads of 100 rows. Their ids are random, as those that clients choose.
const FILL: &str = "
    INSERT INTO uploads (id, status, dialect, columns, rows_read, batches_total, rows_inserted, finished_at)
    SELECT gen_random_uuid(), 'completed', '{}', ARRAY['number', 'name'], 100, 1, 100, now()
    FROM generate_series(1, 10000);
    INSERT INTO batches (upload_id, epoch, seq, first_row, rows, archive_bytes, archive_crc32, landing)
    SELECT id, 1, 1, 1, 100, 1000, 0, true FROM uploads;
    INSERT INTO landing (upload, row_number, fields)
    SELECT u.number, r, ARRAY[r::text, 'name of ' || r]
    FROM uploads u, generate_series(1, 100) AS r
    ORDER BY u.number, r";

/// Autovacuum does the same within a minute.
const SUMMARIZE: &str = "
    SELECT brin_summarize_new_values(indexrelid::regclass) FROM pg_index
    WHERE indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'landing'::regclass)";

/// The statement with which the store reads a page of rows.
const PAGE: &str = include_str!("../../../../../common/src/store/postgres/page_of_rows.sql");

#[tokio::test]
async fn one_upload_of_ten_thousand_with_random_ids_is_found_in_a_few_pages() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    connect(&scope).await?.close().await;
    sqlx::raw_sql(FILL).execute(&pool).await?;
    sqlx::raw_sql(SUMMARIZE).execute(&pool).await?;
    let number: i64 =
        sqlx::query_scalar("SELECT number FROM uploads ORDER BY id OFFSET 5000 LIMIT 1")
            .fetch_one(&pool)
            .await?;
    let pages: i64 = sqlx::query_scalar(
        "SELECT sum(pg_relation_size(inhrelid) / current_setting('block_size')::bigint)::bigint
         FROM pg_inherits WHERE inhparent = 'landing'::regclass",
    )
    .fetch_one(&pool)
    .await?;

    let mut transaction = pool.begin().await?;
    sqlx::query("SET LOCAL enable_seqscan = off")
        .execute(&mut *transaction)
        .await?;
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {PAGE}");
    let Json(explained): Json<Value> = sqlx::query_scalar(&explain)
        .bind(number)
        .bind(1_i64)
        .bind(i64::MAX)
        .bind(100_i64)
        .fetch_one(&mut *transaction)
        .await?;
    transaction.rollback().await?;
    let plan = &explained[0]["Plan"];
    ensure!(plan["Actual Rows"].as_f64() == Some(100.0), "{plan:#}");
    let read = plan["Shared Hit Blocks"].as_i64().unwrap_or(i64::MAX / 100)
        + plan["Shared Read Blocks"].as_i64().unwrap_or_default();
    ensure!(
        read * 50 <= pages,
        "read {read} of {pages} pages:\n{plan:#}"
    );
    scope.close().await
}
