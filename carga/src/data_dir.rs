//! The data directory, which one process at a time may use.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

const LOCK_FILE: &str = "carga.lock";

/// The locked data directory. The operating system releases the lock when the process ends,
/// even after a crash.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// The address of the `carga serve` that uses the directory now, if there is one.
    pub(crate) fn server(path: &Path) -> Option<SocketAddr> {
        let lock = File::open(path.join(LOCK_FILE)).ok()?;
        // The line of a process that has ended stays in the file.
        if lock.try_lock_shared().is_ok() {
            return None;
        }
        let holder = io::read_to_string(&lock).ok()?;
        let (_, rest) = holder.split_once("carga serve on http://")?;
        rest.split_whitespace().next()?.parse().ok()
    }

    /// Creates the directory if it is missing, and locks it. The lock file names `holder` to
    /// other processes.
    pub(crate) fn lock(path: &Path, holder: &str) -> anyhow::Result<Self> {
        let directory = path.display();
        // Rows may be confidential, so only the owner may open the directory.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("creating the data directory {directory} (CARGA_DATA_DIR)"))?;
        // The parent holds the directory's name; sync it, so that the name survives a power
        // failure.
        let parent = File::open(path.join("..")).and_then(|parent| parent.sync_all());
        match parent {
            // If the parent is not readable, the directory already existed.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                return Err(error)
                    .with_context(|| format!("syncing the parent directory of {directory}"));
            }
            _ => {}
        }
        let file = path.join(LOCK_FILE);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&file)
            .with_context(|| format!("cannot open {}", file.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = io::read_to_string(&lock).unwrap_or_default();
                bail!(
                    "the data directory {directory} is in use by {}; stop it, or set CARGA_DATA_DIR to another directory",
                    holder.trim()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", file.display()));
            }
        }
        let mut data_dir = Self {
            path: path.to_owned(),
            lock,
        };
        data_dir.write_holder(holder);
        Ok(data_dir)
    }

    /// Adds the server's address to the lock file.
    pub(crate) fn record_address(&mut self, address: SocketAddr) {
        self.write_holder(&format!(
            "carga serve on http://{address} (to send a file: curl -F file=@FILE http://{address}/uploads)"
        ));
    }

    /// The lock itself does not need this line, so a full disk must not prevent the start.
    fn write_holder(&mut self, holder: &str) {
        use std::io::Seek;
        let line = format!("process {}, {holder}\n", std::process::id());
        let written = self
            .lock
            .set_len(0)
            .and_then(|()| self.lock.rewind())
            .and_then(|()| self.lock.write_all(line.as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, directory = %self.path.display(), "cannot write the holder's name to the lock file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DataDir;

    #[test]
    fn a_locked_data_directory_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let mut first = DataDir::lock(&path, "carga import").unwrap();
        first.record_address(([127, 0, 0, 1], 8080).into());
        let refused = DataDir::lock(&path, "carga import")
            .unwrap_err()
            .to_string();
        let expected = [
            format!("process {}", std::process::id()),
            "http://127.0.0.1:8080/uploads".to_owned(),
            path.display().to_string(),
        ];
        for text in expected {
            assert!(refused.contains(&text), "{refused}");
        }
        assert_eq!(DataDir::server(&path), Some(([127, 0, 0, 1], 8080).into()));
        drop(first);
        assert_eq!(DataDir::server(&path), None);
        DataDir::lock(&path, "carga import").unwrap();
    }
}
