//! A group of batches is stored whole or not at all, and each batch only once.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use carga_common::archive::ArchiveCompression;
use carga_common::batch::BatchId;
use carga_common::error::ErrorKind;
use carga_common::progress::{Counters, StoredBatch};
use carga_common::store::{Completed, Heartbeat, StoreOutcome};
use carga_common::upload::UploadId;
use futures::future::try_join_all;

use crate::sample::{self, first, in_epoch};
use crate::store::{
    REPLAY, STORED, StoreFixture, begin, check_sample_rows, complete, end_well, fail, seal,
    store_new,
};

pub(crate) async fn a_group_returns_one_outcome_per_batch_in_order<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (one, other) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    let failed = begin(store.as_ref()).await?;
    fail(store.as_ref(), failed).await?;
    let unknown = UploadId::generate();
    let of_one = sample::batches(one, 3, 2)?;
    let of_other = sample::batches(other, 1, 2)?;
    store_new(store.as_ref(), &of_one[1..2]).await?;

    let mut of_another_epoch = of_other[0].clone();
    of_another_epoch.batch.id.upload.epoch = 2.into();
    let (batches, expected): (Vec<_>, Vec<_>) = [
        (sample::batch(unknown)?, StoreOutcome::UnknownUpload),
        (of_one[2].clone(), STORED),
        (of_one[1].clone(), REPLAY),
        (sample::batch(failed)?, StoreOutcome::Fenced),
        (of_another_epoch, StoreOutcome::Fenced),
        (of_other[0].clone(), STORED),
        (of_one[0].clone(), STORED),
        (of_one[0].clone(), REPLAY),
    ]
    .into_iter()
    .unzip();
    let outcomes = store.store(&batches).await?;
    ensure!(outcomes == expected, "{outcomes:?}");
    for (id, rows) in [(one, 6), (other, 2), (failed, 0), (unknown, 0)] {
        ensure!(fixture.rows_in_table(id).await? == rows);
    }
    ensure!(store.store(&[]).await?.is_empty());
    Ok(())
}

/// A text with a NUL is valid JSON, but a database does not store it, so its batch is invalid.
pub(crate) async fn a_group_is_stored_whole_or_not_at_all<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (one, other) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    let with_nul = r#"[["7","fine"],["8","not \u0000 fine"]]"#;
    let invalid = sample::by_hand(one, 4, &sample::columns(), with_nul)?;
    let invalid = sample::archived(invalid);
    let good = [sample::batches(one, 3, 100)?, vec![sample::batch(other)?]].concat();
    // The invalid batch is the first, a middle and the last batch of the group.
    for index_of_invalid in [0, 2, good.len()] {
        let mut group = good.clone();
        group.insert(index_of_invalid, invalid.clone());
        let outcome = store.store(&group).await;
        ensure!(
            outcome
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::Invalid),
            "{outcome:?}"
        );
        for id in [one, other] {
            ensure!(store.ledger(first(id)).await?.is_empty());
            ensure!(fixture.rows_in_table(id).await? == 0);
        }
    }
    // Without the invalid batch the rest of the group is stored.
    store_new(store.as_ref(), &good).await?;
    end_well(store.as_ref(), one, 3, 300).await?;
    check_sample_rows(store.as_ref(), one, 300).await
}

pub(crate) async fn a_replay_adds_nothing_and_is_reported<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let id = begin(store.as_ref()).await?;
    let batches = sample::batches(id, 2, 100)?;
    // The same batch is twice in one group.
    let twice = [batches[0].clone(), batches[0].clone()];
    let outcomes = store.store(&twice).await?;
    ensure!(outcomes == [STORED, REPLAY]);
    // Another process stores it again, together with a new batch.
    let outcomes = other.store(&batches).await?;
    ensure!(outcomes == [REPLAY, STORED]);
    ensure!(fixture.rows_in_table(id).await? == 200);
    // A replay is also reported after the seal and after the end.
    ensure!(store.seal(first(id), &seal(2, 200)).await?);
    ensure!(store.store(&batches).await? == [REPLAY; 2]);
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    ensure!(store.store(&batches).await? == [REPLAY; 2]);
    ensure!(store.ledger(first(id)).await?.len() == 2);
    check_sample_rows(store.as_ref(), id, 200).await
}

pub(crate) async fn concurrent_stores_of_a_batch_store_it_once<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const BATCHES: u32 = 12;
    let handles = [fixture.open().await?, fixture.open().await?];
    let store = handles[0].as_ref();
    let uploads = [begin(store).await?, begin(store).await?];
    let mut all = Vec::new();
    for id in uploads {
        all.extend(sample::batches(id, BATCHES, 20)?);
    }
    // Every worker stores all batches in groups, some in reverse, so that groups have the same
    // uploads in opposite orders.
    let workers = (0..6).map(|number| {
        let store = handles[number % 2].clone();
        let mut mine = all.clone();
        if number % 3 == 0 {
            mine.reverse();
        }
        tokio::spawn(async move {
            let mut outcomes = Vec::new();
            for group in mine.chunks(3 + number) {
                let ids = group.iter().map(|archived| archived.batch.id);
                outcomes.extend(ids.zip(store.store(group).await?));
            }
            anyhow::Ok(outcomes)
        })
    });
    let mut stored: BTreeMap<BatchId, u32> = BTreeMap::new();
    for outcomes in try_join_all(workers).await? {
        for (id, outcome) in outcomes? {
            match outcome {
                STORED => *stored.entry(id).or_default() += 1,
                REPLAY => {}
                other => anyhow::bail!("{id}: {other:?}"),
            }
        }
    }
    ensure!(stored.len() == all.len());
    ensure!(stored.values().all(|times| *times == 1), "{stored:?}");
    for id in uploads {
        end_well(store, id, BATCHES, 240).await?;
        check_sample_rows(store, id, 240).await?;
    }
    Ok(())
}

/// Carga sends no batch without rows, but a message can contain one.
pub(crate) async fn a_batch_without_rows_is_stored<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let empty = sample::by_hand(id, 2, &sample::columns(), "[]")?;
    let group = [sample::batch(id)?, sample::archived(empty)];
    store_new(store.as_ref(), &group).await?;
    ensure!(store.store(&group).await? == [REPLAY; 2]);
    end_well(store.as_ref(), id, 2, 1).await?;
    check_sample_rows(store.as_ref(), id, 1).await
}

pub(crate) async fn ledger_entries_are_in_order_and_complete<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let columns = sample::columns();
    // The last batch has fewer rows.
    let mut batches = sample::batches_of(id, &columns, (1..=25).map(sample::cells), 10)?;
    (batches[2].archive_bytes, batches[2].object_bytes) = (5_000_000_000, 5_000_000_000);
    for next in [1, 2, 0] {
        store_new(store.as_ref(), &batches[next..=next]).await?;
    }
    let ledger = store.ledger(first(id)).await?;
    ensure!(ledger.len() == 3, "{ledger:?}");
    for (entry, (archived, rows)) in ledger.iter().zip(batches.iter().zip([10, 10, 5])) {
        ensure!(entry.seq == archived.batch.id.seq, "{ledger:?}");
        ensure!(entry.first_row == archived.batch.first_row(), "{ledger:?}");
        ensure!(entry.rows == rows && entry.rejected == 0, "{ledger:?}");
        ensure!(entry.archive_bytes == archived.archive_bytes, "{ledger:?}");
        ensure!(entry.archive_crc32 == archived.archive_crc32, "{ledger:?}");
        ensure!(entry.object_bytes == archived.object_bytes, "{ledger:?}");
    }
    ensure!(store.ledger(first(UploadId::generate())).await?.is_empty());
    Ok(())
}

/// Workers with different settings store the batches of one upload.
pub(crate) async fn the_ledger_keeps_how_the_object_of_each_batch_is_compressed<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let mut batches = sample::batches(id, 3, 10)?;
    batches[1].archive_compression = ArchiveCompression::Gzip;
    batches[1].object_bytes = 5_000_000_000;
    batches[2].archive_compression = ArchiveCompression::Zstd;
    batches[2].object_bytes = 7 * batches[2].archive_bytes;
    store_new(store.as_ref(), &batches).await?;
    // Another worker archives the first batch again.
    let mut again = batches[0].clone();
    again.archive_compression = ArchiveCompression::Zstd;
    (again.archive_bytes, again.archive_crc32) = (1, 1);
    ensure!(store.store(&[again]).await? == [REPLAY]);
    let ledger = store.ledger(first(id)).await?;
    ensure!(ledger.len() == 3, "{ledger:?}");
    for (entry, archived) in ledger.iter().zip(&batches) {
        ensure!(entry.archive_compression == archived.archive_compression);
        ensure!(entry.archive_bytes == archived.archive_bytes, "{ledger:?}");
        ensure!(entry.archive_crc32 == archived.archive_crc32, "{ledger:?}");
        ensure!(entry.object_bytes == archived.object_bytes, "{ledger:?}");
    }
    Ok(())
}

pub(crate) async fn progress_returns_the_ledger_and_the_recorded_figures<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let figures = Heartbeat {
        upload: id,
        rows_read: 70,
        rows_rejected: 0,
        bytes_received: 700,
    };
    store.heartbeat(&[figures]).await?;
    let batches = sample::batches(id, 3, 20)?;
    store_new(store.as_ref(), &[batches[2].clone(), batches[0].clone()]).await?;
    let mut snapshot = store.progress(first(id)).await?;
    ensure!((snapshot.rows_read, snapshot.bytes_received) == (70, 700));
    snapshot.stored.sort_unstable_by_key(|batch| batch.seq);
    let expected = [1, 3].map(|seq| StoredBatch {
        seq,
        rows: 20,
        rejected: 0,
    });
    ensure!(snapshot.stored == expected, "{snapshot:?}");

    ensure!(store.seal(first(id), &seal(4, 75)).await?);
    let sealed = store.progress(first(id)).await?;
    ensure!((sealed.rows_read, sealed.bytes_received) == (75, 750));
    let unknown = store.progress(first(UploadId::generate())).await?;
    ensure!(unknown.rows_read == 0 && unknown.stored.is_empty());
    Ok(())
}

pub(crate) async fn sums_are_those_of_the_ledger_and_the_recorded_figures<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    ensure!(store.sums(first(id)).await? == Counters::default());
    let figures = Heartbeat {
        upload: id,
        rows_read: 70,
        rows_rejected: 0,
        bytes_received: 700,
    };
    store.heartbeat(&[figures]).await?;
    store_new(store.as_ref(), &sample::batches(id, 3, 20)?).await?;
    let expected = Counters {
        rows_read: 70,
        bytes_received: 700,
        rows_stored: 60,
        rows_rejected: 0,
        batches_stored: 3,
    };
    let sums = store.sums(first(id)).await?;
    ensure!(sums == expected, "{sums:?}");
    // The ledger of another epoch does not count.
    let other_epoch = store.sums(in_epoch(id, 2)).await?;
    ensure!(other_epoch.batches_stored == 0 && other_epoch.rows_stored == 0);
    let unknown = store.sums(first(UploadId::generate())).await?;
    ensure!(unknown == Counters::default(), "{unknown:?}");
    Ok(())
}

/// A worker calls `admits` before it archives a batch. Every batch that can be stored or is stored
/// must be admitted.
pub(crate) async fn a_batch_is_admitted_while_it_can_be_stored<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let batch = |upload, epoch| BatchId {
        upload: in_epoch(upload, epoch),
        seq: 1,
    };
    let id = begin(store.as_ref()).await?;
    ensure!(store.admits(batch(id, 1)).await?);
    ensure!(!store.admits(batch(id, 2)).await?);
    ensure!(store.seal(first(id), &seal(1, 1)).await?);
    ensure!(store.admits(batch(id, 1)).await?);
    fail(store.as_ref(), id).await?;
    ensure!(!store.admits(batch(id, 1)).await?);
    // A replay is admitted, since its batch is stored.
    let completed = complete(store.as_ref(), 1, 1).await?;
    ensure!(store.admits(batch(completed, 1)).await?);
    ensure!(!store.admits(batch(completed, 2)).await?);
    // A batch of an unknown upload is admitted, since `store` reports it.
    ensure!(store.admits(batch(UploadId::generate(), 1)).await?);
    Ok(())
}
