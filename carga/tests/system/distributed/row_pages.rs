//! Pages of rows in Postgres.

use anyhow::{Result, ensure};
use carga_testkit::{Scope, eventually};
use sqlx::PgPool;
use uuid::Uuid;

use crate::app::{App, TIMEOUT};
use crate::files::csv;

/// Postgres knows nothing about a table before its first ANALYZE, and would read all of it for
/// every page.
#[tokio::test]
async fn rows_are_found_by_the_index_before_the_table_was_analyzed() -> Result<()> {
    const ROWS: i64 = 40_000;
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let app = App::start(scope, 1).await?;
    sqlx::query("ALTER TABLE rows SET (autovacuum_enabled = off)")
        .execute(&pool)
        .await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(ROWS as usize)).await?.status() == 202);
    app.expect_completed(id, ROWS).await?;
    // The first download summarizes the index, which counts as scans of the table.
    let (table_scans, index_scans) = scans_after_download(&app, &pool, id, 0).await?;
    let (scans_later, _) = scans_after_download(&app, &pool, id, index_scans).await?;
    ensure!(
        scans_later == table_scans,
        "{table_scans}, then {scans_later}"
    );
    app.close().await
}

/// Downloads the rows, and waits until more index scans than before are counted.
async fn scans_after_download(
    app: &App,
    pool: &PgPool,
    id: Uuid,
    before: i64,
) -> Result<(i64, i64)> {
    let url = format!("{}/uploads/{id}/rows", app.url);
    let answer = app.client.get(url).send().await?.error_for_status()?;
    answer.bytes().await?;
    // A backend reports its statistics when it is idle.
    let counted = eventually(TIMEOUT, "index scans", async || {
        let (table_scans, index_scans) = scans(pool).await.ok()?;
        (index_scans > before).then_some((table_scans, index_scans))
    });
    counted.await
}

/// How often the whole table and its index on row numbers were scanned.
async fn scans(pool: &PgPool) -> Result<(i64, i64)> {
    let sql = "SELECT t.seq_scan, i.idx_scan
               FROM pg_stat_user_tables t JOIN pg_stat_user_indexes i USING (relid)
               WHERE t.relname = 'rows' AND i.indexrelname = 'rows_by_number'";
    Ok(sqlx::query_as(sql).fetch_one(pool).await?)
}
