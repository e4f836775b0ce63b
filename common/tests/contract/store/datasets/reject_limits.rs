//! Rows that violate a constraint count for the limit of rejected rows.

use anyhow::{Result, ensure};
use carga_common::rejects::RejectedRow;
use carga_common::store::{Completion, Heartbeat};
use carga_common::upload::{RejectLimit, UploadId};

use super::violations::{batches, begin, create_dataset, rejected_by_intake, seal_with, stored};
use crate::sample::first;
use crate::store::{STORED, StoreFixture};

/// The verdict and the number of rejected rows.
fn verdict(completion: &Completion) -> String {
    match completion {
        Completion::Ready { violating, .. } => format!("ready {violating}"),
        Completion::TooManyRejects { rejected, .. } => format!("too many {rejected}"),
        Completion::Incomplete => "incomplete".to_owned(),
        other => format!("{other:?}"),
    }
}

pub(crate) async fn an_upload_without_stored_rows_has_too_many_rejects<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let id = begin(store, RejectLimit::default()).await?;
    ensure!(store.reject(first(id), &[rejected_by_intake(6)]).await?);
    ensure!(store.seal(first(id), &seal_with(5, 1)).await?);
    ensure!(verdict(&store.completion(id).await?) == "incomplete");
    let outcomes = store.store(&batches(id, 5, &[1, 2, 3, 4, 5])?).await?;
    ensure!(outcomes == [stored(5)], "{outcomes:?}");
    let completion = store.completion(id).await?;
    ensure!(verdict(&completion) == "too many 6", "{completion:?}");
    Ok(())
}

/// The heartbeat of an upload of which the intake has read ten rows, and has rejected more.
fn beat(upload: UploadId, rejected: u64) -> Heartbeat {
    Heartbeat {
        upload,
        rows_read: 10 + rejected,
        rows_rejected: rejected,
        bytes_received: 0,
    }
}

pub(crate) async fn the_limit_of_rejected_rows_holds_for_violations<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let any = RejectLimit::default();
    let rows = |rows| RejectLimit {
        rows: Some(rows),
        ..any
    };
    let percent = |percent| RejectLimit {
        percent: Some(percent),
        ..any
    };
    let kept = |kept| RejectLimit { kept, ..any };
    let abort = RejectLimit { abort: true, ..any };
    // Of ten rows, three violate a constraint, all in the first of two batches.
    for (limit, by_intake, halfway, at_the_end) in [
        (any, 1, "incomplete", "ready 3"),
        (abort, 0, "too many 3", "too many 3"),
        (rows(2), 0, "too many 3", "too many 3"),
        (rows(3), 0, "incomplete", "ready 3"),
        (rows(3), 1, "too many 4", "too many 4"),
        (kept(2), 0, "too many 3", "too many 3"),
        (kept(3), 0, "incomplete", "ready 3"),
        (percent(30.0), 0, "incomplete", "ready 3"),
        (percent(29.9), 0, "incomplete", "too many 3"),
        (percent(30.0), 1, "incomplete", "too many 4"),
    ] {
        let id = begin(store, limit).await?;
        let batches = batches(id, 10, &[1, 3, 4])?;
        let rejected: Vec<RejectedRow> = (11..11 + by_intake).map(rejected_by_intake).collect();
        ensure!(store.reject(first(id), &rejected).await?);
        ensure!(store.store(&batches[..1]).await? == [stored(3)]);
        ensure!(store.heartbeat(&[beat(id, by_intake)]).await? == [id]);
        let mut found = vec![verdict(&store.completion(id).await?)];
        let seal = seal_with(10, by_intake);
        ensure!(store.seal(first(id), &seal).await?);
        found.push(verdict(&store.completion(id).await?));
        ensure!(store.store(&batches[1..]).await? == [STORED]);
        found.push(verdict(&store.completion(id).await?));
        // While the file is received, and after the seal.
        let expected = [halfway, halfway, at_the_end];
        ensure!(found == expected, "{limit:?}, {by_intake}: {found:?}");
    }
    Ok(())
}
