use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use carga_common::access::{KeyRecord, NewKey, Scopes, SignedToken, TokenSecret};
use carga_common::error::PortResult;
use carga_common::settings::{Authentication, Mode, Settings};
use carga_common::store::KeyPosition;
use carga_common::tenant::Tenant;
use carga_intake::refusal::RefusalKind;
use jiff::SignedDuration;

use super::*;
use crate::access::TokenRequest;

pub(in crate::access) const ADMIN: &str = "an-admin-key-of-more-than-32-characters";

/// Keys in memory, which never change, and how often they were looked up.
#[derive(Debug, Default)]
pub(in crate::access) struct Fixed(HashMap<KeyId, (KeyRecord, KeyDigest)>, Arc<AtomicUsize>);

#[async_trait]
impl KeyStore for Fixed {
    async fn create_key(&self, _key: &KeyRecord, _digest: &KeyDigest) -> PortResult<()> {
        Ok(())
    }

    async fn key(&self, id: &KeyId) -> PortResult<Option<(KeyRecord, KeyDigest)>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(self.0.get(id).cloned())
    }

    async fn keys(
        &self,
        tenant: Option<&Tenant>,
        after: Option<&KeyPosition>,
        limit: u32,
    ) -> PortResult<Vec<KeyRecord>> {
        let position = |record: &KeyRecord| (record.created_at, record.id.clone());
        let after = after.map(|after| (after.created_at, after.id.clone()));
        let records = self.0.values().map(|(record, _)| record);
        let mut found: Vec<KeyRecord> = records
            .filter(|record| tenant.is_none_or(|tenant| record.tenant == *tenant))
            .filter(|record| after.as_ref().is_none_or(|after| position(record) > *after))
            .cloned()
            .collect();
        found.sort_by_key(position);
        found.truncate(limit as usize);
        Ok(found)
    }

    async fn revoke_key(&self, _id: &KeyId, _tenant: Option<&Tenant>) -> PortResult<bool> {
        Ok(false)
    }
}

#[async_trait]
impl TokenStore for Fixed {
    async fn token_secret(&self, _new: &TokenSecret) -> PortResult<TokenSecret> {
        Ok(TokenSecret::from([7; 32]))
    }
}

impl Fixed {
    /// Adds a key of tenant `acme`, after this change of its record.
    pub(in crate::access) fn add(&mut self, change: impl FnOnce(&mut KeyRecord)) -> ApiKey {
        let key = ApiKey::generate().unwrap();
        let new = NewKey {
            tenant: "acme".parse().unwrap(),
            scopes: "read".parse().unwrap(),
            dataset: None,
            name: None,
            expires_at: None,
        };
        let mut record = new.record(&key, None, Timestamp::now()).unwrap();
        change(&mut record);
        let id = key.id().clone();
        self.0.insert(id, (record, key.digest()));
        key
    }

    /// How often keys were looked up.
    pub(in crate::access) fn lookups(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.1)
    }

    pub(in crate::access) fn keys(self) -> Keys {
        self.keys_with(ADMIN)
    }

    /// The keys of an API with this admin key.
    fn keys_with(self, admin: &str) -> Keys {
        let settings = Settings::read(Mode::Embedded, &|name| match name {
            "CARGA_AUTH" => Some("on".to_owned()),
            "CARGA_ADMIN_KEY" => Some(admin.to_owned()),
            _ => None,
        });
        let Authentication::On(admin) = settings.unwrap().authentication().unwrap() else {
            panic!("authentication is off");
        };
        let store = Arc::new(self);
        Keys::new(admin.as_ref(), None, store.clone(), store)
    }
}

async fn refused(keys: &Keys, key: Option<&str>) -> Refusal {
    let holder = keys.holder(key.map(str::as_bytes)).await;
    holder.unwrap_err()
}

#[tokio::test]
async fn the_holder_of_a_key_has_its_tenant_and_scopes() {
    let mut store = Fixed::default();
    let key = store.add(|record| record.dataset = "sales".parse().ok());
    let holder = store.keys().holder(Some(key.expose().as_bytes())).await;
    let holder = holder.unwrap();
    assert_eq!(holder.tenant().as_str(), "acme");
    assert_eq!(holder.scopes, "read".parse().unwrap());
    assert_eq!(holder.key.as_ref(), Some(key.id()));
    assert_eq!(holder.dataset, "sales".parse().ok());
}

#[tokio::test]
async fn the_admin_key_of_the_settings_may_do_everything() {
    let holder = Fixed::default().keys().holder(Some(ADMIN.as_bytes())).await;
    let holder = holder.unwrap();
    assert_eq!(holder.scopes, Scopes::admin());
    assert!(holder.key.is_none() && holder.tenant().is_default());
}

#[tokio::test]
async fn all_invalid_keys_get_one_answer_and_a_missing_key_another() {
    let mut store = Fixed::default();
    let second = SignedDuration::from_secs(1);
    let expired = store.add(|record| record.expires_at = Some(Timestamp::now() - second));
    let revoked = store.add(|record| record.revoked_at = Some(Timestamp::now()));
    let valid = store.add(|_| ());
    // The id of a key that exists, with the secret and so the checksum of no key.
    let other = ApiKey::generate().unwrap();
    store.0.insert(
        other.id().clone(),
        (store.0[valid.id()].0.clone(), valid.digest()),
    );
    let unknown = ApiKey::generate().unwrap();
    let keys = store.keys();
    let mistyped = valid.expose().replace("carga", "cargo");
    let (almost_admin, long) = (format!("{ADMIN}x"), ADMIN.repeat(20));
    let invalid = [
        "",
        "x",
        &mistyped,
        &almost_admin,
        &ADMIN[1..],
        &long,
        expired.expose(),
        revoked.expose(),
        other.expose(),
        unknown.expose(),
    ];
    let first = refused(&keys, Some("x")).await;
    assert_eq!(first.failure.code, "invalid_key");
    for key in invalid {
        let refusal = refused(&keys, Some(key)).await;
        assert_eq!(refusal.kind, RefusalKind::Unauthenticated, "{key}");
        assert_eq!(refusal.to_string(), first.to_string(), "{key}");
    }
    assert!(keys.holder(Some(&[0xff; 40])).await.is_err());
    assert!(keys.holder(Some(valid.expose().as_bytes())).await.is_ok());
    let missing = refused(&keys, None).await;
    assert_eq!(missing.kind, RefusalKind::Unauthenticated);
    assert_eq!(missing.failure.code, "missing_key");
}

/// What a token of this key allows, for ten minutes.
fn token_request() -> TokenRequest {
    let now = Timestamp::now();
    TokenRequest {
        scopes: "read".parse().unwrap(),
        dataset: "sales".parse().ok(),
        issued_at: now,
        expires_at: now + SignedDuration::from_mins(10),
        max_uploads: Some(2),
        max_bytes: Some(1000),
    }
}

async fn make_token(keys: &Keys, key: &str) -> (Caller, SignedToken) {
    let maker = keys.holder(Some(key.as_bytes())).await.unwrap();
    let (_, text) = keys.make_token(token_request(), &maker).await.unwrap();
    (maker, text)
}

#[tokio::test]
async fn the_holder_of_a_token_has_the_tenant_of_its_key_and_the_limits_of_the_token() {
    let mut store = Fixed::default();
    let key = store.add(|record| record.scopes = "read upload".parse().unwrap());
    let keys = store.keys();
    let (maker, text) = make_token(&keys, key.expose()).await;
    let holder = keys.holder(Some(text.expose().as_bytes())).await.unwrap();
    assert_eq!(holder.tenant(), maker.tenant());
    assert_eq!(holder.scopes, "read".parse().unwrap());
    assert_eq!(holder.dataset, "sales".parse().ok());
    let limits = holder.token().unwrap();
    assert_eq!(
        (limits.max_uploads, limits.max_bytes),
        (Some(2), Some(1000))
    );
    let sender = format!("{}.{}", key.id(), limits.id);
    assert_eq!(holder.key_id(), Some(sender.as_str()));
    for refused in [holder.may_make_tokens(), holder.may_make_keys()] {
        let refusal = refused.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Forbidden);
        assert_eq!(refusal.failure.code, "token_not_allowed");
    }
    assert!(maker.may_make_tokens().is_ok() && maker.may_make_keys().is_ok());
}

#[tokio::test]
async fn a_token_ends_with_its_key() {
    let mut store = Fixed::default();
    let key = store.add(|_| ());
    let records = store.0.clone();
    let (_, text) = make_token(&store.keys(), key.expose()).await;
    let text = text.expose();
    // The keys as another API finds them later.
    let later = |change: fn(&mut KeyRecord)| {
        let mut records = records.clone();
        change(&mut records.get_mut(key.id()).unwrap().0);
        Fixed(records, Arc::default()).keys()
    };
    let unchanged = later(|_| ());
    assert!(unchanged.holder(Some(text.as_bytes())).await.is_ok());
    let ended = [
        later(|record| record.revoked_at = Some(Timestamp::now())),
        later(|record| record.expires_at = Some(Timestamp::now())),
        // The database was restored from a time before the key.
        Fixed::default().keys(),
    ];
    let invalid = refused(&unchanged, Some("x")).await;
    for keys in ended {
        let refusal = refused(&keys, Some(text)).await;
        assert_eq!(refusal.kind, RefusalKind::Unauthenticated);
        assert_eq!(refusal.to_string(), invalid.to_string());
    }
}

#[tokio::test]
async fn a_token_of_the_admin_key_ends_when_the_admin_key_changes() {
    let (_, text) = make_token(&Fixed::default().keys(), ADMIN).await;
    let text = text.expose();
    let holder = Fixed::default().keys().holder(Some(text.as_bytes())).await;
    let holder = holder.unwrap();
    assert!(holder.key.is_none());
    assert!(holder.key_id().unwrap().starts_with("admin."));
    for admin in [&*ADMIN.replace("admin", "other"), ""] {
        let keys = Fixed::default().keys_with(admin);
        let refusal = refused(&keys, Some(text)).await;
        assert_eq!(refusal.failure.code, "invalid_key", "{admin}");
    }
}

#[tokio::test]
async fn a_forged_token_is_refused_without_a_lookup() {
    let mut store = Fixed::default();
    let key = store.add(|_| ());
    let lookups = Arc::clone(&store.1);
    let records = store.0.clone();
    let (_, text) = make_token(&Fixed(records, Arc::default()).keys(), key.expose()).await;
    let keys = store.keys();
    let (signed, signature) = text.expose().rsplit_once('.').unwrap();
    for forged in [
        format!("{signed}."),
        format!("{signed}.{}", "A".repeat(signature.len())),
        text.expose().repeat(3),
    ] {
        let refusal = refused(&keys, Some(&forged)).await;
        assert_eq!(refusal.failure.code, "invalid_key");
    }
    assert_eq!(lookups.load(Ordering::SeqCst), 0);
    assert!(keys.holder(Some(text.expose().as_bytes())).await.is_ok());
    assert_eq!(lookups.load(Ordering::SeqCst), 1);
}
