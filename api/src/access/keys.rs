//! Checks keys, tokens and JWTs, and finds out who holds them.

use std::sync::Arc;

use carga_common::access::{
    ApiKey, JWT_START, KeyDigest, KeyId, KeyState, TokenMaker, TokenSecret, is_token,
};
use carga_common::settings::AdminKey;
use carga_common::store::{KeyStore, TokenStore};
use carga_intake::refusal::Refusal;
use jiff::Timestamp;

use super::cache::KeyCache;
use super::jwt::JwtVerifier;
use super::metrics::CheckCounters;
use super::refusals::{invalid, missing};
use super::secret::Secret;
use crate::caller::Caller;

/// No key is longer, so a longer text costs no digest.
const MAX_KEY_BYTES: usize = 512;

/// The longest JWT. Identity providers put many claims into one.
const MAX_JWT_BYTES: usize = 16 << 10;

/// The keys that open this API.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(super) admin: Option<KeyDigest>,
    cache: Arc<KeyCache>,
    pub(super) checks: CheckCounters,
    pub(super) secret: Arc<Secret>,
    jwt: Option<JwtVerifier>,
}

impl Keys {
    pub(super) fn new(
        admin: Option<&AdminKey>,
        jwt: Option<JwtVerifier>,
        keys: Arc<dyn KeyStore>,
        tokens: Arc<dyn TokenStore>,
    ) -> Self {
        Self {
            admin: admin.map(AdminKey::digest),
            cache: KeyCache::new(keys),
            checks: CheckCounters::new(),
            secret: Secret::new(tokens),
            jwt,
        }
    }

    /// The holder of this key, token or JWT. There is one answer to all invalid ones,
    /// so a client cannot find out which keys exist.
    pub(super) async fn holder(&self, key: Option<&[u8]>) -> Result<Caller, Refusal> {
        let key = key.ok_or_else(missing)?;
        let text = str::from_utf8(key).unwrap_or_default();
        if is_token(text) {
            let secret = self.secret.get().await?;
            return self.holder_of_token(secret, text).await;
        }
        let is_admin = |admin: &KeyDigest| admin.matches(&KeyDigest::of(text));
        let is_short = (1..=MAX_KEY_BYTES).contains(&text.len());
        if is_short && self.admin.as_ref().is_some_and(is_admin) {
            return Ok(Caller::unlimited());
        }
        match &self.jwt {
            Some(jwt) if text.starts_with(JWT_START) && text.len() <= MAX_JWT_BYTES => {
                jwt.caller(text).await
            }
            _ => self.holder_of_key(text).await,
        }
    }

    /// Whether only a lookup in the store can tell this key from an invented one. Tokens and JWTs
    /// are signed.
    pub(super) fn is_new(&self, key: &Result<Option<Vec<u8>>, Refusal>) -> bool {
        let Ok(Some(key)) = key else {
            return false;
        };
        let text = str::from_utf8(key).unwrap_or_default();
        let is_new = |key: ApiKey| {
            let is_admin = |admin: &KeyDigest| admin.matches(&key.digest());
            !self.cache.knows(key.id()) && !self.admin.as_ref().is_some_and(is_admin)
        };
        text.parse().is_ok_and(is_new)
    }

    async fn holder_of_key(&self, text: &str) -> Result<Caller, Refusal> {
        let Ok(key) = text.parse::<ApiKey>() else {
            return Err(invalid("-", "malformed"));
        };
        let id = key.id().as_str();
        let found = self.cache.key(key.id()).await?;
        let Some((record, digest)) = found.as_deref() else {
            return Err(invalid(id, "unknown"));
        };
        if !digest.matches(&key.digest()) {
            return Err(invalid(id, "wrong secret"));
        }
        match record.state(Timestamp::now()) {
            KeyState::Active => Ok(Caller::holding(record)),
            state => Err(invalid(id, state.name())),
        }
    }

    /// The holder of a token, if the key that made it is still valid. The signature is checked
    /// before the key is looked up, so a forged token costs no lookup.
    async fn holder_of_token(&self, secret: &TokenSecret, text: &str) -> Result<Caller, Refusal> {
        let now = Timestamp::now();
        let token = secret.verify(text, now);
        let token = token.map_err(|fault| invalid("-", &fault.to_string()))?;
        let refuse = |reason| Err(invalid(&token.sender(), reason));
        match &token.maker {
            TokenMaker::Admin(mark) => {
                let admin = self.admin.as_ref();
                if admin.is_none_or(|admin| secret.admin_mark(admin) != *mark) {
                    return refuse("made with another CARGA_ADMIN_KEY");
                }
            }
            TokenMaker::Key(id) => {
                let found = self.cache.key(id).await?;
                match found.as_deref().map(|(record, _)| record.state(now)) {
                    Some(KeyState::Active) => {}
                    Some(KeyState::Revoked) => return refuse("its key is revoked"),
                    Some(KeyState::Expired) => return refuse("its key has expired"),
                    None => return refuse("its key is unknown"),
                }
            }
        }
        Ok(Caller::with_token(token))
    }

    /// Makes a revocation take effect in this process at once.
    pub(crate) fn forget(&self, id: &KeyId) {
        self.cache.forget(id);
    }
}

#[cfg(test)]
pub(super) mod tests;
