//! Which servers are used, and which are refused at start.

use std::io::{Read, Seek};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use carga_common::error::ErrorKind;
use carga_common::store::{PostgresSettings, PostgresStore, StoreConnection, UploadStore};
use carga_testkit::{Postgres, Scope, eventually};
use sqlx::PgPool;

use super::{connect, new_upload, settings};

/// Checks that Carga does not start, and that the reason has these parts and no password.
async fn check_refused(settings: PostgresSettings, parts: &[&str]) -> Result<()> {
    let Err(error) = PostgresStore::connect(settings).await else {
        bail!("the server is used");
    };
    let reason = error.chain();
    ensure!(error.kind() == ErrorKind::Misconfigured, "{reason}");
    for part in parts {
        ensure!(reason.contains(part), "{part} is missing in: {reason}");
    }
    ensure!(!reason.contains("s3cret"), "{reason}");
    Ok(())
}

/// Changes a default of all later sessions in the database of this scope.
async fn alter_database(scope: &Scope, setting: &str) -> Result<()> {
    let alter = format!(
        "DO $$
         BEGIN
             EXECUTE format('ALTER DATABASE %I SET {setting}', current_database());
         END
         $$"
    );
    sqlx::query(&alter).execute(&scope.pool()).await?;
    Ok(())
}

async fn replica() -> Result<Postgres> {
    let mut server = Postgres::start().await?;
    server.restart_as_replica().await?;
    Ok(server)
}

#[tokio::test]
async fn a_replica_is_refused() -> Result<()> {
    let server = replica().await?;
    let url = server.url("postgres");
    let url = url.replacen("carga@", "carga:s3cret@", 1);
    let expected = [
        "DATABASE_URL=postgres://carga:***@127.0.0.1:",
        "pg_is_in_recovery() is true",
        "name the primary",
    ];
    check_refused(settings(&url), &expected).await
}

/// A failover takes some seconds.
#[tokio::test]
async fn a_replica_that_is_promoted_during_the_start_is_used() -> Result<()> {
    let server = replica().await?;
    let url = server.url("postgres");
    let mut connecting = Box::pin(connect(&url));
    let early = tokio::time::timeout(Duration::from_secs(2), &mut connecting).await;
    ensure!(early.is_err(), "the start does not wait: {early:?}");
    let pool = PgPool::connect(&url).await?;
    let promoted: bool = sqlx::query_scalar("SELECT pg_promote()")
        .fetch_one(&pool)
        .await?;
    ensure!(promoted);
    let store = connecting.await?;
    store.create(&new_upload()).await?;
    store.close().await;
    Ok(())
}

#[tokio::test]
async fn a_database_that_is_read_only_is_refused() -> Result<()> {
    let scope = Scope::new().await?;
    alter_database(&scope, "default_transaction_read_only = on").await?;
    let expected = ["DATABASE_URL=postgres://", "default_transaction_read_only"];
    check_refused(settings(scope.database_url()), &expected).await?;
    scope.close().await
}

/// The function comes before the one of PostgreSQL in the search path.
#[tokio::test]
async fn a_server_with_the_version_of_another_product_is_used_only_if_a_setting_allows_it()
-> Result<()> {
    const VERSION: &str = "CREATE FUNCTION version() RETURNS text LANGUAGE sql
        AS 'SELECT $$CockroachDB CCL v23.2.4 (x86_64-pc-linux-gnu)$$'";
    let scope = Scope::new().await?;
    sqlx::query(VERSION).execute(&scope.pool()).await?;
    alter_database(&scope, "search_path = public, pg_catalog").await?;
    let expected = [
        "DATABASE_URL=postgres://",
        "CockroachDB CCL v23.2.4",
        "CARGA_ALLOW_UNKNOWN_POSTGRES=on",
    ];
    check_refused(settings(scope.database_url()), &expected).await?;
    let allowing = PostgresSettings {
        allow_unknown: true,
        ..settings(scope.database_url())
    };
    let (store, log) = log_of_start(allowing).await?;
    ensure!(log.contains("promises were not tested"), "{log}");
    store.create(&new_upload()).await?;
    store.close().await;
    scope.close().await
}

/// Starts, and returns what is logged meanwhile.
async fn log_of_start(settings: PostgresSettings) -> Result<(PostgresStore, String)> {
    let file = Arc::new(tempfile::tempfile()?);
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Arc::clone(&file))
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let store = PostgresStore::connect(settings).await?;
    drop(guard);
    let mut log = String::new();
    let mut file = &*file;
    file.rewind()?;
    file.read_to_string(&mut log)?;
    Ok((store, log))
}

#[tokio::test]
async fn a_server_that_may_lose_rows_in_a_crash_is_used_with_a_warning() -> Result<()> {
    const RISKS: [&str; 2] = ["has fsync=off", "has full_page_writes=off"];
    let server = Postgres::start().await?;
    let url = server.url("postgres");
    let (store, log) = log_of_start(settings(&url)).await?;
    store.close().await;
    ensure!(!RISKS.iter().any(|risk| log.contains(risk)), "{log}");
    let pool = PgPool::connect(&url).await?;
    for statement in [
        "ALTER SYSTEM SET fsync = off",
        "ALTER SYSTEM SET full_page_writes = off",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::query(statement).execute(&pool).await?;
    }
    eventually(Duration::from_secs(30), "the new settings", async || {
        let value = sqlx::query_scalar("SELECT current_setting('full_page_writes')");
        let value = value.fetch_one(&pool).await;
        value.is_ok_and(|value: String| value == "off")
    })
    .await?;
    let (store, log) = log_of_start(settings(&url)).await?;
    for risk in RISKS {
        ensure!(log.contains(risk), "{risk} is missing in: {log}");
    }
    store.create(&new_upload()).await?;
    store.close().await;
    Ok(())
}
