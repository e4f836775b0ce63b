//! A server's directory, which records its owner and its processes.
//!
//! `owner.pid` names the process that a private server belongs to. A `.pid` file beside it names
//! each server process. So a later run can tell the remains of a crashed run from the servers of a
//! running one. The directories of a detached set have no owner; only [`crate::Services::down`]
//! removes them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, ensure};

use crate::mounts;
use crate::pid::{self, ProcessId};

/// An environment variable that every process of a server inherits. By this variable [`dispose`]
/// finds processes that have no `.pid` file.
pub(crate) const MARKER: &str = "TESTKIT_HOME";
const OWNER: &str = "owner.pid";

/// A directory that, when dropped, kills its processes and removes itself unless it was
/// [kept](Home::keep).
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    is_kept: bool,
}

impl Home {
    /// Creates a directory that belongs to this process.
    pub(crate) fn private(kind: &str) -> Result<Self> {
        static REAP: Once = Once::new();
        let base = base()?;
        REAP.call_once(|| {
            if let Err(error) = reap_stale() {
                eprintln!("carga-testkit: cannot remove the servers of an earlier run: {error:#}");
            }
        });
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let home = Self::create(base.join(format!("{kind}-{}", &unique[..12])))?;
        write_record(&home.path.join(OWNER), ProcessId::current()?)?;
        Ok(home)
    }

    /// Creates a directory at a fixed path and removes the earlier one, with its processes.
    pub(crate) fn at(path: PathBuf) -> Result<Self> {
        dispose(&path)?;
        Self::create(path)
    }

    fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self {
            path,
            is_kept: false,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn record(&self, server: &str, process: ProcessId) -> Result<()> {
        write_record(&self.path.join(format!("{server}.pid")), process)
    }

    /// Lets the server and its directory outlive this handle and this process.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = dispose(&self.path)
        {
            eprintln!(
                "carga-testkit: cannot remove {}: {error:#}",
                self.path.display()
            );
        }
    }
}

/// Removes the private servers whose owner has died. It also runs before a process starts its first
/// server.
pub fn reap_stale() -> Result<()> {
    for entry in fs::read_dir(base()?)? {
        let path = entry?.path();
        // A directory without an owner belongs to a detached set or is being created.
        if let Some(owner) = read_record(&path.join(OWNER))
            && !owner.is_alive()
        {
            dispose(&path)?;
        }
    }
    Ok(())
}

/// Kills the processes of a server's directory and removes it. Succeeds if there is no directory.
pub(crate) fn dispose(path: &Path) -> Result<()> {
    let mut processes = pid::with_environment(&format!("{MARKER}={}", path.display()));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let file = entry.path();
        if file.extension().is_some_and(|extension| extension == "pid") && !file.ends_with(OWNER) {
            processes.extend(read_record(&file));
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

/// The parent of all private directories: `<temp>/carga-testkit-<uid>`, which the `postgres` user
/// can enter.
pub(crate) fn base() -> Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let base = std::env::temp_dir().join(format!("carga-testkit-{user}"));
    match fs::DirBuilder::new().mode(0o755).create(&base) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot create {}", base.display()))
        }
        _ => {
            // Any user can create this path first, because the temp directory is shared.
            let metadata = fs::symlink_metadata(&base)?;
            ensure!(
                metadata.is_dir() && metadata.uid() == user,
                "{} is not a directory of this user",
                base.display()
            );
            Ok(base)
        }
    }
}

fn write_record(file: &Path, process: ProcessId) -> Result<()> {
    // The file is renamed at the end, so that no reader sees half a record.
    let draft = file.with_extension("draft");
    fs::write(&draft, serde_json::to_vec(&process)?)
        .and_then(|()| fs::rename(&draft, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

fn read_record(file: &Path) -> Option<ProcessId> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Removes the System V shared memory of a killed Postgres: 56 bytes, in one of the few thousand
/// segments that the kernel allows.
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
        // An error of ipcrm does not matter, because the segment may be gone already.
        let _ = Command::new("ipcrm").args(["-m", &segment]).output();
    }
}
