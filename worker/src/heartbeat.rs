//! The heartbeat file, which a worker rewrites every few seconds while it makes progress.
//!
//! A container health check reads it, because the worker listens on no port.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

const STALE_AFTER: Duration = Duration::from_secs(30);

/// Why a worker does not count as healthy.
#[derive(Debug, Error)]
pub enum HeartbeatError {
    #[error("cannot read the heartbeat file {} (CARGA_HEARTBEAT_FILE)", .file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("the heartbeat file {} was last written {} s ago", .file.display(), .age.as_secs())]
    Stale { file: PathBuf, age: Duration },
}

pub(crate) async fn write(file: &Path) {
    if let Err(error) = tokio::fs::write(file, b"alive\n").await {
        tracing::warn!(
            file = %file.display(),
            %error,
            "cannot write the heartbeat file (CARGA_HEARTBEAT_FILE)"
        );
    }
}

/// Removes the file of an earlier process, if there is one.
pub(crate) async fn remove(file: &Path) {
    let metadata = tokio::fs::metadata(file).await;
    // An operator who wants no file may name `/dev/null`, which root could remove.
    if !metadata.is_ok_and(|metadata| metadata.is_file()) {
        return;
    }
    if let Err(error) = tokio::fs::remove_file(file).await {
        tracing::warn!(
            file = %file.display(),
            %error,
            "cannot remove an old heartbeat file (CARGA_HEARTBEAT_FILE)"
        );
    }
}

/// Succeeds when the file was written within the last 30 seconds.
pub fn check(file: &Path) -> Result<(), HeartbeatError> {
    let written = std::fs::metadata(file).and_then(|metadata| metadata.modified());
    let written = written.map_err(|source| HeartbeatError::Unreadable {
        file: file.to_owned(),
        source,
    })?;
    // A modification time in the future means that the clock was set back, so the file is fresh.
    let age = written.elapsed().unwrap_or_default();
    if age < STALE_AFTER {
        return Ok(());
    }
    Err(HeartbeatError::Stale {
        file: file.to_owned(),
        age,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_stale_file_fails_the_check() {
        let file = std::env::temp_dir().join(format!("carga-alive-{}", std::process::id()));
        assert!(check(&file).is_err());
        std::fs::write(&file, b"alive\n").unwrap();
        assert!(check(&file).is_ok());
        let long_ago = std::time::SystemTime::now() - STALE_AFTER;
        let opened = std::fs::File::options().write(true).open(&file).unwrap();
        opened.set_modified(long_ago).unwrap();
        assert!(check(&file).is_err());
        std::fs::remove_file(&file).unwrap();
    }
}
