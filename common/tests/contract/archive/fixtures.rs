//! Fixtures for the adapters of the archive.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use carga_common::archive::{
    ArchiveKey, BatchArchive, FilesystemArchive, FilesystemArchiveSettings, S3Archive,
};
use carga_testkit::Scope;
use tempfile::TempDir;

use super::ArchiveFixture;
use crate::suite::Fixture;

/// The variables that the AWS SDK reads from the environment of this process, which a test cannot
/// change. Without a region the SDK queries the cloud's metadata service, which takes long.
const ENVIRONMENT: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"];

/// The prefix of the fixture's objects in the bucket.
const PREFIX: &str = "some/prefix";

/// A bucket on the shared S3 server.
pub(super) struct S3(Scope);

impl Fixture for S3 {
    async fn start() -> Result<Self> {
        let scope = Scope::new().await?;
        for name in ENVIRONMENT {
            ensure!(
                std::env::var(name).ok() == scope.env().get(name).cloned(),
                "{name} does not match the S3 server of the tests; run `make test`, or export the output \
                 of `carga-testkit services env --dir …` as scripts/test.sh does"
            );
        }
        Ok(Self(scope))
    }

    async fn end(self) -> Result<()> {
        self.0.close().await
    }
}

impl S3 {
    /// The URL of the server.
    pub(super) fn endpoint(&self) -> Result<String> {
        let endpoint = self.0.env().remove("AWS_ENDPOINT_URL");
        endpoint.context("the S3 server of the tests has no URL")
    }

    /// Opens a handle that reaches the server at this URL.
    pub(super) async fn connect(&self, endpoint: &str) -> Result<Arc<dyn BatchArchive>> {
        let archive = S3Archive::connect(self.0.name(), PREFIX, Some(endpoint)).await?;
        Ok(Arc::new(archive))
    }

    /// The headers of an object, read without the adapter.
    pub(super) async fn head(&self, key: &ArchiveKey) -> Result<HeadObjectOutput> {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .endpoint_url(self.endpoint()?)
            .load()
            .await;
        let settings = aws_sdk_s3::config::Builder::from(&config).force_path_style(true);
        let head = Client::from_conf(settings.build())
            .head_object()
            .bucket(self.0.name())
            .key(format!("{PREFIX}/{key}"));
        Ok(head.send().await?)
    }
}

impl ArchiveFixture for S3 {
    async fn open(&self) -> Result<Arc<dyn BatchArchive>> {
        self.connect(&self.endpoint()?).await
    }

    async fn keys(&self) -> Result<Vec<String>> {
        let prefix = format!("{PREFIX}/");
        let without_prefix =
            |key: String| key.strip_prefix(&prefix).map_or(key.clone(), str::to_owned);
        Ok(self
            .0
            .objects()
            .await?
            .into_iter()
            .map(without_prefix)
            .collect())
    }
}

/// A temporary directory.
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
    Ok(key.context("a file name is not valid UTF-8")?.to_owned())
}
