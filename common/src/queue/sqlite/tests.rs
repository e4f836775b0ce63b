use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use super::*;
use crate::batch::BatchId;
use crate::error::ErrorKind;
use crate::upload::{UploadId, UploadKey};

const BATCHES: u32 = 600;
const CONCURRENT_PUBLISHES: usize = 4;

fn settings(dir: &TempDir) -> SqliteQueueSettings {
    SqliteQueueSettings {
        file: dir.path().join("queue.db"),
        publish_timeout: Duration::from_secs(10),
        sole_user: true,
        postponement: Duration::from_secs(1),
        installation: Uuid::from_u128(1),
    }
}

fn batch(upload: UploadId, seq: u32) -> EncodedBatch {
    EncodedBatch {
        id: BatchId {
            upload: UploadKey::first(upload),
            seq,
        },
        rows: 1,
        body: "body".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_that_wait_for_a_lock_let_settlements_fail_in_between() {
    let dir = tempfile::tempdir().unwrap();
    let often = Duration::from_secs(1);
    let queue = SqliteQueue::open_renewing(settings(&dir), often)
        .await
        .unwrap();
    let batch = batch(UploadId::generate(), 1);
    queue.publisher().publish(&batch).await.unwrap();
    let mut deliveries = queue.consume(Prefetch::of_batches(1)).await.unwrap();
    let delivery = deliveries.next().await.unwrap();

    let file = SqliteConnectOptions::new().filename(dir.path().join("queue.db"));
    let mut locking = file.connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut locking)
        .await
        .unwrap();
    tokio::time::sleep(2 * often).await;
    // A renewal and the settlement wait ten seconds each.
    let settled = tokio::time::timeout(Duration::from_secs(25), delivery.ack()).await;
    let error = settled
        .expect("renewals held up the settlement")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

/// Other processes take over the leases of a holder that has no heartbeat.
#[tokio::test]
async fn the_first_heartbeat_comes_before_the_first_lease() {
    const LEASE_WITHOUT_HEARTBEAT_FAILS: &str = "
        CREATE TRIGGER heartbeat_first BEFORE UPDATE OF holder ON messages
        WHEN NEW.holder NOT IN (SELECT id FROM holders)
        BEGIN SELECT RAISE(ABORT, 'a lease without a heartbeat'); END";
    let dir = tempfile::tempdir().unwrap();
    let queue = SqliteQueue::open(settings(&dir)).await.unwrap();
    let batch = batch(UploadId::generate(), 1);
    queue.publisher().publish(&batch).await.unwrap();
    queue.close().await;
    execute(&settings(&dir), LEASE_WITHOUT_HEARTBEAT_FAILS).await;
    for _ in 0..20 {
        let queue = SqliteQueue::open(settings(&dir)).await.unwrap();
        let mut deliveries = queue.consume(Prefetch::of_batches(1)).await.unwrap();
        deliveries.next().await.unwrap();
        queue.close().await;
    }
}

/// The clock stands still, so the pause of a publish ends only when the queue is shorter, however
/// slow the disk is. A paused clock advances while all tasks wait, except beside a blocking task.
#[tokio::test(start_paused = true)]
async fn a_queue_that_is_being_emptied_stays_short() {
    let (_still, moving) = std::sync::mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || moving.recv());
    let dir = tempfile::tempdir().unwrap();
    let queue = SqliteQueue::open(settings(&dir)).await.unwrap();
    let (publisher, upload) = (queue.publisher(), UploadId::generate());
    let batches = (1..=BATCHES).map(|seq| batch(upload, seq));
    let published = AtomicU64::new(0);
    let publish = stream::iter(batches)
        .map(async |batch| {
            publisher.publish(&batch).await?;
            published.fetch_add(1, Ordering::Relaxed);
            PortResult::Ok(())
        })
        .buffer_unordered(CONCURRENT_PUBLISHES)
        .try_collect::<()>();
    // Each settlement has its own commit, so consuming is slower than publishing.
    let consume = async {
        let mut longest = 0;
        let mut deliveries = queue.consume(Prefetch::of_batches(1)).await?;
        for settled in 0..u64::from(BATCHES) {
            longest = longest.max(published.load(Ordering::Relaxed) - settled);
            deliveries.next().await?.ack().await?;
        }
        PortResult::Ok(longest)
    };
    let (_, longest) = tokio::try_join!(publish, consume).unwrap();
    let limit = (LONG_QUEUE + CONCURRENT_PUBLISHES) as u64;
    assert!(longest <= limit, "{longest} messages, the limit is {limit}");
    queue.close().await;
}

/// A commit that SQLite has not synced can be lost with the power.
#[tokio::test]
async fn every_commit_is_synced() {
    const FULL: i64 = 2;
    let dir = tempfile::tempdir().unwrap();
    let queue = SqliteQueue::open(settings(&dir)).await.unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(queue.database.writer())
        .await
        .unwrap();
    assert_eq!(synchronous, FULL);
    queue.close().await;
}

/// The tables of the first builds, with a message that was delivered often.
const FIRST_BUILD: &str = "
CREATE TABLE messages (
    id           integer PRIMARY KEY AUTOINCREMENT,
    dead         integer NOT NULL DEFAULT 0,
    available_at integer NOT NULL,
    upload_id    text NOT NULL,
    epoch        integer NOT NULL,
    seq          integer NOT NULL,
    attempt      integer NOT NULL DEFAULT 1,
    deliveries   integer NOT NULL DEFAULT 0,
    unsettled    integer NOT NULL DEFAULT 0,
    reason       text,
    holder       text,
    lease        integer NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX dead_messages ON messages (id) WHERE dead = 1;
CREATE TABLE bodies (id integer PRIMARY KEY, body blob NOT NULL) STRICT;
CREATE TABLE holders (id text PRIMARY KEY, expires_at integer NOT NULL) STRICT;
INSERT INTO messages (available_at, upload_id, epoch, seq, attempt, unsettled)
VALUES (0, '0194d3a0-0000-7000-8000-000000000001', 1, 7, 2, 0),
       (0, '0194d3a0-0000-7000-8000-000000000001', 1, 8, 1, 15);
INSERT INTO bodies VALUES (1, x'61'), (2, x'62');
";

async fn execute(settings: &SqliteQueueSettings, statements: &str) {
    let file = SqliteConnectOptions::new()
        .filename(&settings.file)
        .create_if_missing(true);
    let mut connection = file.connect().await.unwrap();
    sqlx::Executor::execute(&mut connection, statements)
        .await
        .unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}

#[tokio::test]
async fn the_messages_of_an_older_build_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    execute(&settings(&dir), FIRST_BUILD).await;
    // The second opening finds the file up to date.
    SqliteQueue::open(settings(&dir))
        .await
        .unwrap()
        .close()
        .await;
    let queue = SqliteQueue::open(settings(&dir)).await.unwrap();

    let mut batches = queue.consume(Prefetch::of_batches(1)).await.unwrap();
    let batch = batches.next().await.unwrap();
    assert_eq!(&batch.body[..], b"a");
    assert_eq!(batch.id.map(|id| id.seq), Some(7));
    assert_eq!(
        (batch.attempt, batch.postponed, batch.is_foreign),
        (2, 0, false)
    );
    batch.postpone().await.unwrap();
    let again = batches.next().await.unwrap();
    assert_eq!((again.attempt, again.postponed), (2, 1));
    again.ack().await.unwrap();

    let suspect = queue.consume_suspects().await.unwrap().next().await;
    let suspect = suspect.unwrap();
    assert_eq!(suspect.id.map(|id| id.seq), Some(8));
    suspect.ack().await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), QueueDepth::default());
    queue.close().await;
}

#[tokio::test]
async fn the_file_of_a_newer_build_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    execute(&settings(&dir), "PRAGMA user_version = 99").await;
    let refused = SqliteQueue::open(settings(&dir)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Misconfigured);
    let reason = refused.chain();
    assert!(reason.contains("version 99"), "{reason}");
    assert!(reason.contains("start the newer build"), "{reason}");
}
