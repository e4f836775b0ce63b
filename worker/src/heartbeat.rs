//! A file that is fresh while the worker lives; a container without a shell or a port has no other way to tell.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

const EVERY: Duration = Duration::from_secs(5);
const STALE_AFTER: Duration = Duration::from_secs(30);

/// Touches the file for ever.
pub(crate) async fn beat_forever(file: PathBuf) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = tokio::fs::write(&file, b"alive\n").await {
            tracing::warn!(file = %file.display(), %error, "the heartbeat file (CARGA_HEARTBEAT_FILE) cannot be written");
        }
    }
}

/// Succeeds when the file is fresh.
pub fn check(file: &Path) -> anyhow::Result<()> {
    let name = file.display();
    let written = std::fs::metadata(file)
        .and_then(|metadata| metadata.modified())
        .with_context(|| format!("no worker has written {name} (CARGA_HEARTBEAT_FILE)"))?;
    // A file from the future means that the clock was set back: fresh enough.
    let age = written.elapsed().unwrap_or_default();
    ensure!(
        age < STALE_AFTER,
        "{name} was last written {} s ago",
        age.as_secs()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fresh_file_is_a_sign_of_life() {
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
