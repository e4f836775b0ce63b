use std::collections::HashMap;

use async_trait::async_trait;
use carga_common::access::{KeyRecord, NewKey, Scopes};
use carga_common::error::PortResult;
use carga_common::settings::{Authentication, Mode, Settings};
use carga_common::store::KeyPosition;
use carga_common::tenant::Tenant;
use jiff::SignedDuration;

use super::*;

const ADMIN: &str = "an-admin-key-of-more-than-32-characters";

/// Keys in memory, which never change.
#[derive(Debug, Default)]
pub(in crate::access) struct Fixed(HashMap<KeyId, (KeyRecord, KeyDigest)>);

#[async_trait]
impl KeyStore for Fixed {
    async fn create_key(&self, _key: &KeyRecord, _digest: &KeyDigest) -> PortResult<()> {
        Ok(())
    }

    async fn key(&self, id: &KeyId) -> PortResult<Option<(KeyRecord, KeyDigest)>> {
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

    pub(in crate::access) fn keys(self) -> Keys {
        let settings = Settings::read(Mode::Embedded, &|name| match name {
            "CARGA_AUTH" => Some("on".to_owned()),
            "CARGA_ADMIN_KEY" => Some(ADMIN.to_owned()),
            _ => None,
        });
        let Authentication::On(admin) = settings.unwrap().authentication().unwrap() else {
            panic!("authentication is off");
        };
        Keys::new(admin.as_ref(), Arc::new(self))
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
