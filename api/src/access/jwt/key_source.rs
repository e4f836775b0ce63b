//! Where the public keys of an issuer come from, and when they are read again.
//!
//! The keys are read at start and then every five minutes, because issuers rotate their keys. They
//! are also read when a JWT names an unknown key, and when a signature is wrong. Anybody can send
//! such JWTs, so they cause a reading at most once in ten seconds, and only a limited number of
//! requests waits for it. If a reading fails, the previous keys stay in use, and the next reading
//! begins after half a minute.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use carga_common::settings::JwtKeys;
use carga_common::sync::lock;
use carga_intake::refusal::Refusal;
use jsonwebtoken::{Algorithm, Validation};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::JwtFault;
use super::http::Document;
use super::key_set::{IssuerKey, KeySet};

/// The largest document.
const MAX_BYTES: usize = 1 << 20;

/// How long a reading may take.
const LONGEST_READING: Duration = Duration::from_secs(5);

/// How often the keys are read again, how often after a failure, and how often while they were
/// never read.
const PAUSE: Duration = Duration::from_secs(300);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);
const PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(5);

/// The time between two readings that unknown keys cause.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(10);

/// How many requests may wait for a reading that unknown keys cause. Others are refused at once.
const MAX_WAITING: usize = 100;

#[derive(Debug)]
enum Location {
    File(std::path::PathBuf),
    Url(Box<Document>),
}

/// The public keys of an issuer.
#[derive(Debug)]
pub(super) struct KeySource {
    location: Location,
    /// The location for people.
    name: String,
    /// What every JWT must have.
    rules: Validation,
    /// `None` until the keys have been read for the first time.
    keys: Mutex<Option<Arc<KeySet>>>,
    /// Whether the last reading failed.
    has_failed: AtomicBool,
    /// Tells the regular readings that a reading has failed.
    failed: Arc<Notify>,
    /// One permit for each request that may wait for a reading.
    waiting: Semaphore,
    /// When the last reading began. Readings take turns.
    last: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

impl KeySource {
    /// Reads the keys for the first time. A file must have keys. The server of a URL may be away,
    /// as it may be later: then JWTs get a 503 until it answers.
    ///
    /// `keys` is a file or a URL.
    pub(super) async fn open(keys: &JwtKeys, rules: Validation) -> Result<Arc<Self>, JwtFault> {
        let (location, name) = match keys {
            JwtKeys::File(path) => {
                let name = path.display().to_string();
                (Ok(Location::File(path.clone())), name)
            }
            JwtKeys::Url(url) => {
                let document = Document::new(url).map(Box::new);
                (document.map(Location::Url), url.to_string())
            }
            JwtKeys::Secret(_) => (Err("a secret has no location".to_owned()), String::new()),
        };
        let fault = |reason| JwtFault::Keys {
            location: name.clone(),
            reason,
        };
        let source = Arc::new(Self {
            location: location.map_err(fault)?,
            rules,
            keys: Mutex::default(),
            has_failed: AtomicBool::default(),
            failed: Arc::default(),
            waiting: Semaphore::new(MAX_WAITING),
            last: Arc::default(),
            name: name.clone(),
        });
        *source.last.lock().await = Some(Instant::now());
        match (source.read().await, &source.location) {
            (Ok(keys), _) => *lock(&source.keys) = Some(Arc::new(keys)),
            (Err(reason), Location::File(_)) => return Err(fault(reason)),
            (Err(reason), Location::Url(_)) => tracing::warn!(
                url = source.name,
                reason,
                "cannot read the keys of the issuer of JWTs; requests with a JWT get 503 until they are read"
            ),
        }
        Ok(source)
    }

    /// Reads the keys again and again, until the handle or the source is dropped.
    pub(super) fn refresh(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let source = Arc::downgrade(self);
        AbortOnDropHandle::new(tokio::spawn(refresh(source)))
    }

    /// The keys for a JWT with this header; none if the issuer has no such key.
    pub(super) async fn keys(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<Arc<IssuerKey>>, Refusal> {
        let keys = self.current()?;
        let is_new = id.is_some_and(|id| !keys.knows(id));
        if !is_new {
            return Ok(keys.find(id, algorithm));
        }
        self.read_after_unknown().await?;
        Ok(self.current()?.find(id, algorithm))
    }

    /// Reads the keys again for a JWT that the known keys cannot confirm, unless a reading began
    /// within ten seconds. Returns whether the keys have been replaced. The JWT is refused if too
    /// many requests wait for a reading.
    pub(super) async fn read_after_unknown(self: &Arc<Self>) -> Result<bool, Refusal> {
        let _permit = self.waiting.try_acquire().map_err(|_| {
            let message = "too many JWTs wait until the keys of their issuer have been read again; retry later";
            Refusal::unavailable("key_check_busy", message)
        })?;
        let before = lock(&self.keys).clone();
        self.read_again(UNKNOWN_PAUSE).await;
        let after = lock(&self.keys).clone();
        Ok(after.as_ref().map(Arc::as_ptr) != before.as_ref().map(Arc::as_ptr))
    }

    fn current(&self) -> Result<Arc<KeySet>, Refusal> {
        let keys = lock(&self.keys).clone();
        keys.ok_or_else(|| {
            let message = "the keys of the issuer of JWTs could not be read yet, so the JWT could not be checked; retry later, or use an API key";
            Refusal::unavailable("dependency_unavailable", message)
        })
    }

    /// Reads the keys again, unless a reading began within this time. The reading has a task of its
    /// own, or clients that go away could cause more readings.
    async fn read_again(self: &Arc<Self>, pause: Duration) {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if last.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        let source = Arc::clone(self);
        let reading = tokio::spawn(async move {
            *last = Some(Instant::now());
            let read = source.read().await;
            source.has_failed.store(read.is_err(), Ordering::Relaxed);
            match read {
                Ok(keys) => *lock(&source.keys) = Some(Arc::new(keys)),
                Err(reason) => {
                    tracing::warn!(
                        location = source.name,
                        reason,
                        "cannot read the keys of the issuer of JWTs again; the previous keys stay in use"
                    );
                    source.failed.notify_one();
                }
            }
        });
        if let Err(error) = reading.await {
            tracing::error!(%error, "reading the keys of the issuer of JWTs failed");
        }
    }

    /// How long to wait before the keys are read again.
    fn pause(&self) -> Duration {
        let has_keys = lock(&self.keys).is_some();
        match self.has_failed.load(Ordering::Relaxed) {
            _ if !has_keys => PAUSE_WITHOUT_KEYS,
            true => PAUSE_AFTER_FAILURE,
            false => PAUSE,
        }
    }

    /// Lets ten seconds pass for the next reading.
    #[cfg(test)]
    pub(super) async fn allow_reading(&self) {
        *self.last.lock().await = None;
    }

    async fn read(&self) -> Result<KeySet, String> {
        let document = async {
            match &self.location {
                Location::File(path) => read_file(path).await,
                Location::Url(document) => document.read(MAX_BYTES).await.map(Vec::from),
            }
        };
        let document = timeout(LONGEST_READING, document).await;
        let seconds = LONGEST_READING.as_secs();
        let document = document.map_err(|_| format!("it was not read within {seconds} s"))??;
        KeySet::parse(&document, &self.rules)
    }
}

async fn read_file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let read = async {
        let mut document = Vec::new();
        let file = File::open(path).await?;
        let most = MAX_BYTES as u64 + 1;
        file.take(most).read_to_end(&mut document).await?;
        Ok::<_, std::io::Error>(document)
    };
    let document = read.await.map_err(|error| error.to_string())?;
    match document.len() > MAX_BYTES {
        true => Err(format!("it has more than {MAX_BYTES} bytes")),
        false => Ok(document),
    }
}

async fn refresh(source: Weak<KeySource>) {
    loop {
        let state = |source: Arc<KeySource>| (source.pause(), Arc::clone(&source.failed));
        let Some((pause, failed)) = source.upgrade().map(state) else {
            return;
        };
        // After a failure, the pause is another one.
        if timeout(pause, failed.notified()).await.is_ok() {
            continue;
        }
        if let Some(source) = source.upgrade() {
            source.read_again(Duration::ZERO).await;
        }
    }
}

#[cfg(test)]
mod tests;
