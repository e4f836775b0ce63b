//! The data directory, which one process at a time may use.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::time::{Instant, sleep};

const LOCK_FILE: &str = "carga.lock";

/// The commands that hold the lock for a moment only, by the names in the lock file.
const SHORT_COMMANDS: [&str; 3] = ["carga keys", "carga dataset", "carga cancel or undo"];

/// How long to wait for the end of such a command.
const COMMAND_ENDS: Duration = Duration::from_secs(5);

/// How long a command waits for a `carga serve` that has locked the directory and has no address
/// yet. The server connects and migrates meanwhile.
const SERVER_STARTS: Duration = Duration::from_secs(10);

/// How long to wait for the name of the holder. A process writes its name just after it has taken
/// the lock. Before that, the lock file has the name of an earlier process.
const NAME_FOLLOWS: Duration = Duration::from_millis(200);

/// The time between two attempts.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The locked data directory. The operating system releases the lock when the process ends,
/// even after a crash.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: File,
}

/// How a command may use the data directory.
#[derive(Debug)]
pub(crate) enum Entry {
    /// This `carga serve` uses the directory.
    Server(RunningServer),
    /// This process has locked the directory, until this value is dropped.
    Locked { _directory: DataDir },
}

/// A `carga serve` that uses a data directory and has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunningServer {
    pub(crate) address: SocketAddr,
    pub(crate) uses_tls: bool,
}

impl Entry {
    /// Locks the data directory, unless a `carga serve` uses it. The lock file names `holder` to
    /// other processes. Waits for a short command, and for a server that has no address yet.
    pub(crate) async fn open(path: &Path, holder: &str) -> anyhow::Result<Self> {
        create(path)?;
        let started = Instant::now();
        loop {
            let other = match try_lock(path, holder)? {
                Ok(_directory) => return Ok(Self::Locked { _directory }),
                Err(other) => other,
            };
            if let Some(server) = server(&other) {
                return Ok(Self::Server(server));
            }
            let patience = match is_starting_server(&other) {
                true => SERVER_STARTS,
                false => patience(&other),
            };
            if started.elapsed() >= patience {
                return Err(in_use(path, &other));
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

impl DataDir {
    /// Creates the directory if it is missing, and locks it. The lock file names `holder` to
    /// other processes. Waits for a short command that uses the directory.
    pub(crate) async fn lock(path: &Path, holder: &str) -> anyhow::Result<Self> {
        create(path)?;
        let started = Instant::now();
        loop {
            match try_lock(path, holder)? {
                Ok(locked) => return Ok(locked),
                Err(other) if started.elapsed() >= patience(&other) => {
                    return Err(in_use(path, &other));
                }
                Err(_) => sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// Adds the server's URL to the lock file.
    pub(crate) fn record_url(&mut self, url: &str) {
        self.write_holder(&format!(
            "carga serve on {url} (to send a file: curl -F file=@FILE {url}/uploads)"
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

/// Creates the directory if it is missing.
fn create(path: &Path) -> anyhow::Result<()> {
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
            Err(error).with_context(|| format!("syncing the parent directory of {directory}"))
        }
        _ => Ok(()),
    }
}

/// Locks the directory, or returns the line of the process that holds the lock.
fn try_lock(path: &Path, holder: &str) -> anyhow::Result<Result<DataDir, String>> {
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
            let other = io::read_to_string(&lock).unwrap_or_default();
            return Ok(Err(other.trim().to_owned()));
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("locking {}", file.display()));
        }
    }
    let mut data_dir = DataDir {
        path: path.to_owned(),
        lock,
    };
    data_dir.write_holder(holder);
    Ok(Ok(data_dir))
}

/// The server in the line of a `carga serve` that has started.
fn server(holder: &str) -> Option<RunningServer> {
    let (_, rest) = holder.split_once("carga serve on ")?;
    let (scheme, address) = rest.split_whitespace().next()?.split_once("://")?;
    Some(RunningServer {
        address: address.parse().ok()?,
        uses_tls: scheme == "https",
    })
}

fn is_starting_server(holder: &str) -> bool {
    holder.ends_with("carga serve")
}

/// How long to wait for this holder of the lock.
fn patience(holder: &str) -> Duration {
    let is_short = SHORT_COMMANDS.iter().any(|name| holder.ends_with(name));
    if is_short { COMMAND_ENDS } else { NAME_FOLLOWS }
}

fn in_use(path: &Path, holder: &str) -> anyhow::Error {
    let directory = path.display();
    anyhow!(
        "the data directory {directory} is in use by {holder}; stop it, or set CARGA_DATA_DIR to another directory"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);

    /// The path of a data directory that does not exist yet.
    fn new_path() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        (directory, path)
    }

    fn running(scheme: &str) -> RunningServer {
        RunningServer {
            address: SERVER.into(),
            uses_tls: scheme == "https",
        }
    }

    async fn server_of(path: &Path) -> Option<RunningServer> {
        match Entry::open(path, "carga keys").await.unwrap() {
            Entry::Server(server) => Some(server),
            Entry::Locked { .. } => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_locked_data_directory_names_its_holder() {
        let (_directory, path) = new_path();
        let mut first = DataDir::lock(&path, "carga import").await.unwrap();
        first.record_url("http://127.0.0.1:8080");
        let refused = DataDir::lock(&path, "carga import").await;
        let refused = refused.unwrap_err().to_string();
        let expected = [
            format!("process {}", std::process::id()),
            "http://127.0.0.1:8080/uploads".to_owned(),
            path.display().to_string(),
        ];
        for text in expected {
            assert!(refused.contains(&text), "{refused}");
        }
        for scheme in ["http", "https"] {
            first.record_url(&format!("{scheme}://127.0.0.1:8080"));
            assert_eq!(server_of(&path).await, Some(running(scheme)));
        }
        drop(first);
        assert_eq!(server_of(&path).await, None);
        DataDir::lock(&path, "carga import").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_waits_for_the_address_of_a_server_that_is_starting() {
        let (_directory, path) = new_path();
        let mut starting = DataDir::lock(&path, "carga serve").await.unwrap();
        let asking = tokio::spawn(async move { server_of(&path).await });
        sleep(SERVER_STARTS / 2).await;
        assert!(!asking.is_finished());
        starting.record_url("https://127.0.0.1:8080");
        assert_eq!(asking.await.unwrap(), Some(running("https")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_does_not_wait_for_ever_for_a_server_or_an_import() {
        for (holder, longest) in [
            ("carga serve", SERVER_STARTS + POLL_INTERVAL),
            ("carga import", NAME_FOLLOWS + POLL_INTERVAL),
        ] {
            let (_directory, path) = new_path();
            let _held = DataDir::lock(&path, holder).await.unwrap();
            let started = Instant::now();
            let refused = Entry::open(&path, "carga keys").await.unwrap_err();
            assert!(refused.to_string().contains(holder), "{refused}");
            assert!(started.elapsed() <= longest, "{:?}", started.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_waits_for_a_short_command() {
        for command in SHORT_COMMANDS {
            let (_directory, path) = new_path();
            let running = DataDir::lock(&path, command).await.unwrap();
            let starting = {
                let path = path.clone();
                tokio::spawn(async move { DataDir::lock(&path, "carga serve").await })
            };
            sleep(COMMAND_ENDS / 2).await;
            assert!(!starting.is_finished());
            drop(running);
            let _server = starting.await.unwrap().unwrap();
            // A second server is refused, because the first one does not end soon.
            assert!(DataDir::lock(&path, "carga serve").await.is_err());
        }
    }
}
