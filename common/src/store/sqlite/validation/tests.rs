//! Tests of the end of a trial on SQLite.

use std::iter;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use tempfile::TempDir;

use super::*;
use crate::batch::{BatchEncoder, BatchLimits, RowOrigin};
use crate::dataset::{DatasetKey, Definition, Mode};
use crate::store::sqlite::{first_id, last_id};
use crate::store::{DatasetStore, PutOutcome, SqliteStoreSettings};
use crate::upload::{Merge, RejectLimit};

/// Longer than any test takes.
const HOUR: Duration = Duration::from_secs(3600);

fn key() -> DatasetKey {
    DatasetKey::new(Default::default(), "sales".parse().unwrap())
}

fn definition() -> Definition {
    let json = br#"{"columns":[{"name":"sku","type":"text"}]}"#;
    Definition::from_json(json).unwrap()
}

/// A store with a dataset, after these statements.
async fn open(directory: &TempDir, statements: &[&str]) -> SqliteStore {
    let settings = SqliteStoreSettings {
        file: directory.path().join("store.db"),
        migrate: true,
    };
    let store = SqliteStore::open(settings).await.unwrap();
    let created = store.put_dataset(&key(), &definition()).await.unwrap();
    assert_eq!(created, PutOutcome::Created);
    for statement in statements {
        let writer = store.database.writer();
        sqlx::query(statement).execute(writer).await.unwrap();
    }
    store
}

fn trial(rows_read: u64, time_limit: Duration) -> Trial {
    let merge = Merge {
        mode: Mode::Append,
        key: Vec::new(),
    };
    let dataset = UploadDataset {
        name: key().name,
        tenant: key().tenant,
        columns: definition().typed_columns(),
        missing: Vec::new(),
        ignored: Vec::new(),
        sources: vec![Some(0)],
        reject_limit: RejectLimit::default(),
        merge: Some(merge),
        table: None,
    };
    Trial {
        dataset,
        columns: vec!["sku".to_owned()],
        rows_read,
        rows_rejected: 0,
        time_limit,
    }
}

/// One batch of rows.
fn batches(rows: u64) -> TrialBatches<'static> {
    let columns = ["sku".to_owned()];
    let limits = BatchLimits {
        rows: 1000,
        bytes: 100_000,
    };
    let upload = UploadKey::first(UploadId::generate());
    let mut encoder = BatchEncoder::typed(upload, &columns, "00-trace", limits);
    for number in 1..=rows {
        let origin = RowOrigin {
            line: number + 1,
            offset: number,
            changed: iter::empty(),
        };
        let cells = iter::once(Some("a"));
        encoder.push_typed(number, cells, origin).unwrap();
    }
    let message: Bytes = encoder.finish().0.unwrap().body;
    stream::iter([Ok(message)]).boxed()
}

#[test]
fn the_ids_of_a_trial_are_the_last_ones() {
    assert_eq!(last_id(NUMBER), i64::MAX);
    assert!(first_id(NUMBER) > last_id(NUMBER - 1));
}

#[tokio::test]
async fn a_trial_that_its_caller_gives_up_ends_at_once() {
    const ENDLESS: &str = "CREATE VIEW endless AS
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000000000)
        SELECT count(*) AS counted FROM n";
    const TRIGGER: &str = "CREATE TRIGGER slow BEFORE INSERT ON datasets_sales
        BEGIN SELECT counted FROM endless; END";
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, &[ENDLESS, TRIGGER]).await;
    let trial = trial(1, HOUR);
    let trying = store.validate(&trial, batches(1));
    let given_up = tokio::time::timeout(Duration::from_secs(1), trying).await;
    assert!(given_up.is_err());
    // This waits for the lock of the file for a few seconds.
    let transaction = store.database.begin().await.unwrap();
    transaction.commit().await.unwrap();
}

/// SQLite does not ask during a short statement whether to continue.
#[tokio::test]
async fn a_trial_of_many_short_statements_ends_in_time() {
    const TRIGGER: &str = "CREATE TRIGGER slow BEFORE INSERT ON datasets_sales
        BEGIN SELECT RAISE(ABORT, 'no') WHERE length(hex(zeroblob(20000000))) > 0; END";
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, &[TRIGGER]).await;
    let trial = trial(30, Duration::from_millis(100));
    let tried = store.validate(&trial, batches(30)).await.unwrap();
    assert_eq!(tried, Tried::TooLong);
}
