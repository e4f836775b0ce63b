//! Rows are read back as they were stored.

use anyhow::{Context, Result, ensure};
use carga_common::archive::ArchiveCompression;
use carga_common::error::ErrorKind;
use carga_common::store::{Completed, Store, StoredRow};
use carga_common::upload::UploadId;

use super::{
    StoreFixture, begin, check_sample_rows, complete, end_well, fail, new_upload, rows, seal,
    store_new,
};
use crate::sample::{self, first};

/// Texts that an encoder, a driver or a database could misread.
const ODD: [&str; 36] = [
    "",
    " ",
    " a ",
    "é",
    "e\u{301}",
    "🦀",
    "👩‍👩‍👧",
    "שלום",
    "\u{feff}",
    "\u{fffd}",
    "\u{10ffff}",
    "\u{e000}",
    "\u{2028}",
    "\"",
    "\"\"",
    "\\",
    "\\\\",
    "\\N",
    "\\u0041",
    "\\.",
    "a,b",
    "{a,\"b\"}",
    "[1,null]",
    "'; DROP TABLE rows; --",
    "$1 ?1 %s {0}",
    "\n",
    "\r\n",
    "line\nline\n",
    "\t",
    "\u{1}\u{8}\u{c}\u{1b}\u{1f}",
    "\u{7f}\u{85}",
    "null",
    "NULL",
    "007",
    "1e5",
    "true",
];

/// Stores rows in batches of 1,000, completes their upload and reads them back.
async fn round_trip(
    store: &dyn Store,
    columns: Vec<String>,
    stored: Vec<Vec<String>>,
) -> Result<()> {
    let id = UploadId::generate();
    store.create(&new_upload(id, columns.clone())).await?;
    let batches = sample::batches_of(id, &columns, stored.clone(), 1000)?;
    store_new(store, &batches).await?;
    end_well(store, id, batches.len() as u32, stored.len() as u64).await?;
    let found = rows(store, id).await?;
    ensure!(
        found.len() == stored.len(),
        "expected {} rows, found {}",
        stored.len(),
        found.len()
    );
    for ((row_number, stored), found) in (1..).zip(stored).zip(found) {
        ensure!(
            found.row_number == row_number,
            "expected row {row_number}, found {}",
            found.row_number
        );
        ensure!(
            found.fields.len() == stored.len(),
            "row {row_number} has {} cells",
            found.fields.len()
        );
        for (cell, back) in stored.iter().zip(&found.fields) {
            // A long cell would hide the rest of the message.
            let short: String = cell.chars().take(40).collect();
            ensure!(back.as_ref() == Some(cell), "row {row_number}: {short:?}");
        }
    }
    Ok(())
}

pub(super) async fn every_text_is_read_back_unchanged<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    // Each text is the first, the middle and the last cell of a row.
    let columns = ["a \"b\"", "ü,🦀", "\\"].map(String::from).to_vec();
    let around = |index: usize| ODD[index % ODD.len()].to_owned();
    let rows =
        (0..ODD.len()).map(|index| vec![around(index), around(index + 1), around(index + 2)]);
    round_trip(store.as_ref(), columns, rows.collect()).await?;
    // Each text is the only cell of a row.
    let alone = ODD.iter().map(|text| vec![(*text).to_owned()]).collect();
    round_trip(store.as_ref(), vec!["only".to_owned()], alone).await
}

pub(super) async fn an_empty_cell_is_not_null<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let message = r#"[[null,""],["",null],[null,null],["",""],["null","NULL"]]"#;
    let batch = sample::by_hand(id, 1, &sample::columns(), message)?;
    store_new(store.as_ref(), &[sample::archived(batch)]).await?;
    end_well(store.as_ref(), id, 1, 5).await?;
    let empty = || Some(String::new());
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        vec![None, empty()],
        vec![empty(), None],
        vec![None, None],
        vec![empty(), empty()],
        vec![text("null"), text("NULL")],
    ];
    check_fields(&rows(store.as_ref(), id).await?, &expected)
}

fn check_fields(found: &[StoredRow], expected: &[Vec<Option<String>>]) -> Result<()> {
    let found: Vec<_> = found.iter().map(|row| row.fields.clone()).collect();
    ensure!(found == expected, "{found:?}");
    Ok(())
}

/// Carga's encoder escapes few characters, but another encoder may escape any of them.
pub(super) async fn every_json_escape_is_decoded<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let message = r#"[ [ "\u0041\u00e9\ud83e\udd80" , "\/\"\\" ],
        ["\b\f\n\r\t", "\u0001\u007f\u2028"] ]"#;
    let batch = sample::by_hand(id, 1, &sample::columns(), message)?;
    store_new(store.as_ref(), &[sample::archived(batch)]).await?;
    end_well(store.as_ref(), id, 1, 2).await?;
    let expected = [
        ["Aé🦀", "/\"\\"],
        ["\u{8}\u{c}\n\r\t", "\u{1}\u{7f}\u{2028}"],
    ]
    .map(|row| row.map(|cell| Some(cell.to_owned())).to_vec());
    check_fields(&rows(store.as_ref(), id).await?, &expected)
}

pub(super) async fn a_cell_of_1_mib_is_read_back_whole<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let plain = "x".repeat(1 << 20);
    let escaped = "\"\\\n".repeat((1 << 20) / 3);
    let wide = "🦀".repeat((1 << 20) / 4);
    let stored = [plain, escaped, wide].map(|large| vec![String::new(), large]);
    round_trip(store.as_ref(), sample::columns(), stored.to_vec()).await
}

pub(super) async fn a_batch_of_1000_rows_of_70_columns_is_read_back_whole<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let columns = (1..=70).map(|number| format!("column {number}")).collect();
    let row = |row: usize| {
        (0..70)
            .map(|column| format!("{row}/{column} {}", ODD[(row + column) % ODD.len()]))
            .collect()
    };
    round_trip(store.as_ref(), columns, (1..=1000).map(row).collect()).await
}

pub(super) async fn rows_are_read_in_order_however_they_were_stored<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (id, other) = (begin(store.as_ref()).await?, begin(store.as_ref()).await?);
    let mut batches = sample::batches(id, 12, 10)?;
    let mut others = sample::batches(other, 12, 10)?;
    batches.reverse();
    batches.swap(3, 7);
    others.rotate_left(5);
    for (mine, another) in batches.chunks(2).zip(others.chunks(2)) {
        store_new(store.as_ref(), &[mine, another].concat()).await?;
    }
    for id in [id, other] {
        end_well(store.as_ref(), id, 12, 120).await?;
        check_sample_rows(store.as_ref(), id, 120).await?;
    }
    Ok(())
}

pub(super) async fn rows_are_visible_only_after_their_upload_ended_well<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    store_new(store.as_ref(), &sample::batches(id, 2, 10)?).await?;
    ensure!(rows(store.as_ref(), id).await?.is_empty(), "receiving");
    ensure!(store.seal(first(id), &seal(2, 20)).await?);
    ensure!(rows(store.as_ref(), id).await?.is_empty(), "processing");
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    check_sample_rows(store.as_ref(), id, 20).await?;

    let failed = begin(store.as_ref()).await?;
    store_new(store.as_ref(), &sample::batches(failed, 2, 10)?).await?;
    fail(store.as_ref(), failed).await?;
    // The rows are still in the table, but not visible.
    ensure!(fixture.rows_in_table(failed).await? == 20);
    ensure!(rows(store.as_ref(), failed).await?.is_empty(), "failed");
    ensure!(rows(store.as_ref(), UploadId::generate()).await?.is_empty());
    Ok(())
}

pub(super) async fn a_page_of_rows_holds_several_batches_only_if_they_are_small<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let small = begin(store.as_ref()).await?;
    store_new(store.as_ref(), &sample::batches(small, 5, 10)?).await?;
    end_well(store.as_ref(), small, 5, 50).await?;
    ensure!(page_lengths(store.as_ref(), small).await? == [10, 40]);

    let large = begin(store.as_ref()).await?;
    let mut batches = sample::batches(large, 3, 10)?;
    for batch in &mut batches {
        (batch.archive_bytes, batch.object_bytes) = (3 << 20, 3 << 20);
    }
    store_new(store.as_ref(), &batches).await?;
    end_well(store.as_ref(), large, 3, 30).await?;
    ensure!(page_lengths(store.as_ref(), large).await? == [10, 10, 10]);
    Ok(())
}

/// The rows of a batch take as much memory as without compression.
pub(super) async fn compression_does_not_put_more_batches_on_a_page_of_rows<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = begin(store.as_ref()).await?;
    let mut batches = sample::batches(id, 4, 10)?;
    for batch in &mut batches {
        batch.archive_compression = ArchiveCompression::Zstd;
        (batch.archive_bytes, batch.object_bytes) = (30_000, 2 << 20);
    }
    store_new(store.as_ref(), &batches).await?;
    end_well(store.as_ref(), id, 4, 40).await?;
    ensure!(page_lengths(store.as_ref(), id).await? == [10, 20, 10]);
    Ok(())
}

async fn page_lengths(store: &dyn Store, id: UploadId) -> Result<Vec<usize>> {
    let (mut lengths, mut after_seq) = (Vec::new(), 0);
    while let Some(page) = store.row_page(id, after_seq).await? {
        lengths.push(page.rows.len());
        after_seq = page.last_seq;
    }
    Ok(lengths)
}

pub(super) async fn the_next_page_of_an_undone_upload_is_a_conflict<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let id = complete(store.as_ref(), 3, 10).await?;
    let page = store.row_page(id, 0).await?.context("no first page")?;
    ensure!(store.undo(first(id)).await?);
    let next_page = store.row_page(id, page.last_seq).await;
    ensure!(next_page.is_err_and(|error| error.kind() == ErrorKind::Conflict));
    ensure!(store.row_page(id, 0).await?.is_none());
    Ok(())
}
