//! Live counters in SQLite, with the rules of the Redis adapter. Transactions replace the scripts.
//! Commits survive a crash, so counters need no `run_id`.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Executor, Row, SqliteConnection};

use super::{Counters, Presence, ProgressStore, Snapshot, StoredBatch};
use crate::error::PortResult;
use crate::sqlite::{Database, call, now_ms};
use crate::upload::UploadKey;

/// Settings of the counters in SQLite.
#[derive(Debug, Clone)]
pub struct SqliteProgressSettings {
    /// The file. It is created if it is missing; its directory must exist.
    pub file: PathBuf,
    /// The time from the last change of an upload's counters to their expiry.
    pub ttl: Duration,
}

/// [`ProgressStore`] on SQLite.
#[derive(Debug, Clone)]
pub struct SqliteProgress {
    database: Database,
    ttl_ms: i64,
}

/// The schema has no migrations, because the counters of a file with another schema can be deleted.
/// They are then rebuilt.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS counters (
    upload_id      text PRIMARY KEY,
    epoch          integer NOT NULL,
    rows_read      integer NOT NULL,
    bytes_received integer NOT NULL,
    rows_stored    integer NOT NULL,
    rows_rejected  integer NOT NULL,
    batches_stored integer NOT NULL,
    -- Milliseconds since 1970.
    expires_at     integer NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS counters_by_expiry ON counters (expires_at);
CREATE TABLE IF NOT EXISTS counted_batches (
    upload_id text NOT NULL REFERENCES counters ON DELETE CASCADE,
    seq       integer NOT NULL,
    PRIMARY KEY (upload_id, seq)
) STRICT, WITHOUT ROWID;
";

/// Whether the file has the schema of an older build, which counted no rejected rows.
const IS_OLDER: &str = "SELECT count(*) > 0 AND NOT coalesce(max(name = 'rows_rejected'), 0)
    FROM pragma_table_info('counters')";

const DROP: &str = "DROP TABLE IF EXISTS counted_batches; DROP TABLE IF EXISTS counters;";

/// How many batches one statement counts. It bounds the size of the JSON.
const PIECE_BATCHES: usize = 5_000;

/// The reported batches that are not counted yet. `$1`: the upload, `$2`: a JSON list of number,
/// rows and rejected rows of each batch.
const COUNT_NEW: &str = "
WITH reported AS (SELECT value ->> 0 AS seq, max(value ->> 1) AS rows, max(value ->> 2) AS rejected
                  FROM json_each($2) GROUP BY 1)
SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(rejected), 0) FROM reported r
WHERE NOT EXISTS (SELECT 1 FROM counted_batches c WHERE c.upload_id = $1 AND c.seq = r.seq)";

/// SQLite needs the `WHERE` to tell `ON CONFLICT` from a join.
const MARK_COUNTED: &str = "
INSERT INTO counted_batches (upload_id, seq) SELECT $1, value ->> 0 FROM json_each($2) WHERE true
ON CONFLICT DO NOTHING";

/// The state of an upload's counters for a call in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Absent,
    /// The counters belong to the epoch of the call.
    Current,
    /// The counters belong to a newer epoch.
    Newer,
}

impl SqliteProgress {
    /// Opens the file, or creates it.
    pub async fn open(settings: SqliteProgressSettings) -> PortResult<Self> {
        const OPERATION: &str = "progress.connect";
        let database = Database::open(OPERATION, &settings.file).await?;
        call(OPERATION, make_schema(&database)).await?;
        Ok(Self {
            database,
            ttl_ms: i64::try_from(settings.ttl.as_millis()).unwrap_or(i64::MAX),
        })
    }

    /// Adds one report to the counters, if they exist.
    async fn report(
        &self,
        upload: UploadKey,
        figures: (u64, u64),
        stored: &[StoredBatch],
    ) -> sqlx::Result<Presence> {
        let mut transaction = self.database.begin().await?;
        let found = standing(&mut transaction, upload).await?;
        if found == Standing::Current {
            self.add(&mut transaction, upload, figures, stored).await?;
        }
        transaction.commit().await?;
        Ok(match found {
            Standing::Absent => Presence::Absent,
            Standing::Current | Standing::Newer => Presence::Present,
        })
    }

    /// Raises the figures, and counts each batch only once.
    async fn add(
        &self,
        connection: &mut SqliteConnection,
        upload: UploadKey,
        (rows_read, bytes_received): (u64, u64),
        stored: &[StoredBatch],
    ) -> sqlx::Result<()> {
        let id = upload.id.to_string();
        let (mut rows, mut rejected, mut batches) = (0, 0, 0);
        for piece in stored.chunks(PIECE_BATCHES) {
            let figures = |batch: &StoredBatch| (batch.seq, batch.rows, batch.rejected);
            let reported: Vec<_> = piece.iter().map(figures).collect();
            let reported = sqlx::types::Json(reported);
            let (new_batches, new_rows, new_rejected): (i64, i64, i64) = sqlx::query_as(COUNT_NEW)
                .bind(&id)
                .bind(&reported)
                .fetch_one(&mut *connection)
                .await?;
            if new_batches > 0 {
                sqlx::query(MARK_COUNTED)
                    .bind(&id)
                    .bind(&reported)
                    .execute(&mut *connection)
                    .await?;
            }
            rows += new_rows;
            rejected += new_rejected;
            batches += new_batches;
        }
        sqlx::query(
            "UPDATE counters
             SET rows_read = max(rows_read, $2), bytes_received = max(bytes_received, $3),
                 rows_stored = rows_stored + $4, batches_stored = batches_stored + $5, expires_at = $6,
                 rows_rejected = rows_rejected + $7
             WHERE upload_id = $1",
        )
        .bind(&id)
        .bind(rows_read.cast_signed())
        .bind(bytes_received.cast_signed())
        .bind(rows)
        .bind(batches)
        .bind(now_ms().saturating_add(self.ttl_ms))
        .bind(rejected)
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn rebuild(&self, upload: UploadKey, snapshot: &Snapshot) -> sqlx::Result<()> {
        let mut transaction = self.database.begin().await?;
        let found = standing(&mut transaction, upload).await?;
        if found == Standing::Absent {
            // This also deletes the expired counters of all other uploads.
            sqlx::query("DELETE FROM counters WHERE upload_id = $1 OR expires_at <= $2")
                .bind(upload.id.to_string())
                .bind(now_ms())
                .execute(&mut *transaction)
                .await?;
            sqlx::query("INSERT INTO counters VALUES ($1, $2, 0, 0, 0, 0, 0, 0)")
                .bind(upload.id.to_string())
                .bind(upload.epoch.get())
                .execute(&mut *transaction)
                .await?;
        }
        if found != Standing::Newer {
            let figures = (snapshot.rows_read, snapshot.bytes_received);
            self.add(&mut transaction, upload, figures, &snapshot.stored)
                .await?;
        }
        transaction.commit().await
    }
}

/// Creates the tables, or replaces those of an older build. Several processes may open the file at
/// once.
async fn make_schema(database: &Database) -> sqlx::Result<()> {
    let mut transaction = database.begin().await?;
    let (is_older,): (bool,) = sqlx::query_as(IS_OLDER)
        .fetch_one(&mut *transaction)
        .await?;
    if is_older {
        Executor::execute(&mut *transaction, DROP).await?;
    }
    Executor::execute(&mut *transaction, SCHEMA).await?;
    transaction.commit().await
}

async fn standing(connection: &mut SqliteConnection, upload: UploadKey) -> sqlx::Result<Standing> {
    let found: Option<(i32,)> =
        sqlx::query_as("SELECT epoch FROM counters WHERE upload_id = $1 AND expires_at > $2")
            .bind(upload.id.to_string())
            .bind(now_ms())
            .fetch_optional(connection)
            .await?;
    Ok(match found {
        Some((known,)) if known == upload.epoch.get() => Standing::Current,
        Some((known,)) if known > upload.epoch.get() => Standing::Newer,
        _ => Standing::Absent,
    })
}

/// The counters in a row. A negative count is corrupt, and the error names its column.
fn counters(row: &SqliteRow) -> sqlx::Result<Counters> {
    Ok(Counters {
        rows_read: row.try_get("rows_read")?,
        bytes_received: row.try_get("bytes_received")?,
        rows_stored: row.try_get("rows_stored")?,
        rows_rejected: row.try_get("rows_rejected")?,
        batches_stored: row.try_get("batches_stored")?,
    })
}

#[async_trait]
impl ProgressStore for SqliteProgress {
    async fn received(
        &self,
        upload: UploadKey,
        rows_read: u64,
        bytes_received: u64,
    ) -> PortResult<Presence> {
        let report = self.report(upload, (rows_read, bytes_received), &[]);
        call("progress.received", report).await
    }

    async fn stored(&self, upload: UploadKey, batches: &[StoredBatch]) -> PortResult<Presence> {
        let report = self.report(upload, (0, 0), batches);
        call("progress.stored", report).await
    }

    async fn restore(&self, upload: UploadKey, snapshot: &Snapshot) -> PortResult<()> {
        let report = self.rebuild(upload, snapshot);
        call("progress.restore", report).await
    }

    async fn read(&self, upload: UploadKey) -> PortResult<Option<Counters>> {
        let found = sqlx::query(
            "SELECT rows_read, bytes_received, rows_stored, rows_rejected, batches_stored
             FROM counters WHERE upload_id = $1 AND epoch = $2 AND expires_at > $3",
        )
        .bind(upload.id.to_string())
        .bind(upload.epoch.get())
        .bind(now_ms())
        .fetch_optional(&self.database.readers);
        let read = async { found.await?.as_ref().map(counters).transpose() };
        call("progress.read", read).await
    }

    async fn ping(&self) -> PortResult<()> {
        let found = sqlx::query("SELECT 1 FROM counters LIMIT 1").execute(&self.database.readers);
        call("progress.ping", found).await?;
        Ok(())
    }

    async fn close(&self) {
        self.database.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::UploadId;

    #[tokio::test]
    async fn the_schema_of_an_older_build_is_replaced_once() {
        const OLDER: &str = "
            CREATE TABLE counters (upload_id text PRIMARY KEY, epoch integer NOT NULL) STRICT;
            CREATE TABLE counted_batches (
                upload_id text NOT NULL REFERENCES counters ON DELETE CASCADE,
                seq integer NOT NULL
            ) STRICT;
            INSERT INTO counters VALUES ('a', 1);
            INSERT INTO counted_batches VALUES ('a', 1);";
        let directory = tempfile::tempdir().unwrap();
        let settings = SqliteProgressSettings {
            file: directory.path().join("progress.db"),
            ttl: Duration::from_secs(60),
        };
        let database = Database::open("test", &settings.file).await.unwrap();
        let older = Executor::execute(database.writer(), OLDER).await;
        older.unwrap();
        database.close().await;

        let upload = UploadKey::first(UploadId::generate());
        let batch = StoredBatch {
            seq: 1,
            rows: 7,
            rejected: 3,
        };
        let progress = SqliteProgress::open(settings.clone()).await.unwrap();
        let empty = Snapshot::default();
        progress.restore(upload, &empty).await.unwrap();
        progress.stored(upload, &[batch]).await.unwrap();
        progress.close().await;
        let again = SqliteProgress::open(settings).await.unwrap();
        let counters = again.read(upload).await.unwrap().unwrap();
        assert_eq!((counters.rows_stored, counters.rows_rejected), (7, 3));
    }
}
