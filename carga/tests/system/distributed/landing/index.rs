//! The number of pages that are read through the block range index.

use anyhow::{Result, ensure};
use carga_common::store::Removal;
use carga_common::upload::{UploadId, UploadKey};
use carga_testkit::Scope;
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use super::{begin, connect, count};
use crate::distributed::row_pages::NO_AUTOVACUUM;

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

/// Autovacuum does the same within a minute. Returns how many block ranges were not summarized.
const SUMMARIZE: &str = "
    SELECT sum(brin_summarize_new_values(indexrelid::regclass)) FROM pg_index
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

/// Makes a removal fail if its session has read more than a tenth of all pages.
const REFUSE_MANY_PAGES: &str = "
    CREATE FUNCTION refuse_many_pages() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        pages bigint;
        read bigint;
    BEGIN
        SELECT sum(pg_relation_size(inhrelid) / current_setting('block_size')::bigint),
               sum(pg_stat_get_xact_blocks_fetched(inhrelid))
        INTO pages, read
        FROM pg_inherits WHERE inhparent = 'landing'::regclass;
        IF read = 0 OR read * 10 > pages THEN
            RAISE EXCEPTION 'read % of % pages', read, pages;
        END IF;
        RETURN NULL;
    END
    $$;
    CREATE TRIGGER refuse_many_pages AFTER DELETE ON landing
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_many_pages()";

/// Without ANALYZE, Postgres would read the whole table for every step of a removal.
#[tokio::test]
async fn one_upload_of_ten_thousand_is_removed_without_reading_the_whole_table() -> Result<()> {
    const CANCEL_ONE: &str = "
        UPDATE uploads SET status = 'cancelled', cleanup_pending = true
        WHERE id = (SELECT id FROM uploads ORDER BY id OFFSET 5000 LIMIT 1)
        RETURNING id";
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(&scope).await?;
    sqlx::raw_sql(NO_AUTOVACUUM).execute(&pool).await?;
    sqlx::raw_sql(FILL).execute(&pool).await?;
    sqlx::raw_sql(SUMMARIZE).execute(&pool).await?;
    sqlx::raw_sql(REFUSE_MANY_PAGES).execute(&pool).await?;
    let id: Uuid = sqlx::query_scalar(CANCEL_ONE).fetch_one(&pool).await?;
    ensure!(store.remove_rows(UploadId::from(id)).await? == Removal::Done);
    ensure!(count(&pool, "landing").await? == 999_900);
    store.close().await;
    scope.close().await
}

/// A removal of several steps begins soon after the rows were stored. Without the summaries, each
/// step would read all new pages.
#[tokio::test]
async fn the_first_of_several_steps_of_a_removal_summarizes_the_index() -> Result<()> {
    const TWO_LARGE_BATCHES: &str = "
        INSERT INTO batches (upload_id, epoch, seq, first_row, rows, archive_bytes, archive_crc32, landing)
        SELECT id, 1, seq, seq * 30000 - 29999, 30000, 1000, 0, true
        FROM uploads, generate_series(1, 2) AS seq;
        INSERT INTO landing (upload, row_number, fields)
        SELECT number, r, ARRAY[r::text] FROM uploads, generate_series(1, 60000) AS r";
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(&scope).await?;
    sqlx::raw_sql(NO_AUTOVACUUM).execute(&pool).await?;
    let id = begin(store.as_ref()).await?;
    sqlx::raw_sql(TWO_LARGE_BATCHES).execute(&pool).await?;
    ensure!(store.cancel(UploadKey::first(id)).await?);
    ensure!(store.remove_rows(id).await? == Removal::More);
    let missing: i64 = sqlx::query_scalar(SUMMARIZE).fetch_one(&pool).await?;
    ensure!(missing == 0, "{missing} block ranges have no summary");
    ensure!(store.remove_rows(id).await? == Removal::Done);
    ensure!(count(&pool, "landing").await? == 0);
    store.close().await;
    scope.close().await
}

/// Without these settings, autovacuum would come to a partition only after a fifth of its rows is
/// new, and would not summarize the index.
#[tokio::test]
async fn autovacuum_is_set_to_summarize_every_partition_soon() -> Result<()> {
    const EXPECTED: [&str; 2] = [
        "autosummarize=on",
        "autovacuum_vacuum_insert_scale_factor=0.005",
    ];
    let scope = Scope::new().await?;
    connect(&scope).await?.close().await;
    let partitions: Vec<(String, Vec<String>)> = sqlx::query_as(
        "SELECT t.relname::text, coalesce(i.reloptions || t.reloptions, '{}')
         FROM pg_inherits p
         JOIN pg_class t ON t.oid = p.inhrelid
         JOIN pg_index x ON x.indrelid = t.oid
         JOIN pg_class i ON i.oid = x.indexrelid
         WHERE p.inhparent = 'landing'::regclass",
    )
    .fetch_all(&scope.pool())
    .await?;
    // This week, the next week, and the rows of all other weeks.
    ensure!(partitions.len() == 3, "{partitions:?}");
    for (name, options) in partitions {
        for expected in EXPECTED {
            ensure!(
                options.iter().any(|option| option == expected),
                "{name} lacks {expected}: {options:?}"
            );
        }
    }
    scope.close().await
}
