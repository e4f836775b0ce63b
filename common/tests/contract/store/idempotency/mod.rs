//! Requests with one key take effect once, whatever happens to them.

pub(super) mod creating;
pub(super) mod freeing;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use carga_common::error::PortResult;
use carga_common::idempotency::{IdempotencyKey, IdempotentRequest, IdempotentRoute, fingerprint};
use carga_common::store::{CreateConditions, NewUpload, Store, UploadQuery};
use carga_common::tenant::Tenant;
use carga_common::upload::{Upload, UploadId};
use futures::future::try_join_all;

use super::{StoreFixture, new_upload};
use crate::sample;

/// How many requests are sent at the same time.
const CALLERS: usize = 16;

/// A request of the tenant `default` without an API key.
pub(super) fn request(route: IdempotentRoute, text: &str) -> Result<IdempotentRequest> {
    Ok(IdempotentRequest {
        key: IdempotencyKey {
            tenant: Tenant::default(),
            sender: None,
            route,
            text: text.parse()?,
        },
        fingerprint: fingerprint([("trim", "true")]),
    })
}

/// A request for an upload with the key `k`.
pub(super) fn sending() -> Result<IdempotentRequest> {
    request(IdempotentRoute::PostUploads, "k")
}

/// The same request of another sender.
fn sent_by(
    request: &IdempotentRequest,
    tenant: &str,
    sender: Option<&str>,
) -> Result<IdempotentRequest> {
    let key = IdempotencyKey {
        tenant: tenant.parse()?,
        sender: sender.map(str::to_owned),
        ..request.key.clone()
    };
    Ok(IdempotentRequest {
        key,
        ..request.clone()
    })
}

fn upload_of(request: &IdempotentRequest) -> NewUpload {
    NewUpload {
        tenant: request.key.tenant.clone(),
        created_by: request.key.sender.clone(),
        ..new_upload(UploadId::generate(), sample::columns())
    }
}

/// Creates this upload; `None` if another request has the key.
pub(super) async fn create_once(
    store: &dyn Store,
    upload: &NewUpload,
    request: &IdempotentRequest,
) -> PortResult<Option<Upload>> {
    let conditions = CreateConditions {
        request: Some(request),
        ..CreateConditions::default()
    };
    Ok(store.create_if(upload, conditions).await?.upload())
}

/// Creates an upload; `None` if another request has the key.
async fn create(store: &dyn Store, request: &IdempotentRequest) -> Result<Option<Upload>> {
    Ok(create_once(store, &upload_of(request), request).await?)
}

async fn create_first(store: &dyn Store, request: &IdempotentRequest) -> Result<Upload> {
    let created = create(store, request).await?;
    created.context("another request has the key")
}

/// The id of the upload that has the key.
async fn holder(store: &dyn Store, request: &IdempotentRequest) -> Result<Option<UploadId>> {
    let first = store.first_upload(&request.key).await?;
    Ok(first.map(|first| first.upload.id))
}

/// All uploads of a tenant.
async fn uploads(store: &dyn Store, tenant: &Tenant) -> Result<Vec<UploadId>> {
    let query = UploadQuery {
        tenant: Some(tenant.clone()),
        created_by: None,
        status: None,
        dataset: None,
        limit: 100,
        before: None,
    };
    let uploads = store.uploads(&query).await?;
    Ok(uploads.into_iter().map(|upload| upload.id).collect())
}

/// Sends the request from several processes at the same time. Returns what the first to succeed has
/// created, and fails unless there is exactly one.
async fn race<F: StoreFixture>(fixture: &F, request: &IdempotentRequest) -> Result<Upload> {
    let handles = [fixture.open().await?, fixture.open().await?];
    let calls = (0..CALLERS).map(|number| {
        let (store, request) = (Arc::clone(&handles[number % 2]), request.clone());
        tokio::spawn(async move { create(store.as_ref(), &request).await })
    });
    let mut created = Vec::new();
    for outcome in try_join_all(calls).await? {
        created.extend(outcome?);
    }
    ensure!(created.len() == 1, "{created:?}");
    created.pop().context("nothing was created")
}
