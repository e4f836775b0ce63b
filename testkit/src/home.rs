//! A server's directory, which says whose it is.
//!
//! `owner.pid` names the process that a private server belongs to, and each server process leaves a `.pid` file beside it. So a
//! later run can tell a crashed run's leavings from a neighbour's living server. The directories of a detached set have no owner:
//! only [`crate::Services::down`] removes them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, ensure};

use crate::mounts;
use crate::pid::{self, ProcessId};

/// Set for every server and so inherited by all it starts: finds even what was never written down.
pub(crate) const MARKER: &str = "TESTKIT_HOME";
const OWNER: &str = "owner.pid";

/// Dropped, it kills what runs in it and removes itself, unless it was [kept](Home::keep).
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    kept: bool,
}

impl Home {
    /// A directory that lives no longer than this process.
    pub(crate) fn private(kind: &str) -> Result<Self> {
        static REAP: Once = Once::new();
        let base = base()?;
        REAP.call_once(|| {
            if let Err(error) = reap_stale() {
                eprintln!(
                    "carga-testkit: leavings of an earlier run stay where they are: {error:#}"
                );
            }
        });
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let home = Self::create(base.join(format!("{kind}-{}", &unique[..12])))?;
        record(&home.path.join(OWNER), ProcessId::current()?)?;
        Ok(home)
    }

    /// A directory with a fixed place, cleared of whatever was there.
    pub(crate) fn at(path: PathBuf) -> Result<Self> {
        dispose(&path)?;
        Self::create(path)
    }

    fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, kept: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn record(&self, server: &str, process: ProcessId) -> Result<()> {
        record(&self.path.join(format!("{server}.pid")), process)
    }

    /// From now on the server and its directory outlive this handle and this process.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = dispose(&self.path)
        {
            eprintln!(
                "carga-testkit: cannot clear {}: {error:#}",
                self.path.display()
            );
        }
    }
}

/// Clears away the private servers whose owner has died. Runs by itself before the first server of a process starts.
pub fn reap_stale() -> Result<()> {
    for entry in fs::read_dir(base()?)? {
        let path = entry?.path();
        // Without an owner it is either a detached set's or just being created.
        if let Some(owner) = recorded(&path.join(OWNER))
            && !owner.is_alive()
        {
            dispose(&path)?;
        }
    }
    Ok(())
}

/// Kills what runs in a server's directory and removes it. Fine if there is nothing.
pub(crate) fn dispose(path: &Path) -> Result<()> {
    let mut processes = pid::with_environment(&format!("{MARKER}={}", path.display()));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let file = entry.path();
        if file.extension().is_some_and(|extension| extension == "pid") && !file.ends_with(OWNER) {
            processes.extend(recorded(&file));
        }
    }
    pid::kill_trees(&processes)?;
    mounts::unmount_below(path)?;
    remove_postgres_semaphore(path);
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The parent of all private directories: `<temp>/carga-testkit-<uid>`, which the `postgres` user may pass through.
pub(crate) fn base() -> Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let base = std::env::temp_dir().join(format!("carga-testkit-{user}"));
    match fs::DirBuilder::new().mode(0o755).create(&base) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot create {}", base.display()))
        }
        _ => {
            // The name can be guessed and the temp directory is everybody's.
            let found = fs::symlink_metadata(&base)?;
            ensure!(
                found.is_dir() && found.uid() == user,
                "{} belongs to somebody else",
                base.display()
            );
            Ok(base)
        }
    }
}

fn record(file: &Path, process: ProcessId) -> Result<()> {
    // Renamed into place: a reader never sees half a record.
    let draft = file.with_extension("draft");
    fs::write(&draft, serde_json::to_vec(&process)?)
        .and_then(|()| fs::rename(&draft, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

fn recorded(file: &Path) -> Option<ProcessId> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// A killed Postgres leaves 56 bytes of System V shared memory behind, of which the kernel allows only some thousands.
fn remove_postgres_semaphore(home: &Path) {
    let segment = || {
        let lock_file = fs::read_to_string(home.join("data/postmaster.pid")).ok()?;
        // Line 7 holds the segment's key and its id.
        Some(
            lock_file
                .lines()
                .nth(6)?
                .split_ascii_whitespace()
                .nth(1)?
                .to_owned(),
        )
    };
    if let Some(segment) = segment() {
        // Its absence is as good as its removal, so what ipcrm says does not matter.
        let _ = Command::new("ipcrm").args(["-m", &segment]).output();
    }
}
