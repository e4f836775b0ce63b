//! How an upload ends when two processes end it in different ways, on the embedded adapters.

#![cfg(all(feature = "filesystem", feature = "sqlite"))]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::archive::{
    ArchiveKey, BatchArchive, FilesystemArchive, FilesystemArchiveSettings,
};
use carga_common::error::ErrorKind;
use carga_common::lifecycle::finish_if_complete;
use carga_common::store::{NewUpload, Seal, SqliteStore, SqliteStoreSettings, Store};
use carga_common::upload::{Dialect, Status, UploadId};
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
    let upload = anyhow::Context::context(upload, "no such upload")?;
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
        filename: None,
        dialect: Dialect::rfc4180(false),
        columns: vec!["a".to_owned()],
        dataset: None,
        bytes_total: None,
    };
    let upload = store.create(&new).await?;
    let seal = Seal {
        rows: 0,
        rejected: 0,
        blank_lines: 0,
        batches: 0,
        bytes: 2,
        sha256: [0; 32].into(),
        duplicate_of: None,
        dialect: None,
    };
    ensure!(store.seal(upload.key(), &seal).await?);
    Ok(new.id)
}
