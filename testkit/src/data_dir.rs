//! One test's own data directory for `carga`: what [`crate::Scope`] is on servers.

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

/// The databases that `carga` keeps there.
pub const DATABASES: [&str; 3] = ["carga.db", "queue.db", "progress.db"];

/// A directory that nobody else uses, and the settings that lead `carga` to it. Gone when it is dropped.
#[derive(Debug)]
pub struct DataDir {
    env: BTreeMap<String, String>,
    path: PathBuf,
    /// None when it is on a disk of the test's.
    _home: Option<Home>,
}

impl DataDir {
    /// `carga` makes the directory itself.
    pub fn new() -> Result<Self> {
        let home = Home::private("data")?;
        let path = home.path().join("carga-data");
        Ok(Self::at(path, Some(home)))
    }

    /// On a disk that can be filled.
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

    /// One more setting, or another value for one.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.insert(key.to_owned(), value.into());
        self
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A connection that can only look. Close it: one that stays open across a crash would spare the next process some of the
    /// recovery that is its own to make.
    pub async fn open(&self, database: &str) -> Result<SqliteConnection> {
        let file = self.path.join(database);
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .read_only(true)
            .busy_timeout(Duration::from_secs(10));
        let opened = options.connect().await;
        opened.with_context(|| format!("opening {}", file.display()))
    }

    /// Has SQLite look through every page of every database.
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
