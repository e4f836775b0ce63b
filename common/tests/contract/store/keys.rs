//! API keys are kept without their secrets, and are revoked once.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use carga_common::access::{ApiKey, KeyDigest, KeyId, KeyRecord, NewKey};
use carga_common::error::ErrorKind;
use carga_common::store::{KeyPosition, Store};
use carga_common::tenant::Tenant;
use jiff::{SignedDuration, Timestamp};

use super::StoreFixture;

/// A key of this tenant that was made at this time.
pub(super) fn new_key(tenant: &str, at: Timestamp) -> Result<(ApiKey, KeyRecord)> {
    let key = ApiKey::generate()?;
    let new = NewKey {
        tenant: tenant.parse()?,
        scopes: "upload read".parse()?,
        dataset: None,
        name: None,
        expires_at: None,
    };
    let record = new.record(&key, None, at)?;
    Ok((key, record))
}

async fn create(store: &dyn Store, tenant: &str, at: Timestamp) -> Result<KeyId> {
    let (key, record) = new_key(tenant, at)?;
    store.create_key(&record, &key.digest()).await?;
    Ok(record.id)
}

async fn find(store: &dyn Store, id: &KeyId) -> Result<(KeyRecord, KeyDigest)> {
    store.key(id).await?.context("no such key")
}

/// The ids of all keys, read in pages of this length.
async fn in_pages(store: &dyn Store, tenant: Option<&Tenant>, limit: u32) -> Result<Vec<KeyId>> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = store.keys(tenant, after.as_ref(), limit).await?;
        ensure!(page.len() <= limit as usize, "{page:?}");
        let Some(last) = page.last() else {
            return Ok(ids);
        };
        after = Some(KeyPosition::from(last));
        ids.extend(page.into_iter().map(|record| record.id));
    }
}

pub(super) async fn a_key_is_read_back_with_every_field<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let (creator, _) = new_key("default", Timestamp::now())?;
    let (key, plain) = new_key("acme-2_x", Timestamp::now())?;
    let (full_key, full) = new_key("acme", Timestamp::now())?;
    let full = KeyRecord {
        dataset: Some("Vendas é \"2024\"".parse()?),
        name: Some("caixa 4 🦀 'x'".to_owned()),
        created_by: Some(creator.id().clone()),
        expires_at: Some("2126-11-26T05:00:00.123456Z".parse()?),
        revoked_at: Some("1999-12-31T23:59:59.999999Z".parse()?),
        ..full
    };
    store.create_key(&plain, &key.digest()).await?;
    store.create_key(&full, &full_key.digest()).await?;
    for (key, record) in [(&key, &plain), (&full_key, &full)] {
        let (found, digest) = find(other.as_ref(), key.id()).await?;
        ensure!(found == *record, "{found:?}");
        ensure!(digest.matches(&key.digest()), "{found:?}");
    }
    ensure!(other.key(creator.id()).await?.is_none());
    Ok(())
}

pub(super) async fn a_key_of_an_existing_id_is_a_conflict<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (key, record) = new_key("acme", Timestamp::now())?;
    store.create_key(&record, &key.digest()).await?;
    let (other_key, other) = new_key("other", Timestamp::now())?;
    let other = KeyRecord {
        id: record.id.clone(),
        ..other
    };
    let outcome = store.create_key(&other, &other_key.digest()).await;
    let kind = outcome.err().context("the id was used twice")?.kind();
    ensure!(kind == ErrorKind::Conflict, "{kind:?}");
    let (found, digest) = find(store.as_ref(), key.id()).await?;
    ensure!(
        found == record && digest.matches(&key.digest()),
        "{found:?}"
    );
    Ok(())
}

pub(super) async fn keys_are_listed_oldest_first_in_pages<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let now = Timestamp::now();
    // Two keys at each time, and the later times first.
    let mut made = Vec::new();
    for age in [0, 0, 3600, 3600, 7200, 7200] {
        let at = now - SignedDuration::from_secs(age);
        made.push((std::cmp::Reverse(age), create(store, "acme", at).await?));
    }
    made.sort();
    let expected: Vec<KeyId> = made.into_iter().map(|(_, id)| id).collect();
    for limit in [1, 2, 4, 100] {
        let found = in_pages(store, None, limit).await?;
        ensure!(found == expected, "{limit}: {found:?}");
    }
    Ok(())
}

pub(super) async fn keys_are_listed_by_tenant<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let (acme, other): (Tenant, Tenant) = ("acme".parse()?, "acme2".parse()?);
    let (mut of_acme, mut of_other) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..3 {
        of_acme.insert(create(store, acme.as_str(), Timestamp::now()).await?);
        of_other.insert(create(store, other.as_str(), Timestamp::now()).await?);
    }
    for (tenant, expected) in [
        (Some(&acme), of_acme.clone()),
        (Some(&other), of_other.clone()),
        (Some(&Tenant::default()), BTreeSet::new()),
        (None, &of_acme | &of_other),
    ] {
        let found = in_pages(store, tenant, 2).await?;
        let count = found.len();
        let found: BTreeSet<KeyId> = found.into_iter().collect();
        ensure!(found == expected && count == expected.len(), "{tenant:?}");
    }
    Ok(())
}

pub(super) async fn the_time_of_the_first_revocation_stays<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let before = Timestamp::now() - SignedDuration::from_secs(5);
    let id = create(store.as_ref(), "acme", Timestamp::now()).await?;
    let kept = create(store.as_ref(), "acme", Timestamp::now()).await?;
    ensure!(store.revoke_key(&id, None).await?);
    let (revoked, _) = find(other.as_ref(), &id).await?;
    ensure!(revoked.revoked_at > Some(before), "{revoked:?}");
    ensure!(other.revoke_key(&id, None).await?);
    ensure!(find(store.as_ref(), &id).await?.0 == revoked);
    let (kept, _) = find(store.as_ref(), &kept).await?;
    ensure!(kept.revoked_at.is_none(), "{kept:?}");
    let unknown = ApiKey::generate()?;
    ensure!(!store.revoke_key(unknown.id(), None).await?);
    Ok(())
}

pub(super) async fn a_key_of_another_tenant_is_not_revoked<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let (acme, other): (Tenant, Tenant) = ("acme".parse()?, "other".parse()?);
    let id = create(store, acme.as_str(), Timestamp::now()).await?;
    ensure!(!store.revoke_key(&id, Some(&other)).await?);
    ensure!(find(store, &id).await?.0.revoked_at.is_none());
    ensure!(store.revoke_key(&id, Some(&acme)).await?);
    ensure!(find(store, &id).await?.0.revoked_at.is_some());
    Ok(())
}
