//! Pages of rows in Postgres.

use anyhow::{Result, ensure};
use carga_testkit::{Scope, eventually};
use sqlx::PgPool;
use uuid::Uuid;

use crate::app::{App, TIMEOUT};
use crate::files::csv;

/// Keeps autovacuum from analyzing the partitions of the landing table.
pub(super) const NO_AUTOVACUUM: &str = "DO $$
DECLARE
    name regclass;
BEGIN
    FOR name IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'landing'::regclass LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', name);
    END LOOP;
END
$$";

/// Postgres knows nothing about a table before its first ANALYZE, and would read all of it for
/// every page.
#[tokio::test]
async fn rows_are_found_by_the_index_before_the_table_was_analyzed() -> Result<()> {
    const ROWS: i64 = 40_000;
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let app = App::start(scope, 1).await?;
    sqlx::raw_sql(NO_AUTOVACUUM).execute(&pool).await?;
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

/// How often the indexes on row numbers were scanned.
async fn index_scans(pool: &PgPool) -> Result<i64> {
    let sql = r"SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_indexes WHERE relname LIKE 'landing\_2%'";
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}
