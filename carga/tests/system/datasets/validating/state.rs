//! Everything that is stored, to compare it with what is stored later.

use anyhow::{Context, Result, ensure};
use carga_testkit::data_dir::DATABASES;
use carga_testkit::{DataDir, Scope, eventually};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use sqlx::{PgPool, Postgres, SqliteConnection};

use crate::app::{App, TIMEOUT};
use crate::datasets::tables::rows_in_sqlite;
use crate::harness::{Harness, close_after};

/// The relations of Carga and of the user, including temporary ones. Those of Postgres have smaller
/// ids.
const RELATIONS: &str = "
    SELECT concat_ws(' ', 'relation', oid, oid::regclass, relkind, relpersistence)
    FROM pg_class WHERE oid >= 16384";

/// The tables among them. `upload_holds` is left out, because workers write to it at any time.
const TABLES: &str = "
    SELECT oid::regclass::text FROM pg_class
    WHERE oid >= 16384 AND relkind = 'r' AND relpersistence <> 't' AND relname <> 'upload_holds'";

const SEQUENCES: &str = "
    SELECT concat_ws(' ', schemaname || '.' || sequencename, last_value) FROM pg_sequences";

const SCHEMA_IN_SQLITE: &str =
    "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master";

/// The tables of a file of SQLite. Processes renew their leases in `holders`.
const TABLES_IN_SQLITE: &str = "
    SELECT name FROM sqlite_master
    WHERE type = 'table' AND name NOT IN ('upload_holds', 'holders')";

/// What is stored at one time: the rows of all tables, the objects of the databases, the sequences,
/// the keys of the archive and the messages in the queue.
pub(super) struct State {
    facts: Vec<String>,
    free: &'static [&'static str],
}

impl State {
    /// Waits until Carga has stored everything that it has received: a queue in a file is empty,
    /// and three readings are the same.
    pub(super) async fn read(app: &App) -> Result<Self> {
        Self::read_without(app, &[]).await
    }

    /// Like `read`, without these sequences. No database takes the numbers of a sequence back.
    pub(super) async fn read_without(app: &App, free: &'static [&'static str]) -> Result<Self> {
        const READINGS: usize = 3;
        let (mut last, mut equal) = (Vec::new(), 0);
        let facts = eventually(TIMEOUT, "the stored data to settle", async || {
            let facts = facts(app, free).await;
            let facts = facts.inspect_err(|error| eprintln!("{error:#}")).ok()?;
            let is_waiting = |fact: &String| fact.starts_with("queue.db messages ");
            let is_settled = facts == last && !facts.iter().any(is_waiting);
            equal = if is_settled { equal + 1 } else { 1 };
            last.clone_from(&facts);
            (equal == READINGS).then_some(facts)
        })
        .await?;
        Ok(Self { facts, free })
    }

    /// Fails unless everything is as it was.
    pub(super) async fn expect_unchanged(&self, app: &App) -> Result<()> {
        let facts = facts(app, self.free).await?;
        ensure!(
            facts == self.facts,
            "{:#?} instead of {:#?}",
            without(&facts, &self.facts),
            without(&self.facts, &facts)
        );
        Ok(())
    }
}

/// The facts that are not among the others.
fn without<'a>(facts: &'a [String], others: &[String]) -> Vec<&'a String> {
    let facts = facts.iter();
    facts.filter(|fact| !others.contains(fact)).collect()
}

async fn facts(app: &App, free: &[&str]) -> Result<Vec<String>> {
    let mut facts = match &app.harness {
        Harness::Embedded(directory) => in_files(directory).await?,
        Harness::Distributed(scope) => in_postgres(scope, free).await?,
    };
    // Without an upload, the archive has no directory yet.
    let objects = app.harness.objects().await.unwrap_or_default();
    facts.extend(objects.into_iter().map(|key| format!("object {key}")));
    let (_, uploads) = app.get("/uploads").await?;
    facts.push(format!("list {uploads}"));
    facts.sort_unstable();
    Ok(facts)
}

/// The facts in Postgres and in the queue. They have the transaction that wrote each row and the
/// row's `ctid`, so a change that was made and reversed is found as well.
async fn in_postgres(scope: &Scope, free: &[&str]) -> Result<Vec<String>> {
    let pool = scope.pool();
    let mut facts = texts(&pool, RELATIONS).await?;
    for sequence in texts(&pool, SEQUENCES).await? {
        let name = sequence.split(' ').next().context("no name")?;
        if !free.contains(&name) {
            facts.push(format!("sequence {sequence}"));
        }
    }
    for table in texts(&pool, TABLES).await? {
        // Workers record at any time that they have sent an event.
        let row = match table.as_str() {
            "upload_events" => "t.number, t.upload_id, t.type",
            _ => "t.xmin, t.ctid, t",
        };
        let rows = format!("SELECT concat_ws(' ', {row}) FROM {table} AS t");
        let rows = texts(&pool, &rows).await?.into_iter();
        facts.extend(rows.map(|row| format!("{table} {row}")));
    }
    facts.push(format!("{} messages", messages(scope).await?));
    Ok(facts)
}

/// The texts of a query with one column. It is not kept prepared, because the tables change.
async fn texts(pool: &PgPool, query: &str) -> sqlx::Result<Vec<String>> {
    let texts = sqlx::query_scalar::<Postgres, String>(query).persistent(false);
    texts.fetch_all(pool).await
}

/// How many messages wait in the queue.
async fn messages(scope: &Scope) -> Result<u32> {
    let connection = Connection::connect(scope.amqp_url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::durable()
    };
    let queue = format!("{}.batches", scope.name());
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    let messages = declared.await?.message_count();
    connection.close(200, "done".into()).await?;
    Ok(messages)
}

/// The facts in the files of SQLite.
async fn in_files(directory: &DataDir) -> Result<Vec<String>> {
    let mut facts = Vec::new();
    for database in DATABASES {
        let mut connection = directory.open(database).await?;
        let found = in_sqlite(&mut connection).await;
        let found = close_after(found, connection).await?;
        facts.extend(found.into_iter().map(|fact| format!("{database} {fact}")));
    }
    Ok(facts)
}

async fn in_sqlite(connection: &mut SqliteConnection) -> sqlx::Result<Vec<String>> {
    let schema = sqlx::query_scalar::<_, String>(SCHEMA_IN_SQLITE);
    let mut facts = schema.fetch_all(&mut *connection).await?;
    let tables = sqlx::query_scalar::<_, String>(TABLES_IN_SQLITE);
    for table in tables.fetch_all(&mut *connection).await? {
        let rows = rows_in_sqlite(connection, &table).await?;
        facts.extend(rows.into_iter().map(|row| format!("{table} {row}")));
    }
    Ok(facts)
}
