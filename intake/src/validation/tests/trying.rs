//! How the outcome of a trial refuses a file, and how trials take turns.

use carga_common::error::{ErrorKind, PortError};
use futures::future::join_all;

use super::*;
use crate::refusal::RefusalKind;

/// An error of the store, and the kind and code of the refusal that follows.
type Failing = (fn() -> PortResult<Tried>, RefusalKind, &'static str);

const FAILURES: [Failing; 4] = [
    (
        || failed(ErrorKind::Invalid),
        RefusalKind::Unprocessable,
        "merge_failed",
    ),
    (
        || failed(ErrorKind::Unavailable),
        RefusalKind::Unavailable,
        "dependency_unavailable",
    ),
    (
        || failed(ErrorKind::NotFound),
        RefusalKind::NotFound,
        "dataset_not_found",
    ),
    (
        || failed(ErrorKind::Full),
        RefusalKind::Full,
        "storage_full",
    ),
];

fn failed(kind: ErrorKind) -> PortResult<Tried> {
    Err(PortError::new(kind, "store.validate", "why"))
}

#[tokio::test]
async fn a_trial_that_fails_refuses_the_file() {
    let refusal = async |outcome: fn() -> PortResult<Tried>, given: &[(&str, &str)]| {
        let given = [&[DATASET][..], given].concat();
        let store = FakeStore::new(outcome);
        let file = "sku,price\na,1\nb,2\nc,3\nd,4\n";
        try_file(&store, &given, file).await.unwrap_err()
    };
    let too_long = refusal(|| Ok(Tried::TooLong), &[]).await;
    assert_eq!(too_long.kind, RefusalKind::Unprocessable);
    assert_eq!(too_long.failure.code, "validation_too_long");
    let message = too_long.failure.message;
    assert!(
        message.contains("within 60 s (CARGA_VALIDATE_SECS)"),
        "{message}"
    );

    for (outcome, kind, code) in FAILURES {
        let refusal = refusal(outcome, &[]).await;
        assert_eq!((refusal.kind, refusal.failure.code.as_str()), (kind, code));
    }
}

/// The answer of a store that has found too many rejected rows, of which row 3 is the first.
fn too_many(rejected_rows: u64) -> PortResult<Tried> {
    Ok(Tried::TooManyRejects {
        rejected: rejected_rows,
        first: Some(rejected(3)),
    })
}

#[tokio::test]
async fn too_many_rejected_rows_refuse_a_file_as_they_fail_its_upload() {
    let failure = async |outcome: fn() -> PortResult<Tried>, given: (&str, &str), file: &str| {
        let store = FakeStore::new(outcome);
        let refused = try_file(&store, &[DATASET, given], file).await;
        refused.unwrap_err().failure
    };
    let good = "sku,price\na,1\nb,2\nc,3\n";
    let many = failure(|| too_many(3), ("max_rejects", "2"), good).await;
    assert_eq!(many.code, "too_many_rejects");
    let message = "more than 2 rows were rejected (max_rejects)";
    assert_eq!(many.message, message);

    let abort = failure(|| too_many(1), ("on_error", "abort"), good).await;
    assert_eq!(abort.code, "unique_violation");
    assert_eq!((abort.row, abort.line), (Some(3), Some(4)));
    assert_eq!(abort.column.as_deref(), Some("sku"));

    // Reading has rejected row 2.
    let faulty = "sku,price\na,1\nb,cheap\nc,3\n";
    let none = failure(|| too_many(3), ("max_rejects", "100%"), faulty).await;
    assert_eq!(none.code, "no_row_fits");
    assert!(none.message.contains("row 2 is rejected"), "{none:?}");
    let none = failure(|| too_many(3), ("max_rejects", "100%"), good).await;
    assert!(none.message.contains("row 3 is rejected"), "{none:?}");
}

#[tokio::test]
async fn an_unstaged_upload_writes_null_into_the_columns_that_its_file_lacks() {
    let store = FakeStore::new(nothing);
    let missing = async |given: &[(&str, &str)]| {
        let given = [&[DATASET][..], given].concat();
        try_file(&store, &given, "sku\na\n").await.unwrap();
        store.last().dataset.missing
    };
    assert!(missing(&[]).await.is_empty());
    assert_eq!(missing(&[("mode", "update")]).await, ["price"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_waits_for_its_turn_as_long_as_a_trial_may_take() {
    let (store, options) = (FakeStore::new(nothing), options(&[DATASET]));
    let validator = validator();
    let _turn = validator.trials.acquire().await.unwrap();
    let read = read(&options, "sku,price\na,1\n").await.unwrap();
    let tried = validator.try_rows(read.untried.unwrap(), &store).await;
    let refusal = tried.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    assert_eq!(refusal.failure.code, "validation_busy");
    assert!(refusal.retry_after_secs.is_some());
    assert_eq!(store.trials(), 0);
}

#[tokio::test]
async fn trials_take_turns() {
    let (store, options) = (FakeStore::new(nothing), options(&[DATASET]));
    let validator = validator();
    let trials = (0..6).map(|_| async {
        let read = read(&options, "sku,price\na,1\n").await.unwrap();
        let tried = validator.try_rows(read.untried.unwrap(), &store);
        tried.await.unwrap();
    });
    join_all(trials).await;
    assert_eq!(store.trials(), 6);
    assert_eq!(store.most_running(), TRIALS_AT_ONCE);
}
