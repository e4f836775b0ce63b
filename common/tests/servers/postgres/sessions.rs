//! The settings of the sessions, which the server itself checks here.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::dataset::{DatasetKey, Definition};
use carga_common::store::{
    CreateConditions, DatasetStore, DeleteOutcome, Heartbeat, KeyStore, PostgresSettings,
    PostgresStore, StoreConnection, UploadSlots, UploadStore,
};
use carga_common::upload::UploadId;
use carga_testkit::{Scope, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{connect, new_upload, settings};

/// A new upload inserts its lease on a common connection. A heartbeat updates the lease on the
/// connection for renewals.
const REFUSE_OTHER_SETTINGS: &str = "
    CREATE FUNCTION refuse_other_settings() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        expected record;
    BEGIN
        FOR expected IN
            SELECT * FROM (VALUES
                ('statement_timeout', '1min'),
                ('lock_timeout', '30s'),
                ('idle_in_transaction_session_timeout', '1min'),
                ('tcp_keepalives_idle', '20'),
                ('tcp_keepalives_interval', '5'),
                ('tcp_keepalives_count', '4'),
                ('tcp_user_timeout', '30000')
            ) AS settings (name, value)
        LOOP
            IF current_setting(expected.name) <> expected.value THEN
                RAISE EXCEPTION '% is %', expected.name, current_setting(expected.name);
            END IF;
        END LOOP;
        RETURN NEW;
    END
    $$;
    CREATE TRIGGER refuse_other_settings BEFORE INSERT OR UPDATE ON upload_leases
    FOR EACH ROW EXECUTE FUNCTION refuse_other_settings()";

/// Without these settings, a call waits without end, or a vanished worker holds its locks for two
/// hours.
#[tokio::test]
async fn every_session_has_time_limits_and_short_keepalives() -> Result<()> {
    let scope = Scope::new().await?;
    // The only connection has run the migrations, without time limits. No call may use it again.
    let settings = PostgresSettings {
        connections: 1,
        ..settings(scope.database_url())
    };
    let store = PostgresStore::connect(settings).await?;
    sqlx::raw_sql(REFUSE_OTHER_SETTINGS)
        .execute(&scope.pool())
        .await?;
    let id = store.create(&new_upload()).await?.id;
    let beat = Heartbeat {
        upload: id,
        rows_read: 1,
        rows_rejected: 0,
        bytes_received: 10,
    };
    let renewed = store.heartbeat(&[beat]).await?;
    ensure!(renewed == [id], "{renewed:?}");
    scope.close().await
}

/// Every request with a key looks the key up first, even while all other connections are busy.
#[tokio::test]
async fn a_key_is_found_while_no_other_connection_is_free() -> Result<()> {
    const WAITING: &str = "SELECT count(*) FROM pg_locks WHERE NOT granted
        AND relation = 'upload_leases'::regclass
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let scope = Scope::new().await?;
    let settings = PostgresSettings {
        connections: 1,
        ..settings(scope.database_url())
    };
    let store = PostgresStore::connect(settings).await?;
    let mut holder = scope.pool().begin().await?;
    sqlx::query("LOCK TABLE upload_leases IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *holder)
        .await?;
    let creating = tokio::spawn({
        let store = store.clone();
        async move { store.create(&new_upload()).await }
    });
    let pool = scope.pool();
    eventually(Duration::from_secs(30), "the upload to wait", async || {
        let waiting = sqlx::query_scalar(WAITING).fetch_one(&pool).await;
        waiting.is_ok_and(|waiting: i64| waiting > 0)
    })
    .await?;
    let found = store.key(&"0123456789ab".parse()?).await?;
    ensure!(found.is_none());
    ensure!(!creating.is_finished());
    holder.rollback().await?;
    creating.await??;
    store.close().await;
    scope.close().await
}

/// Migration 5 sets `lock_timeout` to 5 s.
const REFUSE_TIME_LIMITS: &str = "
    CREATE FUNCTION refuse_time_limits() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_setting('statement_timeout') <> '0'
            OR current_setting('lock_timeout') NOT IN ('0', '5s') THEN
            RAISE EXCEPTION 'statement_timeout is %, lock_timeout is %',
                current_setting('statement_timeout'), current_setting('lock_timeout');
        END IF;
    END
    $$;
    CREATE EVENT TRIGGER refuse_time_limits ON ddl_command_start
    EXECUTE FUNCTION refuse_time_limits()";

/// A migration of a large table may take hours.
#[tokio::test]
async fn a_migration_has_no_time_limit() -> Result<()> {
    let scope = Scope::new().await?;
    sqlx::raw_sql(REFUSE_TIME_LIMITS)
        .execute(&scope.pool())
        .await?;
    let store = connect(scope.database_url()).await?;
    store.create(&new_upload()).await?;
    scope.close().await
}

/// Refuses the uploads of a session whose commits are not durable at once.
const REFUSE_FAST_COMMITS: &str = "
    CREATE FUNCTION refuse_fast_commits() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_setting('synchronous_commit') <> 'on' THEN
            RAISE EXCEPTION 'synchronous_commit is %', current_setting('synchronous_commit');
        END IF;
        RETURN NEW;
    END
    $$;
    CREATE TRIGGER refuse_fast_commits BEFORE INSERT ON uploads
    FOR EACH ROW EXECUTE FUNCTION refuse_fast_commits()";

/// An acknowledged batch must survive a crash of the server, whatever an operator has set for other
/// programs.
#[tokio::test]
async fn commits_are_durable_although_the_database_says_otherwise() -> Result<()> {
    const FAST: &str = "DO $$
         BEGIN
             EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
         END
         $$";
    let scope = Scope::new().await?;
    // Migrations create the table.
    drop(connect(scope.database_url()).await?);
    for statements in [FAST, REFUSE_FAST_COMMITS] {
        sqlx::raw_sql(statements).execute(&scope.pool()).await?;
    }
    let store = connect(scope.database_url()).await?;
    store.create(&new_upload()).await?;
    scope.close().await
}

/// The default of a role takes precedence over that of the database.
#[tokio::test]
async fn commits_are_durable_although_the_role_says_otherwise() -> Result<()> {
    let scope = Scope::new().await?;
    drop(connect(scope.database_url()).await?);
    let role = format!("role_{}", UploadId::generate().as_uuid().simple());
    for statements in [
        format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'carga'"),
        format!("ALTER ROLE {role} SET synchronous_commit = off"),
        REFUSE_FAST_COMMITS.to_owned(),
    ] {
        sqlx::raw_sql(&statements).execute(&scope.pool()).await?;
    }
    let (_, server) = scope.database_url().split_once('@').context("no @")?;
    let store = connect(&format!("postgres://{role}:carga@{server}")).await?;
    let created = store.create(&new_upload()).await;
    store.close().await;
    // Also after a failure, because all databases of the server share their roles.
    for statement in [format!("DROP OWNED BY {role}"), format!("DROP ROLE {role}")] {
        sqlx::query(&statement).execute(&scope.pool()).await?;
    }
    created?;
    scope.close().await
}

/// The uploads of a tenant take its slots one after another, and each must see the one before.
#[tokio::test]
async fn slots_are_counted_exactly_although_the_database_has_another_isolation() -> Result<()> {
    const ISOLATION: &str = "DO $$
         BEGIN
             EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = %L',
                            current_database(), 'repeatable read');
         END
         $$";
    let scope = Scope::new().await?;
    drop(connect(scope.database_url()).await?);
    sqlx::query(ISOLATION).execute(&scope.pool()).await?;
    let stores = [
        connect(scope.database_url()).await?,
        connect(scope.database_url()).await?,
    ];
    let conditions = CreateConditions {
        slots: Some(UploadSlots {
            most: 1,
            lease: Duration::from_secs(60),
        }),
        ..CreateConditions::default()
    };
    let create = async |store: &PostgresStore| {
        let creation = store.create_if(&new_upload(), conditions).await?;
        anyhow::Ok(creation.upload())
    };
    for _ in 0..20 {
        let created = tokio::try_join!(create(&stores[0]), create(&stores[1]))?;
        let created: Vec<_> = [created.0, created.1].into_iter().flatten().collect();
        ensure!(created.len() == 1, "{created:?}");
        ensure!(stores[0].cancel(created[0].key()).await?);
    }
    scope.close().await
}

/// Reads the first message of a client, and returns it without its start-up options. `expected` is
/// how many of them it must have. The message is its length, the version of the protocol, and pairs
/// of texts that end with NUL.
async fn start_without_options(client: &mut TcpStream, expected: usize) -> Result<Vec<u8>> {
    let length = client.read_u32().await?;
    let mut message = vec![0; length as usize - 4];
    client.read_exact(&mut message).await?;
    let (version, texts) = message.split_at(4);
    let texts: Vec<&[u8]> = texts.split(|byte| *byte == 0).collect();
    let pairs = texts.chunks_exact(2).filter(|pair| !pair[0].is_empty());
    let (options, kept): (Vec<_>, Vec<_>) = pairs.partition(|pair| pair[0] == b"options");
    let found = options.len();
    ensure!(
        found == expected,
        "{found} start-up options and not {expected}"
    );
    let mut start = version.to_vec();
    for text in kept.into_iter().flatten() {
        start.extend_from_slice(text);
        start.push(0);
    }
    start.push(0);
    let mut sent = (start.len() as u32 + 4).to_be_bytes().to_vec();
    sent.extend(start);
    Ok(sent)
}

/// Relays connections to a server like a pooler that drops their start-up options.
async fn relay(listener: TcpListener, server: String) -> Result<()> {
    let mut connections = JoinSet::new();
    // The first connection examines the server, and has no options.
    let mut options = 0;
    loop {
        let (mut client, _) = listener.accept().await?;
        let expected = std::mem::replace(&mut options, 1);
        let server = server.clone();
        connections.spawn(async move {
            let start = start_without_options(&mut client, expected).await?;
            let mut server = TcpStream::connect(server).await?;
            server.write_all(&start).await?;
            copy_bidirectional(&mut client, &mut server).await?;
            anyhow::Ok(())
        });
    }
}

/// A trigger would otherwise refuse to delete the dataset of another tenant.
#[tokio::test]
async fn a_session_knows_tenants_although_its_options_are_dropped() -> Result<()> {
    const OWN: &[u8] = br#"{ "columns": [{ "name": "sku", "type": "text" }] }"#;
    let scope = Scope::new().await?;
    connect(scope.database_url()).await?;
    let (client, server) = scope.database_url().split_once('@').context("no @")?;
    let (address, database) = server.split_once('/').context("no database")?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let relayed = listener.local_addr()?;
    // TLS would hide the options.
    let url = format!("{client}@{relayed}/{database}?sslmode=disable");
    let mut relaying = JoinSet::new();
    relaying.spawn(relay(listener, address.to_owned()));
    let store = connect(&url).await?;
    let key = DatasetKey::new("acme".parse()?, "sales".parse()?);
    store
        .put_dataset(&key, &Definition::from_json(OWN)?)
        .await?;
    let deleted = store.delete_dataset(&key).await?;
    ensure!(deleted == DeleteOutcome::Deleted, "{deleted:?}");
    drop(store);
    scope.close().await
}
