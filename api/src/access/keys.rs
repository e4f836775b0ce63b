//! Checks keys, and finds out who holds them.

use std::sync::Arc;

use carga_common::access::{ApiKey, KeyDigest, KeyId, KeyState};
use carga_common::settings::AdminKey;
use carga_common::store::KeyStore;
use carga_intake::refusal::{Refusal, RefusalKind};
use jiff::Timestamp;

use super::cache::KeyCache;
use super::metrics::CheckCounters;
use crate::caller::Caller;

/// The code of the refusal of a request without a key.
pub(super) const MISSING_KEY: &str = "missing_key";

/// No key is longer, so a longer text costs no digest.
const MAX_KEY_BYTES: usize = 512;

/// The keys that open this API.
#[derive(Debug)]
pub(crate) struct Keys {
    admin: Option<KeyDigest>,
    cache: Arc<KeyCache>,
    pub(super) checks: CheckCounters,
}

impl Keys {
    pub(super) fn new(admin: Option<&AdminKey>, store: Arc<dyn KeyStore>) -> Self {
        Self {
            admin: admin.map(AdminKey::digest),
            cache: KeyCache::new(store),
            checks: CheckCounters::new(),
        }
    }

    /// The holder of this key. There is one answer to every invalid key, so that it tells nobody
    /// which keys exist or existed.
    pub(super) async fn holder(&self, key: Option<&[u8]>) -> Result<Caller, Refusal> {
        let key = key.ok_or_else(missing)?;
        let text = str::from_utf8(key).unwrap_or_default();
        if text.is_empty() || text.len() > MAX_KEY_BYTES {
            return Err(invalid(None, "malformed"));
        }
        let is_admin = |admin: &KeyDigest| admin.matches(&KeyDigest::of(text));
        if self.admin.as_ref().is_some_and(is_admin) {
            return Ok(Caller::unlimited());
        }
        let Ok(key) = text.parse::<ApiKey>() else {
            return Err(invalid(None, "malformed"));
        };
        let found = self.cache.key(key.id()).await?;
        let Some((record, digest)) = found.as_deref() else {
            return Err(invalid(Some(key.id()), "unknown"));
        };
        if !digest.matches(&key.digest()) {
            return Err(invalid(Some(key.id()), "wrong secret"));
        }
        match record.state(Timestamp::now()) {
            KeyState::Active => Ok(Caller::holding(record)),
            state => Err(invalid(Some(key.id()), state.name())),
        }
    }

    /// Makes a revocation take effect in this process at once.
    pub(crate) fn forget(&self, id: &KeyId) {
        self.cache.forget(id);
    }
}

fn missing() -> Refusal {
    let message = "the request has no API key; send one as `X-API-Key: KEY` or `Authorization: Bearer KEY`; `carga keys create` and `POST /keys` make keys";
    Refusal::new(RefusalKind::Unauthenticated, MISSING_KEY, message)
}

/// The reason is for the log alone.
fn invalid(id: Option<&KeyId>, reason: &str) -> Refusal {
    let id = id.map_or("-", KeyId::as_str);
    tracing::debug!(key.id = id, reason, "refused a key");
    let message = "the API key is not valid: it is mistyped, unknown, revoked or expired";
    Refusal::new(RefusalKind::Unauthenticated, "invalid_key", message)
}

#[cfg(test)]
pub(super) mod tests;
