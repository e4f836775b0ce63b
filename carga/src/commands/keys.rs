//! `carga keys`. The commands change the store themselves, even while a `carga serve` uses it: no
//! key exists that could authorize the first one, and one short write does not delay the server.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use carga_common::access::{ApiKey, KeyId, KeyRecord, NewKey};
use carga_common::settings::Settings;
use carga_common::store::{KeyPosition, Store};
use carga_common::tenant::Tenant;
use jiff::{SignedDuration, Timestamp};

use super::{store_to_change, store_to_read};
use crate::arguments::{KeyCommand, NewKeyArguments};
use crate::output::{print, printable};
use crate::table::table;

/// The name of this command for other processes that wait for the data directory.
const HOLDER: &str = "carga keys";

/// How many keys are read at once.
const PAGE: u32 = 100;

pub(crate) async fn run(settings: &Settings, command: KeyCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeyCommand::Create(new) => create(settings, new).await?,
        KeyCommand::List { tenant } => list(settings, tenant.as_ref()).await?,
        KeyCommand::Revoke { id } => revoke(settings, &id?).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(settings: &Settings, new: NewKeyArguments) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let days = new
        .expires_in
        .map(|days| SignedDuration::from_hours(i64::from(days) * 24));
    let key = ApiKey::generate()?;
    let record = NewKey {
        scopes: new.scopes()?,
        tenant: new.tenant,
        dataset: new.dataset,
        name: new.name,
        expires_at: days.map(|days| now.checked_add(days)).transpose()?,
    };
    let record = record.record(&key, None, now)?;
    // Held until the key is stored.
    let (store, _entry) = store_to_change(settings, HOLDER).await?;
    let created = store.create_key(&record, &key.digest()).await;
    store.close().await;
    created?;
    write_key(&key)?;
    // The key is written, so the command has succeeded even if this text cannot be written.
    let _ = writeln!(io::stderr(), "{}", printable(&description(&record)));
    Ok(())
}

/// Writes the key to standard output. Fails on a closed pipe, too, because a key that did not
/// arrive whole is useless and should be revoked.
fn write_key(key: &ApiKey) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    let written = writeln!(output, "{}", key.expose());
    written.and_then(|()| output.flush()).with_context(|| {
        let id = key.id();
        format!("the key was made and could not be written; revoke it with `carga keys revoke {id}`, and make another one")
    })
}

/// The description of a new key for people, without the key itself.
fn description(record: &KeyRecord) -> String {
    let mut text = format!("key {} of tenant {}", record.id, record.tenant);
    if let Some(name) = &record.name {
        text.push_str(&format!(" ({name})"));
    }
    text.push_str(&format!("; scopes: {}", record.scopes));
    if let Some(dataset) = &record.dataset {
        text.push_str(&format!("; only dataset {dataset}"));
    }
    match record.expires_at {
        Some(end) => text.push_str(&format!("; expires at {end:.0}")),
        None => text.push_str("; never expires"),
    }
    text + "\nKeep the key in a safe place. Carga stores only a digest of it and cannot show it again."
}

async fn list(settings: &Settings, tenant: Option<&Tenant>) -> anyhow::Result<()> {
    let store = store_to_read(settings).await?;
    let listed = all_keys(store.as_ref(), tenant).await;
    store.close().await;
    let heading = [
        "KEY", "STATE", "TENANT", "SCOPES", "DATASET", "CREATED", "EXPIRES", "NAME",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let now = Timestamp::now();
    rows.extend(listed?.iter().map(|key| line(key, now)));
    print(table(&rows, usize::MAX).as_bytes())
}

async fn all_keys(store: &dyn Store, tenant: Option<&Tenant>) -> anyhow::Result<Vec<KeyRecord>> {
    let mut keys: Vec<KeyRecord> = Vec::new();
    loop {
        let last = keys.last().map(KeyPosition::from);
        let page = store.keys(tenant, last.as_ref(), PAGE).await?;
        if page.is_empty() {
            return Ok(keys);
        }
        keys.extend(page);
    }
}

fn line(key: &KeyRecord, now: Timestamp) -> Vec<String> {
    let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        key.id.to_string(),
        key.state(now).name().to_owned(),
        key.tenant.to_string(),
        key.scopes.to_string(),
        text(key.dataset.as_ref().map(ToString::to_string)),
        format!("{:.0}", key.created_at),
        text(key.expires_at.map(|end| format!("{end:.0}"))),
        text(key.name.clone()),
    ]
}

async fn revoke(settings: &Settings, id: &KeyId) -> anyhow::Result<()> {
    // Without a store there are no keys, and this command should not create it.
    store_to_read(settings).await?.close().await;
    let (store, _entry) = store_to_change(settings, HOLDER).await?;
    let is_found = store.revoke_key(id, None).await;
    store.close().await;
    ensure!(
        is_found?,
        "key {id} does not exist; `carga keys list` lists the keys"
    );
    print(format!("key {id} is revoked\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_of_a_new_key_has_every_field_and_not_the_key() {
        let key = ApiKey::generate().unwrap();
        let new = NewKey {
            tenant: "acme".parse().unwrap(),
            scopes: "upload".parse().unwrap(),
            dataset: "sales".parse().ok(),
            name: Some("till 4".to_owned()),
            expires_at: "2126-11-26T05:00:00Z".parse().ok(),
        };
        let record = new.record(&key, None, Timestamp::now()).unwrap();
        let text = description(&record);
        let expected = format!(
            "key {} of tenant acme (till 4); scopes: upload; only dataset sales; expires at 2126-11-26T05:00:00Z\n",
            key.id()
        );
        assert!(text.starts_with(&expected), "{text}");
        assert!(!text.contains(key.expose()), "{text}");
        let line = line(&record, Timestamp::now()).join("|");
        assert!(line.contains("|active|acme|upload|sales|"), "{line}");
    }
}
