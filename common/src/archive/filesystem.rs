//! The archive as plain files below a directory.
//!
//! `put` writes an object to a staging file, syncs the file and renames it to the object's key.
//! Then it syncs the directory, which has the name. So a reader sees the whole object or none, and
//! the object survives a power failure.
//!
//! No test can cut the power, so no test fails without a sync. A change of this file must keep the
//! calls of `sync_all` and `sync_directory`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind as IoErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::{ArchiveKey, BatchArchive};
use crate::error::{ErrorKind, PortError, PortResult};
use crate::upload::UploadId;

/// The directory of the staging files. It is below the archive's directory, because a rename cannot
/// cross file systems.
const STAGING: &str = "staging";

/// The first component of every key.
const UPLOADS: &str = "uploads";

/// Settings of the archive in a directory.
#[derive(Debug, Clone)]
pub struct FilesystemArchiveSettings {
    /// The directory. It is created if it is missing.
    pub directory: PathBuf,
    /// The caller has made sure that no other process uses the directory. Every staging file
    /// then belongs to a process that has ended.
    pub sole_user: bool,
}

/// [`BatchArchive`] in a directory.
#[derive(Debug, Clone)]
pub struct FilesystemArchive {
    root: PathBuf,
}

impl FilesystemArchive {
    /// Opens the directory, and removes the staging files of processes that have crashed.
    pub async fn open(settings: FilesystemArchiveSettings) -> PortResult<Self> {
        // No write takes an hour, so older staging files are abandoned.
        const HOUR: Duration = Duration::from_secs(3600);
        let abandoned_after = if settings.sole_user {
            Duration::ZERO
        } else {
            HOUR
        };
        let archive = Self {
            root: settings.directory,
        };
        archive
            .blocking("archive.open", move |root| {
                let staging = root.join(STAGING);
                fs::create_dir_all(&staging)?;
                fs::create_dir_all(root.join(UPLOADS))?;
                sync_directory(root)?;
                match sync_directory(&root.join("..")) {
                    // This process cannot have created a parent directory that it may not read.
                    Err(error) if error.kind() != IoErrorKind::PermissionDenied => Err(error),
                    _ => Ok(()),
                }?;
                remove_abandoned(&staging, abandoned_after)?;
                check_writable(&staging)
            })
            .await?;
        Ok(archive)
    }

    /// Runs file operations on tokio's pool for blocking calls.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> PortResult<T> {
        let root = self.root.clone();
        tokio::task::spawn_blocking(move || work(&root))
            .await
            .map_err(|panic| PortError::new(ErrorKind::Internal, operation, panic))?
            .map_err(|error| port_error(operation, error))
    }
}

fn port_error(operation: &'static str, error: io::Error) -> PortError {
    let kind = match error.kind() {
        IoErrorKind::NotFound => ErrorKind::NotFound,
        IoErrorKind::StorageFull | IoErrorKind::QuotaExceeded => ErrorKind::Full,
        // The object is valid, but the directory cannot be used, for example after an unmount.
        _ => ErrorKind::Unavailable,
    };
    PortError::new(kind, operation, error)
}

#[async_trait]
impl BatchArchive for FilesystemArchive {
    async fn put(&self, key: &ArchiveKey, body: Bytes) -> PortResult<()> {
        let key = key.clone();
        self.blocking("archive.put", move |root| {
            let path = root.join(key.as_str());
            // A key always has a parent directory.
            let directory = path.parent().unwrap_or(root);
            let staged = StagingFile::write(root, &body)?;
            fs::create_dir_all(directory)?;
            fs::rename(&staged.path, &path)?;
            sync_directory(directory)?;
            // Another process may have created this directory without syncing it yet.
            sync_directory(&root.join(UPLOADS))
        })
        .await
        // A write fails with *not found* only if the archive's own directory was removed.
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => PortError::unavailable("archive.put", error),
            _ => error,
        })
    }

    async fn get(&self, key: &ArchiveKey) -> PortResult<Bytes> {
        let key = key.clone();
        self.blocking("archive.get", move |root| {
            fs::read(root.join(key.as_str())).map(Bytes::from)
        })
        .await
    }

    async fn delete(&self, key: &ArchiveKey) -> PortResult<()> {
        let key = key.clone();
        self.blocking("archive.delete", move |root| {
            let path = root.join(key.as_str());
            if if_exists(fs::remove_file(&path))?.is_some() {
                // Another process may have deleted all objects of the upload with their directory.
                if_exists(sync_directory(path.parent().unwrap_or(root)))?;
            }
            Ok(())
        })
        .await
    }

    async fn delete_upload(&self, upload: UploadId) -> PortResult<u64> {
        self.blocking("archive.delete", move |root| {
            let directory = root.join(ArchiveKey::prefix(upload));
            let Some(entries) = if_exists(fs::read_dir(&directory))? else {
                return Ok(0);
            };
            let mut deleted = 0;
            for entry in entries {
                // Another process may be deleting the same objects.
                deleted += u64::from(if_exists(fs::remove_file(entry?.path()))?.is_some());
            }
            if_exists(fs::remove_dir(&directory))?;
            sync_directory(directory.parent().unwrap_or(root))?;
            Ok(deleted)
        })
        .await
    }

    async fn ping(&self) -> PortResult<()> {
        self.blocking("archive.ping", |root| check_writable(&root.join(STAGING)))
            .await
    }
}

/// A staging file. It is removed if it is never renamed.
struct StagingFile {
    path: PathBuf,
}

impl StagingFile {
    fn write(root: &Path, body: &[u8]) -> io::Result<Self> {
        let path = root.join(STAGING).join(Uuid::new_v4().to_string());
        let staged = Self { path };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staged.path)?;
        file.write_all(body)?;
        file.sync_all()?;
        Ok(staged)
    }
}

impl Drop for StagingFile {
    fn drop(&mut self) {
        // After the rename this call finds no file, and its error is expected.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes staging files whose last write is at least `abandoned_after` ago. Zero removes all of
/// them.
fn remove_abandoned(staging: &Path, abandoned_after: Duration) -> io::Result<()> {
    for entry in fs::read_dir(staging)? {
        let entry = entry?;
        // Another process may have renamed the file since the directory was listed.
        let Some(metadata) = if_exists(entry.metadata())? else {
            continue;
        };
        let age = metadata.modified()?.elapsed().unwrap_or_default();
        if age >= abandoned_after {
            if_exists(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

/// `None` if the file does not exist.
fn if_exists<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some),
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Creates and removes a file, to prove that the directory is writable.
fn check_writable(directory: &Path) -> io::Result<()> {
    let probe = directory.join(Uuid::new_v4().to_string());
    File::create_new(&probe)?;
    fs::remove_file(&probe)
}
