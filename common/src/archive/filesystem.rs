//! The archive as plain files below a directory.
//!
//! An object is written beside its place, forced to disk, and renamed into it; then its directory is forced to disk as
//! well, since that is where the name is. So a reader sees all of it or nothing, and after a power failure it is there.

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

/// Where objects are written before they have their name; on the same file system, or a rename would be a copy.
const STAGING: &str = "staging";

/// What every key begins with.
const UPLOADS: &str = "uploads";

/// Where the directory is and who uses it.
#[derive(Debug, Clone)]
pub struct FilesystemArchiveSettings {
    /// The directory; it is made if it is missing.
    pub directory: PathBuf,
    /// The caller has made sure that no other process uses it: whatever is not finished belongs to one that is gone.
    pub sole_user: bool,
}

/// [`BatchArchive`] in a directory.
#[derive(Debug, Clone)]
pub struct FilesystemArchive {
    root: PathBuf,
}

impl FilesystemArchive {
    /// Opens the directory, and removes what a process that died had not finished.
    pub async fn open(settings: FilesystemArchiveSettings) -> PortResult<Self> {
        // Nobody takes an hour for one object.
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
                    // A parent that is not ours to read was there before.
                    Err(error) if error.kind() != IoErrorKind::PermissionDenied => Err(error),
                    _ => Ok(()),
                }?;
                remove_abandoned(&staging, abandoned_after)?;
                writable(&staging)
            })
            .await?;
        Ok(archive)
    }

    /// Runs file operations where they may block.
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
        // A mount that went away, a directory that lost its permissions: nothing about the object is wrong.
        _ => ErrorKind::Unavailable,
    };
    PortError::new(kind, operation, error)
}

#[async_trait]
impl BatchArchive for FilesystemArchive {
    async fn put(&self, key: &ArchiveKey, body: Bytes) -> PortResult<()> {
        let key = key.clone();
        self.blocking("archive.put", move |root| {
            let place = root.join(key.as_str());
            // A key has a directory, always.
            let directory = place.parent().unwrap_or(root);
            let staged = Staged::write(root, &body)?;
            fs::create_dir_all(directory)?;
            fs::rename(&staged.path, &place)?;
            sync_directory(directory)?;
            // Also where somebody else has just made it and is not done yet.
            sync_directory(&root.join(UPLOADS))
        })
        .await
        // Nothing that is asked for can be missing here: somebody removed the directory itself.
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

    async fn delete_upload(&self, upload: UploadId) -> PortResult<u64> {
        self.blocking("archive.delete", move |root| {
            let directory = root.join(ArchiveKey::prefix(upload));
            let Some(entries) = if_there(fs::read_dir(&directory))? else {
                return Ok(0);
            };
            let mut deleted = 0;
            for entry in entries {
                // Somebody else may be deleting the same.
                deleted += u64::from(if_there(fs::remove_file(entry?.path()))?.is_some());
            }
            if_there(fs::remove_dir(&directory))?;
            sync_directory(directory.parent().unwrap_or(root))?;
            Ok(deleted)
        })
        .await
    }

    async fn ping(&self) -> PortResult<()> {
        self.blocking("archive.ping", |root| writable(&root.join(STAGING)))
            .await
    }
}

/// A file on its way to its place; removed if it does not get there.
struct Staged {
    path: PathBuf,
}

impl Staged {
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

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already, when it has been renamed.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes what has not been written to for so long; zero means all, whatever the clock says.
fn remove_abandoned(staging: &Path, abandoned_after: Duration) -> io::Result<()> {
    for entry in fs::read_dir(staging)? {
        let entry = entry?;
        // What is not there any more has been renamed into its place just now.
        let Some(metadata) = if_there(entry.metadata())? else {
            continue;
        };
        let age = metadata.modified()?.elapsed().unwrap_or_default();
        if age >= abandoned_after {
            if_there(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

/// None where there is no such file.
fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Proves that files can be made, without leaving one.
fn writable(directory: &Path) -> io::Result<()> {
    let probe = directory.join(Uuid::new_v4().to_string());
    File::create_new(&probe)?;
    fs::remove_file(&probe)
}
