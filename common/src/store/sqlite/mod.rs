//! The store on SQLite, in one file.
//!
//! There is one writer, so the fence needs no lock of its own: whoever stores rows reads the status in the very transaction
//! that stores them, and no change of status can come in between.

mod batches;
mod maintenance;
mod rejects;
mod uploads;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use sqlx::Connection;
use sqlx::migrate::MigrateError;

use super::{
    ArchivedBatch, Completion, DeadBatch, Heartbeat, LedgerEntry, Leftovers, NewUpload, Parked,
    Removal, Seal, Store, StoreOutcome, StoredRow, UploadQuery, rules, sql,
};
use crate::batch::BatchId;
use crate::error::{ErrorKind, PortResult};
use crate::progress::Snapshot;
use crate::rejects::RejectedRow;
use crate::sqlite::{Database, port_error};
use crate::sync::lock;
use crate::upload::{Failure, Upload, UploadId};

static MIGRATIONS: sql::EmbeddedMigrations =
    include!(concat!(env!("OUT_DIR"), "/sqlite_migrations.rs"));

/// Where the file is and how to use it.
#[derive(Debug, Clone)]
pub struct SqliteStoreSettings {
    /// The file; it is made if it is missing, its directory is not.
    pub file: PathBuf,
    /// Whether to bring the schema up to date.
    pub migrate: bool,
}

/// [`Store`] on SQLite.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    database: Database,
    /// Uploads that were to fail when there was no room to write it down. Their batches would eat up whatever room is made, and
    /// with it the room to record the failure; so they are fenced from now on. Should the process end before it is
    /// recorded, the next one finds the upload without a sign of life.
    doomed: Arc<Mutex<HashSet<(UploadId, i32)>>>,
}

impl SqliteStore {
    /// Opens the file and brings the schema up to date. A schema newer than this build is refused.
    pub async fn open(settings: SqliteStoreSettings) -> PortResult<Self> {
        let database = Database::open("store.connect", &settings.file).await?;
        if settings.migrate {
            rules::migrated(migrate(&database).await, port_error)?;
        }
        Ok(Self {
            database,
            doomed: Arc::default(),
        })
    }

    fn is_doomed(&self, id: UploadId, epoch: i32) -> bool {
        lock(&self.doomed).contains(&(id, epoch))
    }
}

/// In one transaction, so that processes that start together take turns: sqlx has no lock for SQLite.
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
impl Store for SqliteStore {
    async fn create(&self, upload: &NewUpload) -> PortResult<Upload> {
        uploads::create(&self.database, upload)
            .await
            .map_err(|error| port_error("store.create", error))
    }

    async fn heartbeat(&self, beats: &[Heartbeat]) -> PortResult<Vec<UploadId>> {
        // What is doomed has ended as far as its sender is concerned.
        let living: Vec<Heartbeat> = {
            let doomed = lock(&self.doomed);
            let is_doomed = |id| doomed.iter().any(|(doomed, _)| *doomed == id);
            let living = beats.iter().filter(|beat| !is_doomed(beat.upload));
            living.copied().collect()
        };
        uploads::heartbeat(&self.database, &living)
            .await
            .map_err(|error| port_error("store.heartbeat", error))
    }

    async fn seal(&self, id: UploadId, epoch: i32, seal: &Seal) -> PortResult<bool> {
        if self.is_doomed(id, epoch) {
            return Ok(false);
        }
        uploads::seal(&self.database, id, epoch, seal)
            .await
            .map_err(|error| port_error("store.seal", error))
    }

    async fn fail(
        &self,
        id: UploadId,
        epoch: i32,
        failure: &Failure,
        last: Option<Heartbeat>,
    ) -> PortResult<bool> {
        let failed = uploads::end(&self.database, id, epoch, Some(failure), last).await;
        let failed = failed.map_err(|error| port_error("store.fail", error));
        match &failed {
            Ok(_) => lock(&self.doomed).remove(&(id, epoch)),
            Err(error) if error.kind() == ErrorKind::Full => lock(&self.doomed).insert((id, epoch)),
            Err(_) => false,
        };
        failed
    }

    async fn cancel(&self, id: UploadId, epoch: i32) -> PortResult<bool> {
        uploads::end(&self.database, id, epoch, None, None)
            .await
            .map_err(|error| port_error("store.cancel", error))
    }

    async fn undo(&self, id: UploadId, epoch: i32) -> PortResult<bool> {
        uploads::undo(&self.database, id, epoch)
            .await
            .map_err(|error| port_error("store.undo", error))
    }

    async fn reject(&self, id: UploadId, epoch: i32, rows: &[RejectedRow]) -> PortResult<bool> {
        if self.is_doomed(id, epoch) {
            return Ok(false);
        }
        rejects::reject(&self.database, id, epoch, rows)
            .await
            .map_err(|error| port_error("store.reject", error))
    }

    fn rejected(&self, id: UploadId) -> BoxStream<'_, PortResult<RejectedRow>> {
        rejects::rejected(&self.database, id)
    }

    async fn same_content(&self, sha256: [u8; 32], but: UploadId) -> PortResult<Option<UploadId>> {
        uploads::same_content(&self.database, sha256, but)
            .await
            .map_err(|error| port_error("store.same_content", error))
    }

    async fn remove_rows(&self, id: UploadId) -> PortResult<Removal> {
        maintenance::remove_rows(&self.database, id)
            .await
            .map_err(|error| port_error("store.remove_rows", error))
    }

    async fn archive_removed(&self, id: UploadId) -> PortResult<()> {
        maintenance::archive_removed(&self.database, id)
            .await
            .map_err(|error| port_error("store.archive_removed", error))
    }

    async fn upload(&self, id: UploadId) -> PortResult<Option<Upload>> {
        uploads::find(&self.database, id)
            .await
            .map_err(|error| port_error("store.upload", error))
    }

    async fn uploads(&self, query: &UploadQuery) -> PortResult<Vec<Upload>> {
        uploads::list(&self.database, query)
            .await
            .map_err(|error| port_error("store.uploads", error))
    }

    fn rows(&self, id: UploadId) -> BoxStream<'_, PortResult<StoredRow>> {
        batches::rows(&self.database, id)
    }

    async fn progress(&self, id: UploadId, epoch: i32) -> PortResult<Snapshot> {
        batches::progress(&self.database, id, epoch)
            .await
            .map_err(|error| port_error("store.progress", error))
    }

    async fn store(&self, group: &[ArchivedBatch]) -> PortResult<Vec<StoreOutcome>> {
        let is_doomed = |id: BatchId| self.is_doomed(id.upload, id.epoch);
        batches::store(&self.database, group, is_doomed).await
    }

    async fn admits(&self, id: BatchId) -> PortResult<bool> {
        if self.is_doomed(id.upload, id.epoch) {
            return Ok(false);
        }
        batches::admits(&self.database, id)
            .await
            .map_err(|error| port_error("store.admits", error))
    }

    async fn completion(&self, id: UploadId) -> PortResult<Completion> {
        batches::completion(&self.database, id)
            .await
            .map_err(|error| port_error("store.completion", error))
    }

    async fn ledger(&self, id: UploadId, epoch: i32) -> PortResult<Vec<LedgerEntry>> {
        batches::ledger(&self.database, id, epoch)
            .await
            .map_err(|error| port_error("store.ledger", error))
    }

    async fn complete(&self, id: UploadId, epoch: i32) -> PortResult<bool> {
        uploads::complete(&self.database, id, epoch)
            .await
            .map_err(|error| port_error("store.complete", error))
    }

    async fn park(&self, batch: &DeadBatch) -> PortResult<Parked> {
        batches::park(&self.database, batch)
            .await
            .map_err(|error| port_error("store.park", error))
    }

    async fn leftovers(&self, lease: Duration, archive_grace: Duration) -> PortResult<Leftovers> {
        let mut found = maintenance::leftovers(&self.database, lease, archive_grace)
            .await
            .map_err(|error| port_error("store.leftovers", error))?;
        // Their leases are not renewed, but nobody is to wait for that.
        found.expired.extend(lock(&self.doomed).iter().copied());
        Ok(found)
    }

    async fn ping(&self) -> PortResult<()> {
        sqlx::query("SELECT 1 FROM uploads LIMIT 1")
            .execute(&self.database.readers)
            .await
            .map_err(|error| port_error("store.ping", error))?;
        Ok(())
    }

    async fn close(&self) {
        self.database.close().await;
    }
}

/// RFC 3339 with six digits, always, so that times sort as text.
fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn now() -> String {
    time_text(Timestamp::now())
}

/// The time so long ago.
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
