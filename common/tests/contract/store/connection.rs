//! Several processes can open the store, committed data is kept, and an error names its operation.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::error::{ErrorKind, PortResult};
use carga_common::store::{CreateConditions, Heartbeat, Store, StoreOutcome, UploadQuery};
use carga_common::tenant::Tenant;
use carga_common::upload::{Status, UploadId};
use futures::future::try_join_all;
use jiff::Timestamp;

use super::datasets::merging::merged;
use super::validation::{stream_of, trial};
use super::{
    StoreFixture, begin, check_sample_rows, check_status, complete, end_well, fail, failure, find,
    new_upload, seal, store_new,
};
use crate::sample::{self, first};

pub(super) async fn a_reachable_store_answers_a_ping<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    store.ping().await?;
    store.close().await;
    Ok(())
}

pub(super) async fn committed_data_survives_reopening<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    let completed = complete(store.as_ref(), 2, 5).await?;
    let failed = begin(store.as_ref()).await?;
    fail(store.as_ref(), failed).await?;
    let receiving = begin(store.as_ref()).await?;
    let beat = Heartbeat {
        upload: receiving,
        rows_read: 10,
        rows_rejected: 0,
        bytes_received: 100,
    };
    store.heartbeat(&[beat]).await?;
    store_new(store.as_ref(), &sample::batches(receiving, 2, 5)?).await?;
    store.close().await;

    let store = fixture.open().await?;
    check_status(store.as_ref(), completed, Status::Completed).await?;
    check_sample_rows(store.as_ref(), completed, 10).await?;
    check_status(store.as_ref(), failed, Status::Failed).await?;
    ensure!(find(store.as_ref(), receiving).await?.rows_read == 10);
    ensure!(store.ledger(first(receiving)).await?.len() == 2);
    end_well(store.as_ref(), receiving, 2, 10).await?;
    check_sample_rows(store.as_ref(), receiving, 10).await
}

pub(super) async fn several_handles_can_open_a_new_store_at_once<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    // All handles open at once, and the first one creates the schema.
    let stores = try_join_all((0..4).map(|_| fixture.open())).await?;
    let id = begin(stores[0].as_ref()).await?;
    for store in &stores {
        check_status(store.as_ref(), id, Status::Receiving).await?;
    }
    Ok(())
}

pub(super) async fn a_store_keeps_its_own_installation_id<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, reopened) = (fixture.open().await?, fixture.open().await?);
    let id = store.installation().await?;
    ensure!(reopened.installation().await? == id);
    let another = F::start().await?;
    ensure!(another.open().await?.installation().await? != id);
    another.end().await
}

/// The operation that is named in the error of a closed store.
fn operation<T>(outcome: PortResult<T>) -> Result<String> {
    let Err(error) = outcome else {
        anyhow::bail!("a closed store answered");
    };
    ensure!(error.is_unavailable(), "{}", error.chain());
    let text = error.to_string();
    let name = text.split_once(' ').map_or(text.as_str(), |(name, _)| name);
    Ok(name.to_owned())
}

type Calls = Vec<(&'static str, String)>;

async fn calls_of_uploads(store: &dyn Store, id: UploadId) -> Result<Calls> {
    let key = first(id);
    let new = new_upload(id, sample::columns());
    let last = failure();
    let query = UploadQuery {
        tenant: None,
        created_by: None,
        status: None,
        dataset: None,
        limit: 1,
        before: None,
    };
    let tenant = Tenant::default();
    let same = store.same_content(&tenant, [7; 32].into(), id);
    let of_tenant = store.upload_of(&tenant, id);
    let claim = store.claim_content(key, [7; 32].into());
    Ok(vec![
        ("create", operation(store.create(&new).await)?),
        ("heartbeat", operation(store.heartbeat(&[]).await)?),
        ("seal", operation(store.seal(key, &seal(1, 1)).await)?),
        ("fail", operation(store.fail(key, &last, None).await)?),
        ("cancel", operation(store.cancel(key).await)?),
        ("undo", operation(store.undo(key).await)?),
        ("same_content", operation(same.await)?),
        ("claim_content", operation(claim.await)?),
        ("upload", operation(store.upload(id).await)?),
        ("upload_of", operation(of_tenant.await)?),
        ("uploads", operation(store.uploads(&query).await)?),
        ("completion", operation(store.completion(id).await)?),
        ("complete", operation(store.complete(key, 0).await)?),
    ])
}

async fn calls_of_datasets(store: &dyn Store) -> Result<Calls> {
    let key = super::datasets::key("sales")?;
    let definition = super::datasets::sample_definition()?;
    let put = store.put_dataset(&key, &definition);
    let listed = store.datasets(&key.tenant, None, 1);
    let trial = trial(merged(Mode::Update)?, &[]);
    let validate = store.validate(&trial, stream_of(Vec::new()));
    Ok(vec![
        ("validate", operation(validate.await)?),
        ("put_dataset", operation(put.await)?),
        ("dataset", operation(store.dataset(&key).await)?),
        ("datasets", operation(listed.await)?),
        (
            "delete_dataset",
            operation(store.delete_dataset(&key).await)?,
        ),
    ])
}

async fn calls_of_rows(store: &dyn Store, id: UploadId) -> Result<Calls> {
    let key = first(id);
    let batch = sample::batch(id)?;
    let group = std::slice::from_ref(&batch);
    let dead = super::dead_letters::dead(None);
    Ok(vec![
        ("admits", operation(store.admits(batch.batch.id).await)?),
        ("store", operation(store.store(group).await)?),
        ("ledger", operation(store.ledger(key).await)?),
        ("progress", operation(store.progress(key).await)?),
        ("sums", operation(store.sums(key).await)?),
        ("row_page", operation(store.row_page(id, 0).await)?),
        ("reject", operation(store.reject(key, &[]).await)?),
        (
            "rejected_page",
            operation(store.rejected_page(id, 0).await)?,
        ),
        ("park", operation(store.park(&dead).await)?),
    ])
}

async fn calls_of_maintenance(store: &dyn Store, id: UploadId) -> Result<Calls> {
    const HOUR: Duration = Duration::from_secs(3600);
    let removed = store.archive_removed(id);
    let forget = store.forget_previous(HOUR);
    Ok(vec![
        ("leftovers", operation(store.leftovers(HOUR, HOUR).await)?),
        ("expire", operation(store.expire(first(id), HOUR).await)?),
        ("remove_rows", operation(store.remove_rows(id).await)?),
        ("hold", operation(store.hold(&[id]).await)?),
        ("quiet_uploads", operation(store.quiet_uploads(HOUR).await)?),
        ("mark_missing", operation(store.mark_missing(&[]).await)?),
        (
            "fail_lost",
            operation(store.fail_lost(first(id), HOUR).await)?,
        ),
        ("archive_removed", operation(removed.await)?),
        ("forget_previous", operation(forget.await)?),
        ("ping", operation(store.ping().await)?),
        ("installation", operation(store.installation().await)?),
    ])
}

async fn calls_of_keys(store: &dyn Store) -> Result<Calls> {
    let (key, record) = super::keys::new_key("acme", Timestamp::now())?;
    let create = store.create_key(&record, &key.digest()).await;
    let revoke = store.revoke_key(key.id(), None).await;
    Ok(vec![
        ("create_key", operation(create)?),
        ("key", operation(store.key(key.id()).await)?),
        ("keys", operation(store.keys(None, None, 1).await)?),
        ("revoke_key", operation(revoke)?),
    ])
}

pub(super) async fn a_failed_call_names_its_operation<F: StoreFixture>(fixture: &F) -> Result<()> {
    let store = fixture.open().await?;
    store.close().await;
    let id = UploadId::generate();
    let mut calls = calls_of_uploads(store.as_ref(), id).await?;
    calls.extend(calls_of_datasets(store.as_ref()).await?);
    calls.extend(calls_of_rows(store.as_ref(), id).await?);
    calls.extend(calls_of_maintenance(store.as_ref(), id).await?);
    calls.extend(calls_of_keys(store.as_ref()).await?);
    calls.extend(calls_of_idempotency(store.as_ref()).await?);
    calls.extend(calls_of_quotas(store.as_ref()).await?);
    for (method, operation) in calls {
        ensure!(
            operation == format!("store.{method}"),
            "{method}: {operation}"
        );
    }
    Ok(())
}

async fn calls_of_idempotency(store: &dyn Store) -> Result<Calls> {
    let request = super::idempotency::sending()?;
    let upload = new_upload(UploadId::generate(), sample::columns());
    let conditions = CreateConditions {
        request: Some(&request),
        ..CreateConditions::default()
    };
    let create = store.create_if(&upload, conditions).await;
    let (key, record) = super::keys::new_key("acme", Timestamp::now())?;
    let digest = key.digest();
    let create_key = store.create_key_once(&record, &digest, &request, "{}");
    let first_upload = store.first_upload(&request.key).await;
    let first_answer = store.first_answer(&request.key).await;
    Ok(vec![
        ("create_if", operation(create)?),
        ("create_key_once", operation(create_key.await)?),
        ("first_upload", operation(first_upload)?),
        ("first_answer", operation(first_answer)?),
        ("forget_requests", operation(store.forget_requests().await)?),
    ])
}

async fn calls_of_quotas(store: &dyn Store) -> Result<Calls> {
    const HOUR: Duration = Duration::from_secs(3600);
    let usage = store.usage(&Tenant::default(), HOUR).await;
    Ok(vec![
        ("usage", operation(usage)?),
        ("forget_usage", operation(store.forget_usage().await)?),
    ])
}

/// A corrupt value must not look like an absent value or an unknown upload.
pub(super) async fn a_corrupt_value_is_reported_with_its_column<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    fn check<T>(outcome: PortResult<T>, column: &str, value: &str) -> Result<()> {
        let Err(error) = outcome else {
            anyhow::bail!("{column}={value} was read without an error");
        };
        let text = error.chain();
        ensure!(error.kind() == ErrorKind::Internal, "{text}");
        ensure!(
            text.contains(&format!("column `{column}` holds `{value}`")),
            "{text}"
        );
        Ok(())
    }
    let store = fixture.open().await?;
    for (column, sql, value) in F::corrupt_values() {
        let id = begin(store.as_ref()).await?;
        let statement = format!("UPDATE uploads SET {column} = {sql} WHERE id = '{id}'");
        fixture.execute(&statement).await?;
        check(store.upload(id).await, column, value)?;
    }

    let id = begin(store.as_ref()).await?;
    let batch = sample::batch(id)?;
    store_new(store.as_ref(), std::slice::from_ref(&batch)).await?;
    let statement = format!("UPDATE batches SET rows = -3 WHERE upload_id = '{id}'");
    fixture.execute(&statement).await?;
    check(store.ledger(first(id)).await, "rows", "-3")?;
    check(store.progress(first(id)).await, "rows", "-3")?;
    check(store.sums(first(id)).await, "rows", "-3")?;
    let unknown = "UPDATE batches SET rows = 1, archive_compression = 'lzma'";
    let statement = format!("{unknown} WHERE upload_id = '{id}'");
    fixture.execute(&statement).await?;
    let ledger = store.ledger(first(id)).await;
    check(ledger, "archive_compression", "lzma")?;
    let statement = format!("UPDATE uploads SET status = 'done' WHERE id = '{id}'");
    fixture.execute(&statement).await?;
    // A batch waits for a build that knows the status.
    ensure!(store.admits(batch.batch.id).await?);
    ensure!(store.store(&[batch]).await? == [StoreOutcome::UnknownStatus]);
    Ok(())
}
