//! One test's data directory for `carga`, as [`crate::Scope`] is one test's part of the servers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::bucket::keys_in;
use crate::disk::SmallDisk;
use crate::home::Home;

/// The databases in a data directory.
pub const DATABASES: [&str; 3] = ["carga.db", "queue.db", "progress.db"];

/// A private directory, and `carga`'s settings for it. Dropping the handle removes the directory.
#[derive(Debug)]
pub struct DataDir {
    env: BTreeMap<String, String>,
    path: PathBuf,
    /// None when the directory is on a [`SmallDisk`], which then removes it.
    _home: Option<Home>,
}

impl DataDir {
    /// Chooses a path; `carga` creates the directory.
    pub fn new() -> Result<Self> {
        let home = Home::private("data")?;
        let path = home.path().join("carga-data");
        Ok(Self::at(path, Some(home)))
    }

    /// Chooses a path on a disk that the test can fill.
    pub fn on(disk: &SmallDisk) -> Self {
        Self::at(disk.path().join("carga-data"), None)
    }

    fn at(path: PathBuf, home: Option<Home>) -> Self {
        let env = [
            ("CARGA_DATA_DIR", path.display().to_string()),
            ("CARGA_LISTEN", "127.0.0.1:0".to_owned()),
        ];
        Self {
            env: env
                .map(|(key, value)| (key.to_owned(), value))
                .into_iter()
                .collect(),
            path,
            _home: home,
        }
    }

    /// The environment for `carga`.
    pub fn env(&self) -> BTreeMap<String, String> {
        self.env.clone()
    }

    /// Adds a setting, or replaces its value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.insert(key.to_owned(), value.into());
        self
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a read-only connection. Close it before you test a crash: while it is open, the next
    /// process skips a part of its recovery.
    pub async fn open(&self, database: &str) -> Result<SqliteConnection> {
        let file = self.path.join(database);
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .read_only(true)
            .busy_timeout(Duration::from_secs(10));
        let opened = options.connect().await;
        opened.with_context(|| format!("cannot open {}", file.display()))
    }

    /// Runs SQLite's integrity check on every database.
    pub async fn check_integrity(&self) -> Result<()> {
        for database in DATABASES {
            let mut connection = self.open(database).await?;
            let (verdict,): (String,) = sqlx::query_as("PRAGMA integrity_check")
                .fetch_one(&mut connection)
                .await?;
            connection.close().await?;
            ensure!(verdict == "ok", "{database}: {verdict}");
        }
        Ok(())
    }

    /// The keys in the archive, sorted.
    pub fn objects(&self) -> Result<Vec<String>> {
        let mut objects = keys_in(&self.archive())?;
        objects.retain(|key| !key.starts_with("staging/"));
        Ok(objects)
    }

    pub fn object(&self, key: &str) -> Result<Vec<u8>> {
        fs::read(self.archive().join(key)).with_context(|| format!("cannot read {key}"))
    }

    fn archive(&self) -> PathBuf {
        self.path.join("archive")
    }
}
