//! The data directory: one process at a time.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

const LOCK_FILE: &str = "carga.lock";

/// Held for as long as the process uses the directory. The operating system lets go of it when the process ends, however it
/// ends.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, and locks it. `user` says to others what it is locked for.
    pub(crate) fn lock(path: &Path, user: &str) -> anyhow::Result<Self> {
        let shown = path.display();
        // Rows are nobody else's business.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("making the data directory {shown} (CARGA_DATA_DIR)"))?;
        // Its name is in its parent, and must be there after a power failure.
        let parent = File::open(path.join("..")).and_then(|parent| parent.sync_all());
        match parent {
            // One that is not ours to read was there before.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                return Err(error).with_context(|| format!("making {shown} durable"));
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
            .with_context(|| format!("opening {}", file.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = io::read_to_string(&lock).unwrap_or_default();
                bail!(
                    "the data directory {shown} is in use by {}; stop it, or set CARGA_DATA_DIR to another directory",
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
        data_dir.say(user);
        Ok(data_dir)
    }

    /// From now on the directory is served at this address.
    pub(crate) fn serve_at(&mut self, address: SocketAddr) {
        self.say(&format!(
            "carga serve on http://{address} (send files there: curl -F file=@FILE http://{address}/uploads)"
        ));
    }

    /// Only for people: a disk that is full must not keep anybody from starting.
    fn say(&mut self, user: &str) {
        use std::io::Seek;
        let line = format!("process {}, {user}\n", std::process::id());
        let written = self
            .lock
            .set_len(0)
            .and_then(|()| self.lock.rewind())
            .and_then(|()| self.lock.write_all(line.as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, directory = %self.path.display(), "the lock file does not say who holds it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DataDir;

    #[test]
    fn a_second_user_is_refused_by_the_name_of_the_first_until_that_one_has_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let mut first = DataDir::lock(&path, "carga import").unwrap();
        first.serve_at(([127, 0, 0, 1], 8080).into());
        let refused = DataDir::lock(&path, "carga import")
            .unwrap_err()
            .to_string();
        let named = [
            format!("process {}", std::process::id()),
            "http://127.0.0.1:8080/uploads".to_owned(),
            path.display().to_string(),
        ];
        for name in named {
            assert!(refused.contains(&name), "{refused}");
        }
        drop(first);
        DataDir::lock(&path, "carga import").unwrap();
    }
}
