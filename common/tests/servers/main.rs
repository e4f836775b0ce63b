//! Promises of the adapters that only a change on the server can break.

#![cfg(all(feature = "postgres", feature = "redis"))]

mod postgres;

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::error::ErrorKind;
use carga_common::progress::{
    Counters, Presence, ProgressStore, RedisProgress, RedisSettings, Snapshot, StoredBatch,
};
use carga_common::store::{NewUpload, PostgresSettings, PostgresStore, UploadStore};
use carga_common::upload::{Dialect, UploadId, UploadKey};
use carga_testkit::Scope;
use deadpool_redis::redis::{self, Cmd};

/// Counts a batch, changes the counters behind the adapter's back, and checks that they are absent
/// then. `change` gets the prefix of the keys, and changes or adds this many fields or keys.
async fn check_absent_after(change: impl FnOnce(&str) -> Cmd, added: u32) -> Result<()> {
    const BATCH: StoredBatch = StoredBatch { seq: 1, rows: 10 };
    let scope = Scope::new().await?;
    let settings = RedisSettings {
        url: scope.redis_url().to_owned(),
        prefix: scope.name().to_owned(),
        ttl: Duration::from_secs(60),
    };
    let progress = RedisProgress::new(settings)?;
    let upload = UploadKey::first(UploadId::generate());
    progress.restore(upload, &Snapshot::default()).await?;
    ensure!(progress.stored(upload, &[BATCH]).await? == Presence::Present);
    let expected = Counters {
        rows_stored: 10,
        batches_stored: 1,
        ..Counters::default()
    };
    ensure!(progress.read(upload).await? == Some(expected));

    let change = change(&format!("{}:{{{}}}", scope.name(), upload.id));
    let client = redis::Client::open(scope.redis_url())?;
    let mut server = client.get_multiplexed_async_connection().await?;
    let found: u32 = change.query_async(&mut server).await?;
    ensure!(found == added, "the key is another one");
    ensure!(progress.read(upload).await?.is_none());
    ensure!(progress.stored(upload, &[BATCH]).await? == Presence::Absent);
    scope.close().await
}

/// With the bitmap gone, a batch that is reported again would be counted twice.
#[tokio::test]
async fn counters_without_their_bitmap_are_absent() -> Result<()> {
    let remove = |keys: &str| redis::cmd("DEL").arg(format!("{keys}:batches")).take();
    check_absent_after(remove, 1).await
}

/// The server may have restarted from an old snapshot, which lacks the latest batches.
#[tokio::test]
async fn counters_of_an_earlier_run_of_the_server_are_absent() -> Result<()> {
    let replace = |keys: &str| {
        let hash = format!("{keys}:counters");
        redis::cmd("HSET")
            .arg(hash)
            .arg("run")
            .arg("earlier")
            .take()
    };
    // The field exists, so none is added.
    check_absent_after(replace, 0).await
}

fn settings(url: &str) -> PostgresSettings {
    PostgresSettings {
        url: url.to_owned(),
        program: "servers".to_owned(),
        connections: 2,
        migrate: true,
    }
}

async fn connect(url: &str) -> Result<PostgresStore> {
    Ok(PostgresStore::connect(settings(url)).await?)
}

fn new_upload() -> NewUpload {
    NewUpload {
        id: UploadId::generate(),
        filename: None,
        dialect: Dialect::rfc4180(false),
        columns: vec!["a".to_owned()],
        bytes_total: None,
    }
}

/// An acknowledged batch must survive a crash of the server, whatever an operator has set for other
/// programs.
#[tokio::test]
async fn commits_are_durable_although_the_database_says_otherwise() -> Result<()> {
    let scope = Scope::new().await?;
    // Migrations create the table.
    drop(connect(scope.database_url()).await?);
    for statement in [
        "DO $$
         BEGIN
             EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
         END
         $$",
        "CREATE FUNCTION refuse_fast_commits() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF current_setting('synchronous_commit') <> 'on' THEN
                 RAISE EXCEPTION 'synchronous_commit is %', current_setting('synchronous_commit');
             END IF;
             RETURN NEW;
         END
         $$",
        "CREATE TRIGGER refuse_fast_commits BEFORE INSERT ON uploads
         FOR EACH ROW EXECUTE FUNCTION refuse_fast_commits()",
    ] {
        sqlx::query(statement).execute(&scope.pool()).await?;
    }
    let store = connect(scope.database_url()).await?;
    store.create(&new_upload()).await?;
    scope.close().await
}

/// A worker waits for an operator in this case, and charges no batch an attempt.
#[tokio::test]
async fn a_role_without_permissions_is_misconfigured() -> Result<()> {
    let scope = Scope::new().await?;
    drop(connect(scope.database_url()).await?);
    let role = format!("role_{}", UploadId::generate().as_uuid().simple());
    for statement in [
        format!("CREATE ROLE {role} LOGIN PASSWORD 'carga'"),
        format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"),
        format!("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"),
    ] {
        sqlx::query(&statement).execute(&scope.pool()).await?;
    }
    let (_, server) = scope.database_url().split_once('@').unwrap_or_default();
    let settings = PostgresSettings {
        connections: 1,
        migrate: false,
        ..settings(&format!("postgres://{role}:carga@{server}"))
    };
    let store = PostgresStore::connect(settings).await?;
    store.create(&new_upload()).await?;
    sqlx::query(&format!("REVOKE ALL ON uploads FROM {role}"))
        .execute(&scope.pool())
        .await?;
    let refused = store.create(&new_upload()).await;
    ensure!(
        refused
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Misconfigured),
        "{refused:?}"
    );
    drop(store);
    for statement in [format!("DROP OWNED BY {role}"), format!("DROP ROLE {role}")] {
        sqlx::query(&statement).execute(&scope.pool()).await?;
    }
    scope.close().await
}
