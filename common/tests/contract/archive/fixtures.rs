//! The adapters of the archive.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use carga_common::archive::{
    BatchArchive, FilesystemArchive, FilesystemArchiveSettings, S3Archive,
};
use carga_testkit::Scope;
use tempfile::TempDir;

use super::ArchiveFixture;
use crate::suite::Fixture;

/// What the AWS SDK reads from the environment of this process, which a test cannot change.
/// Without a region it would ask the machine's cloud for one, at length.
const ENVIRONMENT: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"];

/// Below this everything of ours lies in the bucket.
const PREFIX: &str = "some/place";

/// A bucket of its own on the shared server.
pub(super) struct S3(Scope);

impl Fixture for S3 {
    async fn start() -> Result<Self> {
        let scope = Scope::new().await?;
        for name in ENVIRONMENT {
            ensure!(
                std::env::var(name).ok() == scope.env().get(name).cloned(),
                "{name} is not what the S3 server of the tests expects: use `make test`, or export what \
                 `carga-testkit services env --dir …` prints, as scripts/test.sh does"
            );
        }
        Ok(Self(scope))
    }

    async fn end(self) -> Result<()> {
        self.0.close().await
    }
}

impl ArchiveFixture for S3 {
    async fn open(&self) -> Result<Arc<dyn BatchArchive>> {
        let env = self.0.env();
        let endpoint = env.get("AWS_ENDPOINT_URL").map(String::as_str);
        let archive = S3Archive::connect(self.0.name(), PREFIX, endpoint).await?;
        Ok(Arc::new(archive))
    }

    async fn keys(&self) -> Result<Vec<String>> {
        let below = format!("{PREFIX}/");
        let ours = |key: String| key.strip_prefix(&below).map_or(key.clone(), str::to_owned);
        Ok(self.0.objects().await?.into_iter().map(ours).collect())
    }
}

/// A directory of its own.
pub(super) struct Filesystem(TempDir);

impl Fixture for Filesystem {
    async fn start() -> Result<Self> {
        Ok(Self(TempDir::new()?))
    }

    async fn end(self) -> Result<()> {
        Ok(self.0.close()?)
    }
}

impl ArchiveFixture for Filesystem {
    async fn open(&self) -> Result<Arc<dyn BatchArchive>> {
        Ok(Arc::new(
            FilesystemArchive::open(FilesystemArchiveSettings {
                directory: self.0.path().to_owned(),
                sole_user: false,
            })
            .await?,
        ))
    }

    async fn keys(&self) -> Result<Vec<String>> {
        let root = self.0.path();
        let mut keys = Vec::new();
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    keys.push(key_of(root, &path)?);
                }
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }
}

fn key_of(root: &Path, file: &Path) -> Result<String> {
    let key = file.strip_prefix(root)?.to_str();
    Ok(key.context("a name that is no text")?.to_owned())
}
