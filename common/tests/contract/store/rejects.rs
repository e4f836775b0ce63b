//! Rejected rows are kept with their reasons and counted.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carga_common::rejects::RejectedRow;
use carga_common::store::{Completed, Completion, Seal, Store};
use carga_common::upload::{Status, UploadId};
use carga_testkit::eventually;
use futures::future::try_join_all;

use super::{StoreFixture, begin, fail, find, remove_all, rows, seal, store_new};
use crate::sample::{self, first, in_epoch};

pub(super) fn rejected(row: u64) -> RejectedRow {
    RejectedRow {
        row,
        line: row + 1,
        offset: row * 10,
        column: None,
        code: "too_few_fields".to_owned(),
        constraint: None,
        message: "expected 2 fields, found 1".to_owned(),
        raw: Some(format!("row {row}")),
        fields: None,
    }
}

async fn all(store: &dyn Store, id: UploadId) -> Result<Vec<RejectedRow>> {
    let mut all: Vec<RejectedRow> = Vec::new();
    loop {
        let last = all.last().map_or(0, |rejected| rejected.row);
        let page = store.rejected_page(id, last).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

pub(super) async fn a_rejected_row_is_read_back_unchanged<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let in_a_column = RejectedRow {
        row: 1 << 35,
        line: 1 << 40,
        offset: 1 << 50,
        column: Some("näme, \"quoted\"".to_owned()),
        code: "undecodable".to_owned(),
        constraint: Some("sales \"näme\"".to_owned()),
        message: "🦀 \\ '\n".to_owned(),
        raw: None,
        fields: Some(vec![
            "007".into(),
            String::new(),
            "\\xE9, {\"a\":null}".into(),
        ]),
    };
    let given = [rejected(3), in_a_column];
    ensure!(store.reject(first(id), &given).await?);
    ensure!(all(store.as_ref(), id).await? == given);
    ensure!(all(store.as_ref(), UploadId::generate()).await?.is_empty());
    Ok(())
}

pub(super) async fn rejected_rows_are_read_in_order_and_once_each<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const ROWS: u64 = 1200;
    let store = fixture.open().await?;
    let (id, other) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    let given: Vec<RejectedRow> = (1..=ROWS).map(rejected).collect();
    let (lower, upper) = given.split_at(500);
    ensure!(store.reject(first(id), upper).await?);
    ensure!(store.reject(first(other), &[rejected(7)]).await?);
    ensure!(store.reject(first(id), lower).await?);
    // A caller whose answer was lost repeats the call.
    ensure!(store.reject(first(id), lower).await?);
    ensure!(store.reject(first(id), &[]).await?);
    ensure!(all(store.as_ref(), id).await? == given);
    Ok(())
}

pub(super) async fn a_page_of_rejected_rows_is_bounded_in_bytes<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let wide = |row| RejectedRow {
        raw: Some("é".repeat(300_000)),
        ..rejected(row)
    };
    let given: Vec<RejectedRow> = (1..=5).map(wide).collect();
    ensure!(store.reject(first(id), &given).await?);
    // Each has 600,000 bytes, and a page ends with the row that exceeds 1 MiB.
    let page = store.rejected_page(id, 0).await?;
    ensure!(page.len() == 2, "expected 2 rows, found {}", page.len());
    ensure!(all(store.as_ref(), id).await? == given);
    Ok(())
}

/// A report of long rows has a page per row. If each page read the rows behind it, the time of the
/// report would grow with the square of its length.
pub(super) async fn a_page_of_rejected_rows_does_not_read_the_long_rows_behind_it<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    const ROWS: u64 = 120;
    const BYTES: usize = 2_000_000;
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    for row in 1..=ROWS {
        // Characters that do not repeat, so that the database cannot make them shorter.
        let mut state = row;
        let characters = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'0' + (state >> 57) as u8 % 40)
        });
        let rejected = RejectedRow {
            raw: None,
            fields: Some(vec![characters.take(BYTES).collect()]),
            ..rejected(row)
        };
        ensure!(store.reject(first(id), &[rejected]).await?);
    }
    // The shortest of several times, since another process may delay any of them.
    let time = async |after_row| -> Result<Duration> {
        let mut shortest = Duration::MAX;
        for _ in 0..5 {
            let started = Instant::now();
            let page = store.rejected_page(id, after_row).await?;
            ensure!(page.len() == 1, "expected 1 row, found {}", page.len());
            shortest = shortest.min(started.elapsed());
        }
        Ok(shortest)
    };
    let (of_first, of_last) = (time(0).await?, time(ROWS - 1).await?);
    ensure!(
        of_first < 6 * of_last,
        "{of_first:?}, and {of_last:?} for the last row"
    );
    Ok(())
}

pub(super) async fn a_failed_upload_keeps_its_rejected_rows_and_takes_no_more<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    store_new(store.as_ref(), &sample::batches(id, 1, 10)?).await?;
    ensure!(
        store
            .reject(first(id), &[rejected(11), rejected(12)])
            .await?
    );
    ensure!(
        !store.reject(in_epoch(id, 2), &[rejected(13)]).await?,
        "accepted for another epoch"
    );
    fail(store.as_ref(), id).await?;
    ensure!(!store.reject(first(id), &[rejected(14)]).await?);
    let unknown = UploadId::generate();
    ensure!(!store.reject(first(unknown), &[rejected(1)]).await?);
    remove_all(store.as_ref(), id).await?;

    let kept = all(store.as_ref(), id).await?;
    ensure!(kept == [rejected(11), rejected(12)], "{kept:?}");
    let upload = find(store.as_ref(), id).await?;
    ensure!(
        (upload.rows_read, upload.rows_rejected) == (12, 2),
        "{upload:?}"
    );
    Ok(())
}

/// The end of an upload counts its rejected rows. A row that is being rejected at that moment is
/// either counted or refused.
pub(super) async fn rows_being_rejected_do_not_outlive_a_failure<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const ROUNDS: usize = 10;
    const INTAKES: u64 = 4;
    let handles = [fixture.open().await?, fixture.open().await?];
    let store = handles[0].as_ref();
    for round in 0..ROUNDS {
        let id = begin(store).await?;
        let intakes = (0..INTAKES).map(|number| {
            let store = handles[number as usize % 2].clone();
            tokio::spawn(async move {
                for row in (number + 1..).step_by(INTAKES as usize) {
                    if !store.reject(first(id), &[rejected(row)]).await? {
                        break;
                    }
                }
                anyhow::Ok(())
            })
        });
        let intakes: Vec<_> = intakes.collect();
        // In every round the upload fails at a different moment.
        let enough = 2 + 4 * round;
        eventually(Duration::from_secs(60), "some rejected rows", async || {
            let rejected = all(store, id).await;
            rejected.is_ok_and(|rejected| rejected.len() >= enough)
        })
        .await?;
        fail(store, id).await?;
        let counted = find(store, id).await?.rows_rejected;
        for refused in try_join_all(intakes).await? {
            refused?;
        }
        let kept = all(store, id).await?.len() as u64;
        ensure!(kept == counted, "{kept} kept, {counted} counted");
    }
    Ok(())
}

fn seal_with(rejected: u64) -> Seal {
    Seal {
        rejected,
        blank_lines: 4,
        ..seal(2, 20 + rejected)
    }
}

pub(super) async fn an_upload_with_rejected_rows_ends_as_partial<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    store_new(store.as_ref(), &sample::batches(id, 2, 10)?).await?;
    ensure!(store.reject(first(id), &[rejected(21)]).await?);
    ensure!(store.seal(first(id), &seal_with(1)).await?);
    let completion = store.completion(id).await?;
    let is_ready = matches!(completion, Completion::Ready { violating: 0, .. });
    ensure!(is_ready, "{completion:?}");
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    let upload = find(store.as_ref(), id).await?;
    ensure!(upload.status == Status::Partial, "{upload:?}");
    ensure!(upload.rows_read == 21 && upload.rows_inserted == Some(20));
    ensure!(upload.rows_rejected == 1 && upload.blank_lines == Some(4));
    ensure!(rows(store.as_ref(), id).await?.len() == 20);
    Ok(())
}

pub(super) async fn rejected_counts_that_do_not_add_up_are_a_mismatch<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    // The seal announces more rejected rows than the store has, or fewer.
    for (kept, announced, announced_rows) in [(1, 2, 22), (2, 1, 21), (1, 0, 20), (1, 0, 21)] {
        let id = begin(store.as_ref()).await?;
        store_new(store.as_ref(), &sample::batches(id, 2, 10)?).await?;
        let given: Vec<RejectedRow> = (21..21 + kept).map(rejected).collect();
        ensure!(store.reject(first(id), &given).await?);
        let seal = Seal {
            rows: announced_rows,
            ..seal_with(announced)
        };
        ensure!(store.seal(first(id), &seal).await?);
        match store.completion(id).await? {
            Completion::Mismatch {
                read,
                stored,
                rejected,
            } => ensure!((read, stored, rejected) == (announced_rows, 20, kept)),
            other => anyhow::bail!("{other:?}"),
        }
        ensure!(store.complete(first(id), 0).await? == Completed::No);
    }
    Ok(())
}

pub(super) async fn rows_keep_their_numbers_around_rejected_rows<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let numbers = [2, 3, 5, 9, 10];
    store_new(store.as_ref(), &[sample::batch_of(id, 1, numbers)?]).await?;
    let given: Vec<RejectedRow> = [1, 4, 6, 7, 8].map(rejected).to_vec();
    ensure!(store.reject(first(id), &given).await?);
    let seal = Seal {
        rejected: 5,
        ..seal(1, 10)
    };
    ensure!(store.seal(first(id), &seal).await?);
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    let found = rows(store.as_ref(), id).await?;
    let found_numbers: Vec<u64> = found.iter().map(|row| row.row_number).collect();
    ensure!(found_numbers == numbers, "{found_numbers:?}");
    for row in found {
        let cells: Vec<_> = sample::cells(row.row_number)
            .into_iter()
            .map(Some)
            .collect();
        ensure!(row.fields == cells, "{row:?}");
    }
    Ok(())
}
