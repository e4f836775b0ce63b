//! Access to an S3 server, and to the objects in its buckets.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The address and credentials of an S3 server, and the location of its objects.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct S3Access {
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
    pub objects: Objects,
}

/// How a test reads the objects of an S3 server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Objects {
    /// Files below the directory that `s3s-fs` serves, one subdirectory per bucket.
    Directory(PathBuf),
    /// Unsigned requests to LocalStack's URL.
    Http(String),
}

impl S3Access {
    /// The `AWS_*` variables.
    pub fn env(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("AWS_ENDPOINT_URL".to_owned(), self.endpoint.clone()),
            ("AWS_REGION".to_owned(), "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID".to_owned(), self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), self.secret_key.clone()),
        ])
    }

    /// Creates a bucket of `s3s-fs`. On LocalStack this does nothing, because Carga creates a
    /// missing bucket there.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        match &self.objects {
            Objects::Directory(data) => fs::create_dir_all(data.join(name))
                .with_context(|| format!("cannot create bucket {name}")),
            Objects::Http(_) => Ok(()),
        }
    }

    /// The keys of a bucket, sorted.
    pub async fn objects(&self, bucket: &str) -> Result<Vec<String>> {
        match &self.objects {
            Objects::Directory(data) => keys_in(&data.join(bucket)),
            Objects::Http(endpoint) => list(endpoint, bucket).await,
        }
    }

    /// An object's bytes.
    pub async fn read(&self, bucket: &str, key: &str) -> Result<Vec<u8>> {
        match &self.objects {
            Objects::Directory(data) => read_file(&data.join(bucket).join(key)),
            Objects::Http(endpoint) => get(&format!("{endpoint}/{bucket}/{key}")).await,
        }
    }
}

/// The keys in a bucket's directory, sorted.
///
/// Every file is an object: `s3s-fs` keeps metadata and unfinished writes outside its buckets.
pub(crate) fn keys_in(bucket: &Path) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    let mut dirs = vec![bucket.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                keys.push(
                    path.strip_prefix(bucket)?
                        .to_str()
                        .with_context(|| format!("the key {} is not UTF-8", path.display()))?
                        .to_owned(),
                );
            }
        }
    }
    keys.sort_unstable();
    Ok(keys)
}

pub(crate) fn read_file(object: &Path) -> Result<Vec<u8>> {
    fs::read(object).with_context(|| format!("cannot read {}", object.display()))
}

async fn list(endpoint: &str, bucket: &str) -> Result<Vec<String>> {
    let listing = get(&format!("{endpoint}/{bucket}?list-type=2")).await?;
    let listing = String::from_utf8(listing)?;
    ensure!(
        !listing.contains("<IsTruncated>true"),
        "bucket {bucket} has more objects than one listing holds"
    );
    let keys = listing
        .split("<Key>")
        .skip(1)
        .filter_map(|rest| rest.split_once("</Key>"));
    let unescape = |key: &str| {
        key.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&amp;", "&")
    };
    let mut keys: Vec<String> = keys.map(|(key, _)| unescape(key)).collect();
    keys.sort_unstable();
    Ok(keys)
}

async fn get(url: &str) -> Result<Vec<u8>> {
    let answer = reqwest::get(url).await?.error_for_status()?;
    Ok(answer.bytes().await?.to_vec())
}
