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
    let url = format!("{}/uploads/{id}/rows", app.url);
    let answer = app.client.get(url).send().await?.error_for_status()?;
    answer.bytes().await?;
    // A backend reports its statistics some seconds after it has become idle.
    let counted = eventually(TIMEOUT, "scans of the index", async || {
        let scans = index_scans(&pool).await.ok()?;
        (scans > 0).then_some(())
    });
    counted.await?;
    app.close().await
}

/// How often the index on row numbers was scanned.
async fn index_scans(pool: &PgPool) -> Result<i64> {
    let sql = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'rows_by_number'";
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}
