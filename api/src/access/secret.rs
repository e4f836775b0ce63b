//! The secret of tokens, once it was read from the store.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use carga_common::access::TokenSecret;
use carga_common::store::TokenStore;
use carga_intake::refusal::Refusal;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long a request waits for the secret.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// The secret that signs tokens. It is read from the store once, when a token is made or used for
/// the first time.
#[derive(Debug)]
pub(super) struct Secret {
    store: Arc<dyn TokenStore>,
    known: OnceLock<TokenSecret>,
    /// One call of the store at a time. The other requests wait for its answer.
    reading: Arc<Semaphore>,
}

impl Secret {
    pub(super) fn new(store: Arc<dyn TokenStore>) -> Arc<Self> {
        Arc::new(Self {
            store,
            known: OnceLock::new(),
            reading: Arc::new(Semaphore::new(1)),
        })
    }

    pub(super) async fn get(self: &Arc<Self>) -> Result<&TokenSecret, Refusal> {
        if self.known.get().is_none() {
            let read = timeout(LONGEST_WAIT, self.read()).await;
            read.unwrap_or_else(|_| {
                tracing::warn!("the store did not return the secret of tokens in time");
                let message = "the store did not answer in time, so the token could not be checked; retry later";
                Err(Refusal::unavailable("dependency_unavailable", message))
            })?;
        }
        self.known.get().ok_or_else(Refusal::internal)
    }

    /// Reads the secret in a task of its own. If the client goes away in the middle of a call, the
    /// store would otherwise close the connection of the call.
    async fn read(self: &Arc<Self>) -> Result<(), Refusal> {
        let permit = Arc::clone(&self.reading).acquire_owned().await;
        if self.known.get().is_some() {
            return Ok(());
        }
        let secret = Arc::clone(self);
        let reading = tokio::spawn(async move {
            let _permit = permit;
            let new = TokenSecret::generate().map_err(|error| {
                tracing::error!(%error, "cannot make a secret for tokens");
                Refusal::internal()
            })?;
            let kept = secret.store.token_secret(&new).await?;
            secret.known.get_or_init(|| kept);
            Ok(())
        });
        reading.await.unwrap_or_else(|error| {
            tracing::error!(%error, "reading the secret of tokens failed");
            Err(Refusal::internal())
        })
    }
}
