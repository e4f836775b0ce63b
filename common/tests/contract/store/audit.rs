//! Every change on behalf of an actor leaves one entry in the audit log.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_common::audit::{Action, Actor, AuditEntry, acting_as};
use carga_common::batch::BatchId;
use carga_common::dataset::{DatasetKey, Definition};
use carga_common::idempotency::IdempotentRoute;
use carga_common::store::{DeleteOutcome, PutOutcome, Retried, RetryScope, Store};
use carga_common::tenant::Tenant;
use carga_common::upload::UploadId;
use jiff::Timestamp;
use tokio::task::JoinSet;

use super::StoreFixture;
use super::dead_letters::dead;
use super::idempotency::{create_once, request, sending};
use super::keys::new_key;
use super::steps::{begin, complete, failure, new_upload};
use crate::sample::{self, first};

async fn entries(store: &dyn Store) -> Result<Vec<AuditEntry>> {
    Ok(store.audit_entries(None, 0, 1_000).await?)
}

/// The actions and objects of all entries, in order.
async fn changes(store: &dyn Store) -> Result<Vec<(String, String)>> {
    let entries = entries(store).await?.into_iter();
    Ok(entries.map(|entry| (entry.action, entry.object)).collect())
}

fn change(action: Action, object: impl ToString) -> (String, String) {
    (action.name().to_owned(), object.to_string())
}

fn definition(columns: &str) -> Result<Definition> {
    let json = format!("{{\"columns\": [{columns}]}}");
    Ok(Definition::from_json(json.as_bytes())?)
}

const A: &str = r#"{ "name": "a", "type": "text" }"#;
const B: &str = r#"{ "name": "b", "type": "text" }"#;

pub(super) async fn every_change_leaves_one_entry<F: StoreFixture>(fixture: &F) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let store = store.as_ref();
    let sales = DatasetKey::new("acme".parse()?, "sales é".parse()?);
    let (key, record) = new_key("acme", Timestamp::now())?;
    let made = acting_as(Actor::nobody(), async {
        let cancelled = begin(store).await?;
        ensure!(store.cancel(first(cancelled)).await?);
        let undone = complete(store, 2, 3).await?;
        ensure!(store.undo(first(undone)).await?);
        let retried = begin(store).await?;
        let upload = first(retried);
        store.park(&dead(Some(BatchId { upload, seq: 1 }))).await?;
        for count in [1, 0] {
            let outcome = store.retry(upload, RetryScope::Upload).await?;
            ensure!(outcome == Retried::Batches(count), "{outcome:?}");
        }
        let one = definition(A)?;
        ensure!(store.put_dataset(&sales, &one).await? == PutOutcome::Created);
        let two = definition(&format!("{A}, {B}"))?;
        ensure!(store.put_dataset(&sales, &two).await? == PutOutcome::Changed);
        ensure!(store.delete_dataset(&sales).await? == DeleteOutcome::Deleted);
        store.create_key(&record, &key.digest()).await?;
        ensure!(store.revoke_key(key.id(), None).await?);
        let tenant = Tenant::default();
        store
            .record_audit(&tenant, Action::ChangeLog, "info")
            .await?;
        Ok((cancelled, undone, retried))
    });
    let (cancelled, undone, retried) = made.await?;
    let expected = [
        change(Action::CreateUpload, cancelled),
        change(Action::CancelUpload, cancelled),
        change(Action::CreateUpload, undone),
        change(Action::UndoUpload, undone),
        change(Action::CreateUpload, retried),
        change(Action::RetryUpload, retried),
        change(Action::CreateDataset, "sales é"),
        change(Action::ChangeDataset, "sales é"),
        change(Action::DeleteDataset, "sales é"),
        change(Action::CreateKey, key.id()),
        change(Action::RevokeKey, key.id()),
        change(Action::ChangeLog, "info"),
    ];
    let found = changes(other.as_ref()).await?;
    ensure!(found == expected, "{found:?}");
    Ok(())
}

pub(super) async fn an_entry_has_the_actor_and_the_tenant_of_the_object<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let before = Timestamp::now() - jiff::SignedDuration::from_secs(60);
    let sender = "0123456789ab.cdef01234567";
    let request = Some("r-1".to_owned());
    let address = "2001:db8::7".parse()?;
    let actor = Actor::sender(sender).in_request(request, Some(address));
    let (id, acme) = (UploadId::generate(), "acme".parse::<Tenant>()?);
    let mut upload = new_upload(id, sample::columns());
    upload.tenant = acme.clone();
    // The tenant `default` has used the id, so the upload gets another one in the database.
    store.create(&new_upload(id, sample::columns())).await?;
    let work = async {
        let created = store.create(&upload).await?;
        ensure!(created.id != id && created.public_id == id);
        ensure!(store.cancel(created.key()).await?);
        Ok(())
    };
    acting_as(actor, work).await?;
    let (_, record) = new_key("other", Timestamp::now())?;
    let (secret, _) = new_key("other", Timestamp::now())?;
    let digest = secret.digest();
    let work = store.create_key(&record, &digest);
    acting_as(Actor::command_line(), work).await?;
    let entries = entries(store).await?;
    let [created, cancelled, made] = entries.as_slice() else {
        anyhow::bail!("{entries:#?}");
    };
    for entry in [created, cancelled] {
        ensure!(entry.actor == sender && entry.tenant == acme, "{entry:?}");
        ensure!(entry.object == id.to_string(), "{entry:?}");
        ensure!(entry.request_id.as_deref() == Some("r-1"), "{entry:?}");
        ensure!(entry.address == Some(address), "{entry:?}");
        ensure!(entry.at > before, "{entry:?}");
    }
    ensure!(
        made.actor == "command line" && made.tenant.as_str() == "other",
        "{made:?}"
    );
    ensure!(
        made.address.is_none() && made.request_id.is_none(),
        "{made:?}"
    );
    Ok(())
}

pub(super) async fn a_call_that_changes_nothing_leaves_no_entry<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let sales = DatasetKey::new(Tenant::default(), "sales".parse()?);
    let one = definition(A)?;
    // Without an actor, these leave no entry either.
    let ended = complete(store, 1, 1).await?;
    let failed = begin(store).await?;
    ensure!(store.put_dataset(&sales, &one).await? == PutOutcome::Created);
    let (key, record) = new_key("default", Timestamp::now())?;
    store.create_key(&record, &key.digest()).await?;
    ensure!(store.revoke_key(key.id(), None).await?);
    let work = async {
        let again = new_upload(ended, sample::columns());
        store
            .create(&again)
            .await
            .err()
            .context("an id was used twice")?;
        ensure!(!store.cancel(first(ended)).await?);
        ensure!(!store.undo(first(failed)).await?);
        ensure!(store.fail(first(failed), &failure(), None).await?);
        ensure!(store.put_dataset(&sales, &one).await? == PutOutcome::Unchanged);
        let number = definition(r#"{ "name": "a", "type": "integer" }"#)?;
        let refused = store.put_dataset(&sales, &number).await?;
        ensure!(matches!(refused, PutOutcome::Refused(_)), "{refused:?}");
        let missing = DatasetKey::new(Tenant::default(), "stock".parse()?);
        ensure!(store.delete_dataset(&missing).await? == DeleteOutcome::Missing);
        let twice = store.create_key(&record, &key.digest()).await;
        twice.err().context("an id was used twice")?;
        ensure!(store.revoke_key(key.id(), None).await?);
        Ok(())
    };
    acting_as(Actor::nobody(), work).await?;
    let found = changes(store).await?;
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

pub(super) async fn a_request_that_takes_effect_once_leaves_one_entry<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let (sending, making) = (sending()?, request(IdempotentRoute::PostKeys, "k")?);
    let upload = || new_upload(UploadId::generate(), sample::columns());
    let first = upload();
    let (key, record) = new_key("acme", Timestamp::now())?;
    let (other, other_record) = new_key("acme", Timestamp::now())?;
    let (digest, other_digest) = (key.digest(), other.digest());
    let work = async {
        ensure!(create_once(store, &first, &sending).await?.is_some());
        ensure!(create_once(store, &upload(), &sending).await?.is_none());
        let made = store.create_key_once(&record, &digest, &making, "{}");
        ensure!(made.await?);
        let repeated = store.create_key_once(&other_record, &other_digest, &making, "{}");
        ensure!(!repeated.await?);
        Ok(())
    };
    acting_as(Actor::nobody(), work).await?;
    let found = changes(store).await?;
    let expected = [
        change(Action::CreateUpload, first.id),
        change(Action::CreateKey, key.id()),
    ];
    ensure!(found == expected, "{found:?}");
    Ok(())
}

pub(super) async fn of_concurrent_changes_one_leaves_an_entry<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let (key, record) = new_key("default", Timestamp::now())?;
    store.create_key(&record, &key.digest()).await?;
    let id = begin(store.as_ref()).await?;
    let act = async |store: &dyn Store| {
        let work = async {
            store.revoke_key(key.id(), None).await?;
            store.cancel(first(id)).await
        };
        acting_as(Actor::nobody(), work).await
    };
    let (one, two) = tokio::join!(act(store.as_ref()), act(other.as_ref()));
    ensure!(one? ^ two?, "the upload was not cancelled once");
    let mut found = changes(store.as_ref()).await?;
    found.sort();
    let expected = [
        change(Action::RevokeKey, key.id()),
        change(Action::CancelUpload, id),
    ];
    ensure!(found == expected, "{found:?}");
    Ok(())
}

pub(super) async fn entries_are_listed_by_tenant_in_pages<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let (acme, other): (Tenant, Tenant) = ("acme".parse()?, "other".parse()?);
    let work = async {
        for number in 0..7 {
            let tenant = if number % 3 == 0 { &other } else { &acme };
            let object = number.to_string();
            store
                .record_audit(tenant, Action::ChangeLog, &object)
                .await?;
        }
        anyhow::Ok(())
    };
    acting_as(Actor::admin_key(), work).await?;
    for (tenant, expected) in [
        (None, vec!["0", "1", "2", "3", "4", "5", "6"]),
        (Some(&acme), vec!["1", "2", "4", "5"]),
        (Some(&other), vec!["0", "3", "6"]),
        (Some(&Tenant::default()), vec![]),
    ] {
        for limit in [1, 2, 100] {
            let (mut found, mut after) = (Vec::new(), 0);
            loop {
                let page = store.audit_entries(tenant, after, limit).await?;
                ensure!(page.len() <= limit as usize, "{page:?}");
                let Some(last) = page.last() else { break };
                after = last.id;
                found.extend(page.into_iter().map(|entry| entry.object));
            }
            ensure!(found == expected, "{tenant:?} {limit}: {found:?}");
        }
    }
    Ok(())
}

/// A reader that follows the log while others write finds each entry once.
pub(super) async fn no_page_skips_the_entry_of_a_concurrent_change<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const WRITERS: u32 = 4;
    const CHANGES: u32 = 25;
    let reader = fixture.open().await?;
    let mut writing = JoinSet::new();
    for writer in 0..WRITERS {
        let store = fixture.open().await?;
        let work = async move {
            for number in 0..CHANGES {
                let (tenant, object) = (Tenant::default(), format!("{writer} {number}"));
                store
                    .record_audit(&tenant, Action::ChangeLog, &object)
                    .await?;
            }
            anyhow::Ok(())
        };
        writing.spawn(acting_as(Actor::nobody(), work));
    }
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        // All entries were there before the page if no writer is left.
        let is_last = writing.is_empty();
        let page = reader.audit_entries(None, after, 7).await?;
        if let Some(last) = page.last() {
            after = last.id;
        } else if is_last {
            break;
        }
        found.extend(page.into_iter().map(|entry| entry.object));
        while let Some(ended) = writing.try_join_next() {
            ended??;
        }
    }
    found.sort();
    let writers = (0..WRITERS).flat_map(|writer| (0..CHANGES).map(move |number| (writer, number)));
    let mut expected: Vec<String> = writers
        .map(|(writer, number)| format!("{writer} {number}"))
        .collect();
    expected.sort();
    ensure!(found == expected, "{found:?}");
    Ok(())
}

pub(super) async fn only_old_entries_are_deleted<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let store = store.as_ref();
    let work = async {
        for object in ["old", "new"] {
            let tenant = Tenant::default();
            store
                .record_audit(&tenant, Action::ChangeLog, object)
                .await?;
        }
        anyhow::Ok(())
    };
    acting_as(Actor::nobody(), work).await?;
    let statement = "UPDATE audit_log SET at = '2001-01-01T00:00:00.000000Z' WHERE object = 'old'";
    fixture.execute(statement).await?;
    let day = Duration::from_secs(24 * 3600);
    ensure!(store.forget_audit(day).await? == 1);
    ensure!(store.forget_audit(day).await? == 0);
    let found = changes(store).await?;
    ensure!(found == [change(Action::ChangeLog, "new")], "{found:?}");
    Ok(())
}
