//! Makes tokens with fewer rights than the key of the caller, and checks them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use carga_common::access::{
    KeyDigest, Scopes, SignedToken, Token, TokenId, TokenLimits, TokenMaker, TokenSecret,
};
use carga_common::dataset::DatasetName;
use carga_common::store::TokenStore;
use carga_intake::refusal::Refusal;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::keys::Keys;
use crate::caller::Caller;

/// How long a request waits for the secret.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// What a new token allows. The caller may do at least this much.
#[derive(Debug)]
pub(crate) struct TokenRequest {
    pub(crate) scopes: Scopes,
    pub(crate) dataset: Option<DatasetName>,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) max_uploads: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
}

/// The secret that signs tokens. It is read from the store once, when a token is made or used for
/// the first time. So an API starts while the store is away.
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

impl Keys {
    /// Makes a token for the holder of a key.
    pub(crate) async fn make_token(
        &self,
        request: TokenRequest,
        caller: &Caller,
    ) -> Result<(Token, SignedToken), Refusal> {
        let secret = self.secret.get().await?;
        let mark = |admin: &KeyDigest| TokenMaker::Admin(secret.admin_mark(admin));
        let maker = match &caller.key {
            Some(key) => Some(TokenMaker::Key(key.clone())),
            // The caller has shown `CARGA_ADMIN_KEY`.
            None => self.admin.as_ref().map(mark),
        };
        let failed = |error: &dyn std::error::Error| {
            tracing::error!(%error, "cannot make a token");
            Refusal::internal()
        };
        let token = Token {
            maker: maker.ok_or_else(Refusal::internal)?,
            tenant: caller.tenant.clone(),
            scopes: request.scopes,
            dataset: request.dataset,
            issued_at: in_seconds(request.issued_at),
            limits: TokenLimits {
                id: TokenId::generate().map_err(|error| failed(&error))?,
                expires_at: in_seconds(request.expires_at),
                max_uploads: request.max_uploads,
                max_bytes: request.max_bytes,
            },
        };
        let text = secret.sign(&token).map_err(|error| failed(&error))?;
        Ok((token, text))
    }
}

/// The time without the part of a second, as a JWT has it.
fn in_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
