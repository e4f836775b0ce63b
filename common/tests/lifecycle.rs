//! How an upload ends when two processes end it in different ways, and when the table of its
//! dataset has rejected rows, on the embedded adapters.

#![cfg(all(feature = "filesystem", feature = "sqlite"))]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::archive::{
    ArchiveCompression, ArchiveKey, BatchArchive, FilesystemArchive, FilesystemArchiveSettings,
    Manifest,
};
use carga_common::batch::{Batch, BatchEncoder, BatchLimits, RowOrigin};
use carga_common::dataset::{DatasetKey, Definition, Mode};
use carga_common::error::ErrorKind;
use carga_common::lifecycle::finish_if_complete;
use carga_common::store::{
    ArchivedBatch, NewUpload, Seal, SqliteStore, SqliteStoreSettings, Store, StoreOutcome,
};
use carga_common::upload::{
    Dialect, Merge, RejectLimit, Status, UploadDataset, UploadId, UploadKey,
};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_cancelled_after_the_completion_check_keeps_no_manifest() -> Result<()> {
    let ended = end_between_manifest_and_completion("cancelled").await?;
    ensure!(ended.status == Status::Cancelled, "{}", ended.status);
    ensure!(!ended.has_manifest, "the manifest is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_another_process_completes_first_keeps_its_manifest() -> Result<()> {
    let ended = end_between_manifest_and_completion("completed").await?;
    ensure!(ended.status == Status::Completed, "{}", ended.status);
    ensure!(ended.has_manifest, "the manifest is lost");
    Ok(())
}

struct Ended {
    status: Status,
    has_manifest: bool,
}

/// Lets `finish_if_complete` write the manifest, and then ends the upload as another process would.
async fn end_between_manifest_and_completion(status: &str) -> Result<Ended> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("carga.db");
    let store = open_store(&file).await?;
    let archive = open_archive(directory.path()).await?;
    let id = seal_without_rows(store.as_ref()).await?;

    // While this transaction is open, no upload can be completed.
    let options = SqliteConnectOptions::new().filename(&file);
    let mut other = options.connect().await?;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await?;
    let finishing = {
        let (store, archive) = (Arc::clone(&store), Arc::clone(&archive));
        tokio::spawn(async move { finish_if_complete(store.as_ref(), archive.as_ref(), id).await })
    };
    let manifest = ArchiveKey::manifest(id);
    carga_testkit::eventually(TIMEOUT, "the manifest", async || {
        archive.get(&manifest).await.is_ok()
    })
    .await?;
    let time = "2026-01-01T00:00:00.000000Z";
    sqlx::query("UPDATE uploads SET status = $1, finished_at = $2 WHERE id = $3")
        .bind(status)
        .bind(time)
        .bind(id.to_string())
        .execute(&mut other)
        .await?;
    sqlx::query("COMMIT").execute(&mut other).await?;
    other.close().await?;

    ensure!(finishing.await??, "the upload has not ended");
    let upload = store.upload(id).await?;
    let upload = upload.context("no such upload")?;
    let has_manifest = match archive.get(&manifest).await {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    store.close().await;
    Ok(Ended {
        status: upload.status,
        has_manifest,
    })
}

async fn open_store(file: &Path) -> Result<Arc<dyn Store>> {
    let settings = SqliteStoreSettings {
        file: file.to_owned(),
        migrate: true,
    };
    Ok(Arc::new(SqliteStore::open(settings).await?))
}

async fn open_archive(directory: &Path) -> Result<Arc<dyn BatchArchive>> {
    let settings = FilesystemArchiveSettings {
        directory: directory.join("archive"),
        sole_user: true,
    };
    Ok(Arc::new(FilesystemArchive::open(settings).await?))
}

/// A sealed upload that needs no batch to be complete.
async fn seal_without_rows(store: &dyn Store) -> Result<UploadId> {
    let new = NewUpload {
        id: UploadId::generate(),
        tenant: Default::default(),
        created_by: None,
        filename: None,
        dialect: Dialect::rfc4180(false),
        columns: vec!["a".to_owned()],
        dataset: None,
        bytes_total: None,
    };
    let upload = store.create(&new).await?;
    ensure!(store.seal(upload.key(), &seal(0, 0)).await?);
    Ok(new.id)
}

fn seal(batches: u32, rows: u64) -> Seal {
    Seal {
        rows,
        rejected: 0,
        blank_lines: 0,
        batches,
        bytes: 2,
        sha256: [0; 32].into(),
        duplicate_of: None,
        dialect: None,
    }
}

#[tokio::test]
async fn the_manifest_counts_the_rows_that_the_table_rejected() -> Result<()> {
    let (directory, store, id) = upload_with_two_violations(RejectLimit::default()).await?;
    let archive = open_archive(directory.path()).await?;
    ensure!(finish_if_complete(store.as_ref(), archive.as_ref(), id).await?);
    let upload = store.upload(id).await?.context("no such upload")?;
    ensure!(upload.status == Status::Partial, "{upload:?}");
    let manifest = archive.get(&ArchiveKey::manifest(id)).await?;
    let manifest: Manifest = serde_json::from_slice(&manifest)?;
    let counts = (manifest.rows, manifest.rejected, manifest.violating);
    ensure!(counts == (5, 0, Some(2)), "{counts:?}");
    store.close().await;
    Ok(())
}

/// Workers with different settings may archive the batches of one upload.
#[tokio::test]
async fn the_manifest_names_each_object_with_its_own_compression() -> Result<()> {
    let (directory, store, upload) = receiving_upload(RejectLimit::default()).await?;
    let compressions = [
        ArchiveCompression::None,
        ArchiveCompression::Gzip,
        ArchiveCompression::Zstd,
    ];
    for (compression, seq) in compressions.into_iter().zip(1..) {
        let mut archived = batch_from(upload, seq, &[Some("7")])?;
        archived.archive_compression = compression;
        (archived.archive_bytes, archived.archive_crc32) = (u64::from(10 * seq), seq);
        let outcomes = store.store(&[archived]).await?;
        ensure!(outcomes == [StoreOutcome::Stored { rejected: 0 }]);
    }
    ensure!(store.seal(upload, &seal(3, 3)).await?);
    let archive = open_archive(directory.path()).await?;
    ensure!(finish_if_complete(store.as_ref(), archive.as_ref(), upload.id).await?);
    let manifest = archive.get(&ArchiveKey::manifest(upload.id)).await?;
    let manifest: Manifest = serde_json::from_slice(&manifest)?;
    ensure!(manifest.batches.len() == 3, "{manifest:?}");
    let names = ["000001.json", "000002.json.gz", "000003.json.zst"];
    for (object, (name, seq)) in manifest.batches.iter().zip(names.into_iter().zip(1..)) {
        let key = format!("uploads/{}/batch-{name}", upload.id);
        ensure!(object.key == key, "{object:?}");
        ensure!(object.bytes == 10 * seq, "{object:?}");
        ensure!(object.crc32 == format!("{seq:08x}"), "{object:?}");
    }
    store.close().await;
    Ok(())
}

#[tokio::test]
async fn an_upload_with_too_many_violating_rows_fails() -> Result<()> {
    let limit = RejectLimit {
        rows: Some(1),
        ..RejectLimit::default()
    };
    let (directory, store, id) = upload_with_two_violations(limit).await?;
    let archive = open_archive(directory.path()).await?;
    ensure!(finish_if_complete(store.as_ref(), archive.as_ref(), id).await?);
    let upload = store.upload(id).await?.context("no such upload")?;
    ensure!(upload.status == Status::Failed, "{upload:?}");
    let code = upload.failure.as_ref().map(|failure| failure.code.as_str());
    ensure!(code == Some("too_many_rejects"), "{upload:?}");
    ensure!(upload.rows_violating == Some(2), "{upload:?}");
    let manifest = archive.get(&ArchiveKey::manifest(id)).await;
    ensure!(manifest.is_err_and(|error| error.kind() == ErrorKind::NotFound));
    store.close().await;
    Ok(())
}

#[tokio::test]
async fn an_upload_with_too_many_violating_rows_fails_while_it_is_received() -> Result<()> {
    let limit = RejectLimit {
        rows: Some(1),
        ..RejectLimit::default()
    };
    let (directory, store, upload) = receiving_upload(limit).await?;
    store_two_violations(store.as_ref(), upload).await?;
    let archive = open_archive(directory.path()).await?;
    ensure!(finish_if_complete(store.as_ref(), archive.as_ref(), upload.id).await?);
    let failed = store.upload(upload.id).await?.context("no such upload")?;
    ensure!(failed.status == Status::Failed, "{failed:?}");
    let code = failed.failure.as_ref().map(|failure| failure.code.as_str());
    ensure!(code == Some("too_many_rejects"), "{failed:?}");
    ensure!((failed.rows_read, failed.rows_violating) == (5, Some(2)));
    ensure!(!store.seal(upload, &seal(1, 5)).await?);
    store.close().await;
    Ok(())
}

#[tokio::test]
async fn a_row_that_a_trigger_leaves_out_is_rejected() -> Result<()> {
    let (directory, store, upload) = receiving_upload(RejectLimit::default()).await?;
    let options = SqliteConnectOptions::new().filename(directory.path().join("carga.db"));
    let mut operator = options.connect().await?;
    sqlx::query(
        "CREATE TRIGGER no_even_number BEFORE INSERT ON datasets_sales WHEN NEW.number % 2 = 0
         BEGIN SELECT RAISE(IGNORE); END",
    )
    .execute(&mut operator)
    .await?;
    operator.close().await?;
    let cells = ["1", "2", "3", "4", "5", "7", "6"].map(Some);
    let outcomes = store.store(&[batch(upload, &cells)?]).await?;
    ensure!(outcomes == [StoreOutcome::Stored { rejected: 3 }]);
    let rejected = store.rejected_page(upload.id, 0).await?;
    ensure!(rejected.iter().map(|row| row.row).eq([2, 4, 7]));
    let mut codes = rejected.iter().map(|row| row.code.as_str());
    ensure!(
        codes.all(|code| code == "trigger_exception"),
        "{rejected:?}"
    );
    ensure!(store.seal(upload, &seal(1, 7)).await?);
    let archive = open_archive(directory.path()).await?;
    ensure!(finish_if_complete(store.as_ref(), archive.as_ref(), upload.id).await?);
    let upload = store.upload(upload.id).await?.context("no such upload")?;
    ensure!(upload.status == Status::Partial, "{upload:?}");
    ensure!(upload.rows_inserted == Some(4), "{upload:?}");
    store.close().await;
    Ok(())
}

#[tokio::test]
async fn an_upload_whose_table_was_dropped_before_its_merge_fails() -> Result<()> {
    let merge = Merge {
        mode: Mode::Append,
        key: Vec::new(),
    };
    let limit = RejectLimit::default();
    let (directory, store, upload) = receiving_upload_with(limit, Some(merge)).await?;
    store.store(&[batch(upload, &[Some("1")])?]).await?;
    ensure!(store.seal(upload, &seal(1, 1)).await?);
    let options = SqliteConnectOptions::new().filename(directory.path().join("carga.db"));
    let mut operator = options.connect().await?;
    sqlx::raw_sql("DROP VIEW datasets_sales_rows; DROP TABLE datasets_sales")
        .execute(&mut operator)
        .await?;
    operator.close().await?;
    let archive = open_archive(directory.path()).await?;
    ensure!(finish_if_complete(store.as_ref(), archive.as_ref(), upload.id).await?);
    let upload = store.upload(upload.id).await?.context("no such upload")?;
    let failure = upload.failure.as_ref();
    ensure!(
        failure.is_some_and(|failure| failure.code == "merge_failed"),
        "{upload:?}"
    );
    store.close().await;
    Ok(())
}

/// A sealed upload of a dataset. The required number is missing in two of its five rows.
async fn upload_with_two_violations(
    reject_limit: RejectLimit,
) -> Result<(tempfile::TempDir, Arc<dyn Store>, UploadId)> {
    let (directory, store, upload) = receiving_upload(reject_limit).await?;
    store_two_violations(store.as_ref(), upload).await?;
    ensure!(store.seal(upload, &seal(1, 5)).await?);
    Ok((directory, store, upload.id))
}

/// Stores five rows. The required number is missing in two of them.
async fn store_two_violations(store: &dyn Store, upload: UploadKey) -> Result<()> {
    let cells = [Some("1"), None, Some("3"), None, Some("5")];
    let outcomes = store.store(&[batch(upload, &cells)?]).await?;
    ensure!(outcomes == [StoreOutcome::Stored { rejected: 2 }]);
    Ok(())
}

/// A new upload of a dataset with one column, a required number.
async fn receiving_upload(
    reject_limit: RejectLimit,
) -> Result<(tempfile::TempDir, Arc<dyn Store>, UploadKey)> {
    receiving_upload_with(reject_limit, None).await
}

async fn receiving_upload_with(
    reject_limit: RejectLimit,
    merge: Option<Merge>,
) -> Result<(tempfile::TempDir, Arc<dyn Store>, UploadKey)> {
    let directory = tempfile::tempdir()?;
    let store = open_store(&directory.path().join("carga.db")).await?;
    let key = DatasetKey::new(Default::default(), "sales".parse()?);
    let json = br#"{"columns": [{"name": "number", "type": "integer", "required": true}]}"#;
    let definition = Definition::from_json(json)?;
    store.put_dataset(&key, &definition).await?;
    let new = NewUpload {
        id: UploadId::generate(),
        tenant: Default::default(),
        created_by: None,
        filename: None,
        dialect: Dialect::rfc4180(false),
        columns: vec!["Number".to_owned()],
        dataset: Some(UploadDataset {
            name: key.name,
            tenant: key.tenant,
            columns: definition.typed_columns(),
            missing: Vec::new(),
            ignored: Vec::new(),
            sources: vec![Some(0)],
            reject_limit,
            merge,
            table: None,
        }),
        bytes_total: None,
    };
    let upload = store.create(&new).await?.key();
    Ok((directory, store, upload))
}

/// The first batch, of rows with one cell each.
fn batch(upload: UploadKey, cells: &[Option<&str>]) -> Result<ArchivedBatch> {
    batch_from(upload, 1, cells)
}

/// The batch with this number, whose rows have one cell each and are numbered from there.
fn batch_from(upload: UploadKey, seq: u32, cells: &[Option<&str>]) -> Result<ArchivedBatch> {
    let limits = BatchLimits {
        rows: u32::MAX,
        bytes: 1 << 20,
    };
    let mut encoder = BatchEncoder::typed(upload, &["number".to_owned()], "00-trace", limits);
    for (number, cell) in (u64::from(seq)..).zip(cells) {
        let origin = RowOrigin {
            line: number + 1,
            offset: number * 10,
            changed: std::iter::empty(),
        };
        encoder.push_typed(number, std::iter::once(*cell), origin)?;
    }
    let encoded = encoder.finish().0.context("the encoder made no batch")?;
    let mut batch = Batch::decode(encoded.body)?;
    batch.id.seq = seq;
    Ok(ArchivedBatch {
        archive_compression: ArchiveCompression::None,
        archive_bytes: batch.size_bytes() as u64,
        archive_crc32: 0,
        object_bytes: batch.size_bytes() as u64,
        batch,
    })
}
