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
    let (table_scans, _) = scans(&pool).await?;
    let url = format!("{}/uploads/{id}/rows", app.url);
    let bytes = app.client.get(url).send().await?.bytes().await?;
    ensure!(bytes.len() > csv(ROWS as usize).len() / 2);
    // A backend reports its statistics when it is idle.
    let index_scans = eventually(TIMEOUT, "the statistics", async || {
        let (_, index_scans) = scans(&pool).await.ok()?;
        (index_scans > 0).then_some(index_scans)
    });
    index_scans.await?;
    ensure!(scans(&pool).await?.0 == table_scans);
    app.close().await
}

/// How often the whole table and its index on row numbers were scanned.
async fn scans(pool: &PgPool) -> Result<(i64, i64)> {
    let sql = "SELECT t.seq_scan, i.idx_scan
               FROM pg_stat_user_tables t JOIN pg_stat_user_indexes i USING (relid)
               WHERE t.relname = 'rows' AND i.indexrelname = 'rows_by_number'";
    Ok(sqlx::query_as(sql).fetch_one(pool).await?)
}
