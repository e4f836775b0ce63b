//! The records of uploads, from their creation to their only end.

use anyhow::{Result, ensure};
use carga_common::error::ErrorKind;
use carga_common::store::{Completed, Heartbeat, NewUpload, Seal};
use carga_common::upload::{Dialect, Failure, Status, UploadId};
use futures::future::{join, try_join_all};
use uuid::Uuid;

use crate::sample::{self, first, in_epoch};
use crate::store::{
    StoreFixture, begin, check_status, fail, failure, find, new_upload, seal, store_new,
};

pub(crate) async fn a_new_upload_is_recorded_with_every_given_field<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let given = NewUpload {
        // An id that a client chose.
        id: Uuid::new_v4().into(),
        tenant: "acme".parse()?,
        created_by: Some("a key".to_owned()),
        filename: Some("a \"file\" 🦀\\.csv".to_owned()),
        dialect: Dialect::rfc4180(true),
        columns: ["say \"hi\"", "", "ü\n", "{a,b}", "it's", "a", "a"]
            .map(String::from)
            .to_vec(),
        dataset: None,
        bytes_total: Some(10 << 30),
    };
    let created = store.create(&given).await?;
    for upload in [created, find(store.as_ref(), given.id).await?] {
        ensure!(upload.key() == first(given.id), "{upload:?}");
        ensure!(upload.public_id == given.id && upload.tenant == given.tenant);
        ensure!(upload.created_by == given.created_by, "{upload:?}");
        ensure!(upload.status == Status::Receiving, "{upload:?}");
        ensure!(upload.filename == given.filename, "{upload:?}");
        ensure!(upload.dialect == given.dialect, "{upload:?}");
        ensure!(upload.columns == given.columns, "{upload:?}");
        ensure!(upload.bytes_total == given.bytes_total, "{upload:?}");
        ensure!((upload.bytes_received, upload.rows_read) == (0, 0));
        ensure!(upload.batches_total.is_none() && upload.batches_dead == 0);
        ensure!(upload.rows_inserted.is_none() && upload.sha256.is_none());
        ensure!(upload.failure.is_none() && !upload.cleanup_pending);
        ensure!(upload.finished_at.is_none(), "{upload:?}");
    }
    let nameless = NewUpload {
        id: UploadId::generate(),
        created_by: None,
        filename: None,
        bytes_total: None,
        ..given
    };
    let created = store.create(&nameless).await?;
    ensure!(created.filename.is_none() && created.bytes_total.is_none());
    ensure!(created.created_by.is_none());
    ensure!(store.upload(UploadId::generate()).await?.is_none());
    Ok(())
}

pub(crate) async fn creating_an_existing_id_is_a_conflict<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let id = begin(store.as_ref()).await?;
    let second = new_upload(id, vec!["another".to_owned()]);
    for store in [&store, &other] {
        let outcome = store.create(&second).await;
        ensure!(outcome.is_err_and(|error| error.kind() == ErrorKind::Conflict));
    }
    // The id stays taken after its upload has ended.
    fail(store.as_ref(), id).await?;
    let outcome = store.create(&second).await;
    ensure!(outcome.is_err_and(|error| error.kind() == ErrorKind::Conflict));
    ensure!(find(store.as_ref(), id).await?.columns == sample::columns());
    check_status(store.as_ref(), id, Status::Failed).await
}

pub(crate) async fn an_upload_is_sealed_once<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    ensure!(store.seal(first(id), &seal(3, 250)).await?);
    ensure!(!store.seal(first(id), &seal(9, 900)).await?);
    let upload = find(store.as_ref(), id).await?;
    ensure!(upload.status == Status::Processing, "{upload:?}");
    ensure!(upload.batches_total == Some(3), "{upload:?}");
    ensure!((upload.rows_read, upload.bytes_received) == (250, 2500));
    ensure!(upload.sha256 == Some([7; 32].into()) && upload.finished_at.is_none());
    ensure!(!store.seal(first(UploadId::generate()), &seal(0, 0)).await?);
    Ok(())
}

/// A file may show its encoding only far below its header.
pub(crate) async fn a_seal_replaces_the_dialect_only_if_it_has_one<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let late = Dialect {
        encoding: "windows-1252".to_owned(),
        ..Dialect::rfc4180(false)
    };
    for dialect in [None, Some(late)] {
        let id = begin(store.as_ref()).await?;
        let created = find(store.as_ref(), id).await?.dialect;
        let sealed = Seal {
            dialect: dialect.clone(),
            ..seal(1, 1)
        };
        ensure!(store.seal(first(id), &sealed).await?);
        let found = find(store.as_ref(), id).await?.dialect;
        ensure!(found == dialect.unwrap_or(created), "{found:?}");
    }
    Ok(())
}

/// A caller that lost the answer to its seal repeats the call.
pub(crate) async fn a_repeated_seal_with_the_same_totals_succeeds<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let id = begin(store.as_ref()).await?;
    let totals = seal(2, 10);
    ensure!(store.seal(first(id), &totals).await?);
    ensure!(other.seal(first(id), &totals).await?);
    check_status(store.as_ref(), id, Status::Processing).await?;
    store_new(store.as_ref(), &sample::batches(id, 2, 5)?).await?;
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    ensure!(other.seal(first(id), &totals).await?);
    check_status(store.as_ref(), id, Status::Completed).await?;

    // A sealed upload that has failed since then is not presented as sealed.
    let id = begin(store.as_ref()).await?;
    ensure!(store.seal(first(id), &totals).await?);
    fail(store.as_ref(), id).await?;
    ensure!(!store.seal(first(id), &totals).await?);
    check_status(store.as_ref(), id, Status::Failed).await
}

/// An intake that lost the answer to its seal may fail the upload, although it is accepted.
pub(crate) async fn a_failure_of_the_intake_keeps_a_sealed_upload<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    ensure!(store.seal(first(id), &seal(2, 10)).await?);
    let last = Some(beat(id, 10, 100));
    ensure!(!store.fail(first(id), &failure(), last).await?);
    check_status(store.as_ref(), id, Status::Processing).await?;
    // A dead letter still fails the upload.
    ensure!(store.fail(first(id), &failure(), None).await?);
    check_status(store.as_ref(), id, Status::Failed).await
}

pub(crate) async fn a_failed_upload_is_not_sealed<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    fail(store.as_ref(), id).await?;
    ensure!(!store.seal(first(id), &seal(3, 250)).await?);
    let upload = find(store.as_ref(), id).await?;
    ensure!(upload.status == Status::Failed, "{upload:?}");
    ensure!(upload.batches_total.is_none(), "{upload:?}");
    ensure!(store.complete(first(id), 0).await? == Completed::No);
    Ok(())
}

pub(crate) async fn a_failure_is_recorded_with_its_position<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let failure = Failure::new("too_long", "the \"cell\" 🦀 is\ntoo long")
        .at(3_000_000_000, 5_000_000_000)
        .in_column("näme");
    ensure!(store.fail(first(id), &failure, None).await?);
    let upload = find(store.as_ref(), id).await?;
    ensure!(upload.status == Status::Failed, "{upload:?}");
    ensure!(upload.failure == Some(failure), "{upload:?}");
    ensure!(upload.cleanup_pending, "{upload:?}");
    ensure!(upload.finished_at >= Some(upload.created_at), "{upload:?}");
    Ok(())
}

pub(crate) async fn an_upload_ends_once<F: StoreFixture>(fixture: &F) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let id = begin(store.as_ref()).await?;
    let failure = failure();
    let fails = (0..8).map(|number| {
        let store = if number % 2 == 0 { &store } else { &other };
        store.fail(first(id), &failure, None)
    });
    let ended = try_join_all(fails).await?;
    ensure!(ended.iter().filter(|ended| **ended).count() == 1);

    // A failure and a completion at the same time.
    for _ in 0..10 {
        let id = begin(store.as_ref()).await?;
        store_new(store.as_ref(), &[sample::batch(id)?]).await?;
        ensure!(store.seal(first(id), &seal(1, 1)).await?);
        let failed = other.fail(first(id), &failure, None);
        let (completed, failed) = join(store.complete(first(id), 0), failed).await;
        let expected = match (completed?, failed?) {
            (Completed::Yes, false) => Status::Completed,
            (Completed::No, true) => Status::Failed,
            ended => anyhow::bail!("expected one end, found (completed, failed) = {ended:?}"),
        };
        check_status(store.as_ref(), id, expected).await?;
        ensure!(!store.fail(first(id), &failure, None).await?);
        ensure!(other.complete(first(id), 0).await? == Completed::No);
        check_status(other.as_ref(), id, expected).await?;
    }
    Ok(())
}

pub(crate) async fn a_call_for_another_epoch_changes_nothing<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    store_new(store.as_ref(), &[sample::batch(id)?]).await?;
    ensure!(!store.seal(in_epoch(id, 2), &seal(1, 1)).await?);
    ensure!(!store.fail(in_epoch(id, 2), &failure(), None).await?);
    check_status(store.as_ref(), id, Status::Receiving).await?;
    ensure!(
        !store
            .fail(first(UploadId::generate()), &failure(), None)
            .await?
    );
    ensure!(store.seal(first(id), &seal(1, 1)).await?);
    ensure!(store.complete(in_epoch(id, 2), 0).await? == Completed::No);
    ensure!(!store.fail(in_epoch(id, 0), &failure(), None).await?);
    check_status(store.as_ref(), id, Status::Processing).await?;
    ensure!(store.ledger(in_epoch(id, 2)).await?.is_empty());
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    Ok(())
}

fn beat(upload: UploadId, rows_read: u64, bytes_received: u64) -> Heartbeat {
    Heartbeat {
        upload,
        rows_read,
        rows_rejected: 0,
        bytes_received,
    }
}

pub(crate) async fn figures_on_record_never_go_down<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    for (rows, bytes, expected) in [
        (100, 1000, (100, 1000)),
        (50, 500, (100, 1000)),
        // Rows and bytes are raised independently.
        (200, 0, (200, 1000)),
        (0, 3_000_000_000, (200, 3_000_000_000)),
    ] {
        ensure!(store.heartbeat(&[beat(id, rows, bytes)]).await? == [id]);
        let upload = find(store.as_ref(), id).await?;
        let found = (upload.rows_read, upload.bytes_received);
        ensure!(found == expected, "expected {expected:?}, found {found:?}");
    }
    Ok(())
}

pub(crate) async fn a_heartbeat_renews_only_receiving_uploads<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (one, other) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    let (failed, sealed) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    fail(store.as_ref(), failed).await?;
    ensure!(store.seal(first(sealed), &seal(1, 5)).await?);
    let unknown = UploadId::generate();
    let beats = [one, failed, unknown, sealed, other].map(|id| beat(id, 1000, 1000));
    let mut renewed = store.heartbeat(&beats).await?;
    renewed.sort_unstable();
    ensure!(renewed == [one, other], "{renewed:?}");
    // An ended upload keeps its final figures.
    ensure!(find(store.as_ref(), failed).await?.rows_read == 0);
    ensure!(find(store.as_ref(), sealed).await?.rows_read == 5);
    ensure!(store.heartbeat(&[]).await?.is_empty());
    Ok(())
}

pub(crate) async fn a_failed_upload_keeps_its_highest_figures<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let figures = async |last: Option<(u64, u64)>| -> Result<(u64, u64)> {
        let id = begin(store.as_ref()).await?;
        store.heartbeat(&[beat(id, 100, 1000)]).await?;
        // The workers may have stored more rows than the last heartbeat reported.
        store_new(store.as_ref(), &sample::batches(id, 3, 50)?).await?;
        let last = last.map(|(rows, bytes)| beat(id, rows, bytes));
        ensure!(store.fail(first(id), &failure(), last).await?);
        let upload = find(store.as_ref(), id).await?;
        Ok((upload.rows_read, upload.bytes_received))
    };
    for (last, expected) in [
        (None, (150, 1000)),
        (Some((400, 4000)), (400, 4000)),
        (Some((10, 10)), (150, 1000)),
    ] {
        let found = figures(last).await?;
        ensure!(found == expected, "expected {expected:?}, found {found:?}");
    }
    Ok(())
}
