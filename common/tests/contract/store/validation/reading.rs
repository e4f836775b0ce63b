//! A trial reads its batches without a lock, and keeps nothing if it fails.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use carga_common::dataset::{Definition, Mode};
use carga_common::error::ErrorKind;
use carga_common::store::{Completed, TrialBatches};
use carga_common::upload::UploadId;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::{difference, messages, stream_of, trial, try_rows, without_trace};
use crate::sample::{self, first};
use crate::store::datasets::key;
use crate::store::datasets::merging::{Row, appended, create_dataset, merge, merged, send};
use crate::store::{StoreFixture, remove_all};

/// The batches that are sent until the sender is dropped.
fn received(receiver: mpsc::Receiver<Bytes>) -> TrialBatches<'static> {
    let messages = stream::unfold(receiver, |mut receiver| async move {
        let message = receiver.recv().await;
        message.map(|message| (Ok(message), receiver))
    });
    messages.boxed()
}

pub(crate) async fn no_writer_waits_while_batches_are_read<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const SOON: Duration = Duration::from_secs(20);
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let before = [("a", Some("1"), None), ("b", Some("2"), None)];
    merge(store, Mode::Update, &before).await?;
    let given: [Row<'_>; 6] = [
        ("a", Some("9"), None),
        ("b", Some("2"), None),
        ("c", Some("3"), None),
        ("d", Some("4"), None),
        ("e", Some("5"), None),
        ("f", Some("6"), None),
    ];
    let trial = trial(merged(Mode::Update)?, &given);
    let (sender, receiver) = mpsc::channel(1);
    let trying = store.validate(&trial, received(receiver));
    let messages = messages(&given)?;
    let writing = async move {
        for message in &messages[..2] {
            sender.send(message.clone()).await?;
        }
        // The channel has room for one message, so the trial has taken both by then.
        let room = sender.reserve().await?;
        let update = [("a", Some("9"), None), ("c", Some("8"), None)];
        let merged = merge(store, Mode::Update, &update);
        tokio::time::timeout(SOON, merged).await??;
        let table = F::table(&key("sales")?);
        let by_hand = format!("UPDATE {table} SET note = 'by hand' WHERE sku = 'b'");
        tokio::time::timeout(SOON, fixture.execute(&by_hand)).await??;
        room.send(messages[2].clone());
        anyhow::Ok(())
    };
    let (tried, written) = tokio::join!(trying, writing);
    let tried = tried?;
    written?;
    // The trial finds the rows as they are after the last batch.
    let found = difference(tried)?;
    let counts = [found.inserted, found.updated, found.duplicate];
    ensure!(counts == [3, 2, 1], "{found:?}");
    let changed = found.changed_columns.iter();
    let changed = changed.map(|(column, rows)| (column.as_str(), *rows));
    ensure!(changed.eq([("note", 1), ("stock", 1)]), "{found:?}");
    Ok(())
}

pub(crate) async fn a_trial_whose_batches_cannot_be_read_leaves_nothing<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let a = ("a", Some("1"), Some("x"));
    merge(store, Mode::Update, &[a]).await?;
    let given = [("a", Some("2"), None), ("b", Some("2"), None)];
    let trial = trial(merged(Mode::Update)?, &given);
    let message = messages(&given)?.pop().context("no message")?;
    for is_first in [true, false] {
        let fault = Err(io::Error::other("the spool is gone"));
        let batches = match is_first {
            true => vec![fault],
            false => vec![Ok(message.clone()), fault],
        };
        let batches = stream::iter(batches).boxed();
        let outcome = without_trace(fixture, store.validate(&trial, batches)).await?;
        let error = outcome.err().context("the trial did not fail")?;
        ensure!(
            error.chain().contains("the spool is gone"),
            "{}",
            error.chain()
        );
    }
    let found = difference(try_rows(fixture, store, merged(Mode::Update)?, &given).await?)?;
    ensure!((found.inserted, found.updated) == (1, 1), "{found:?}");
    Ok(())
}

pub(crate) async fn a_batch_that_does_not_fit_its_trial_is_invalid<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let given = [("a", Some("1"), None)];
    let trial = trial(merged(Mode::Update)?, &given);
    let columns = ["sku", "stock"].map(String::from);
    let cells = ["a", "1"].map(|text| Some(text.to_owned())).to_vec();
    let id = UploadId::generate();
    let other = sample::encoded_batches_of(id, &columns, [cells], 1)?;
    let other = other.into_iter().map(|batch| batch.body).collect();
    for messages in [other, vec![Bytes::from_static(b"{}")]] {
        let trying = store.validate(&trial, stream_of(messages));
        let outcome = without_trace(fixture, trying).await?;
        let is_invalid = outcome
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Invalid);
        ensure!(is_invalid, "{outcome:?}");
    }
    Ok(())
}

pub(crate) async fn a_trial_is_unavailable_while_rows_must_be_removed<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let given = [("a", Some("1"), None), ("b", Some("2"), None)];
    let undone = send(store, appended()?, &given).await?;
    ensure!(store.complete(first(undone), 0).await? == Completed::Yes);
    ensure!(store.undo(first(undone)).await?);
    let trial = trial(merged(Mode::Ignore)?, &given);
    let trying = store.validate(&trial, stream_of(messages(&given)?));
    let outcome = without_trace(fixture, trying).await?;
    let is_unavailable = outcome
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::Unavailable);
    ensure!(is_unavailable, "{outcome:?}");
    // An update replaces these rows.
    let found = difference(try_rows(fixture, store, merged(Mode::Update)?, &given).await?)?;
    ensure!((found.updated, found.duplicate) == (2, 0), "{found:?}");
    ensure!(found.changed_columns.is_empty(), "{found:?}");

    remove_all(store, undone).await?;
    let found = difference(try_rows(fixture, store, merged(Mode::Ignore)?, &given).await?)?;
    ensure!(found.inserted == 2, "{found:?}");
    Ok(())
}

pub(crate) async fn a_trial_of_a_missing_dataset_is_not_found<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    let given = [("a", Some("1"), None)];
    let trial = trial(merged(Mode::Update)?, &given);
    let other = br#"{"columns":[{"name":"sku","type":"text"},{"name":"stock","type":"float"}]}"#;
    for is_declared in [false, true] {
        if is_declared {
            let other = Definition::from_json(other)?;
            store.put_dataset(&key("sales")?, &other).await?;
        }
        let trying = store.validate(&trial, stream_of(messages(&given)?));
        let outcome = without_trace(fixture, trying).await?;
        let is_not_found = outcome
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::NotFound);
        ensure!(is_not_found, "{is_declared}: {outcome:?}");
    }
    Ok(())
}
