//! The store on SQLite, in one file.
//!
//! SQLite allows one writer at a time, so the fence needs no lock. A transaction that stores rows
//! reads the status itself, and the status cannot change before the transaction ends.

mod audit;
mod batches;
mod completion;
mod constraints;
mod creation;
mod datasets;
mod dead_letters;
mod dividing;
mod events;
mod holds;
mod idempotency;
mod keys;
mod maintenance;
mod merging;
mod observation;
mod previous_rows;
mod quotas;
mod rejects;
mod rows;
mod tokens;
mod typed_tables;
mod undoing;
mod upload_record;
mod uploads;
mod validation;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::Connection;
use sqlx::migrate::MigrateError;
use uuid::Uuid;

use super::{StoreConnection, sql};
use crate::error::PortResult;
use crate::sqlite::{Database, call, port_error};
use crate::sync::lock;
use crate::upload::UploadKey;

static MIGRATIONS: sql::EmbeddedMigrations =
    include!(concat!(env!("OUT_DIR"), "/sqlite_migrations.rs"));

/// Where the file is and how to use it.
#[derive(Debug, Clone)]
pub struct SqliteStoreSettings {
    /// The file. It is created if it is missing; its directory must exist.
    pub file: PathBuf,
    /// Whether to bring the schema up to date.
    pub migrate: bool,
}

/// [`Store`](super::Store) on SQLite.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    database: Database,
    /// Uploads whose failure could not be recorded, mostly because the disk was full. Their batches
    /// are fenced, or they would fill any space that is freed, and the failure could never be
    /// recorded. If the process ends before the failure is recorded, the next process finds the
    /// upload with an expired lease.
    failing: Arc<Mutex<HashSet<UploadKey>>>,
}

impl SqliteStore {
    /// Opens the file and brings the schema up to date. Fails if the schema is newer than this
    /// build.
    pub async fn open(settings: SqliteStoreSettings) -> PortResult<Self> {
        let database = Database::open("store.connect", &settings.file).await?;
        if settings.migrate {
            sql::migrated(migrate(&database).await, port_error)?;
        }
        Ok(Self {
            database,
            failing: Arc::default(),
        })
    }

    fn is_failing(&self, key: UploadKey) -> bool {
        lock(&self.failing).contains(&key)
    }
}

/// Migrates in one transaction, so that processes that start together take turns. sqlx has no lock
/// for SQLite.
async fn migrate(database: &Database) -> Result<(), MigrateError> {
    let mut connection = database.writer().acquire().await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sql::migrator(MIGRATIONS)
        .await?
        .run(&mut *transaction)
        .await?;
    Ok(transaction.commit().await?)
}

#[async_trait]
impl StoreConnection for SqliteStore {
    async fn ping(&self) -> PortResult<()> {
        call("store.ping", async {
            sqlx::query("SELECT 1 FROM uploads LIMIT 1")
                .execute(&self.database.readers)
                .await?;
            Ok(())
        })
        .await
    }

    async fn installation(&self) -> PortResult<Uuid> {
        call("store.installation", async {
            let id: String = sqlx::query_scalar("SELECT id FROM installation")
                .fetch_one(&self.database.readers)
                .await?;
            sql::parsed("id", &id)
        })
        .await
    }

    async fn close(&self) {
        self.database.close().await;
    }
}

/// The key of an upload, from its columns.
fn key((id, epoch): (String, i32)) -> sqlx::Result<UploadKey> {
    Ok(UploadKey {
        id: sql::parsed("id", &id)?,
        epoch: epoch.into(),
    })
}

/// RFC 3339 with exactly six fractional digits, so that times sort as text.
fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn now() -> String {
    time_text(Timestamp::now())
}

/// The time that was `duration` ago.
fn ago(duration: Duration) -> String {
    let time = jiff::SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| Timestamp::now().checked_sub(duration).ok());
    time_text(time.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The first id of an upload's rows; row numbers are added to it.
fn first_id(number: i64) -> i64 {
    number << 36
}

/// The last id of an upload's rows.
fn last_id(number: i64) -> i64 {
    first_id(number) | ((1 << 36) - 1)
}
