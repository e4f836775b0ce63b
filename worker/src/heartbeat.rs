//! The heartbeat file, which a live worker rewrites every few seconds.
//!
//! A container health check reads it, because the worker listens on no port.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

const INTERVAL: Duration = Duration::from_secs(5);
const STALE_AFTER: Duration = Duration::from_secs(30);

/// Why a worker does not count as alive.
#[derive(Debug, Error)]
pub enum HeartbeatError {
    #[error("cannot read the heartbeat file {} (CARGA_HEARTBEAT_FILE)", .file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("the heartbeat file {} was last written {} s ago", .file.display(), .age.as_secs())]
    Stale { file: PathBuf, age: Duration },
}

/// Writes the file every five seconds until the task is aborted.
pub(crate) async fn beat_forever(file: PathBuf) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        if let Err(error) = tokio::fs::write(&file, b"alive\n").await {
            tracing::warn!(
                file = %file.display(),
                %error,
                "cannot write the heartbeat file (CARGA_HEARTBEAT_FILE)"
            );
        }
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
