//! What is known of an upload before its file is read, and the record that it gets.

use carga_common::access::TokenLimits;
use carga_common::error::PortResult;
use carga_common::idempotency::{IdempotencyKey, IdempotentRequest};
use carga_common::settings::TenantQuota;
use carga_common::store::{CreateConditions, CreateOutcome, NewUpload, Store, UploadSlots};
use carga_common::telemetry::TraceContext;
use carga_common::tenant::Tenant;
use carga_common::upload::{Upload, UploadId};

use crate::options::Options;
use crate::refusal::Refusal;

/// What is known of an upload before its file is read.
#[derive(Debug)]
pub struct Incoming {
    /// The public id of the upload.
    pub id: UploadId,
    /// The tenant that the upload will belong to.
    pub tenant: Tenant,
    /// The key or token that sends the upload; `None` without authentication.
    pub created_by: Option<String>,
    /// What the token of the sender limits; `None` for a sender without a token.
    pub token: Option<TokenLimits>,
    /// Whether the sender may learn about uploads of the tenant that it has not sent.
    pub sees_all: bool,
    /// The key under which the request takes effect once, if the client has chosen one.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The client's options for the file.
    pub options: Options,
    /// The size of the file, if it is known.
    pub bytes_total: Option<u64>,
    /// The trace that the upload belongs to.
    pub trace: TraceContext,
}

impl Incoming {
    /// Whether the sender may learn about another upload of its tenant.
    pub(crate) fn may_see(&self, upload: &Upload) -> bool {
        let sender = self.created_by.as_deref();
        self.sees_all || sender.is_some_and(|sender| upload.was_sent_by(sender))
    }
}

/// Records a new upload, unless another request has its key, its token is used up, or its tenant
/// has no free slot.
pub(crate) async fn record(
    store: &dyn Store,
    new: &NewUpload,
    incoming: &Incoming,
    quota: &TenantQuota,
) -> PortResult<CreateOutcome> {
    let key = incoming.idempotency_key.clone();
    let request = key.map(|key| IdempotentRequest {
        key,
        fingerprint: incoming.options.fingerprint(),
    });
    let lease = quota.lease;
    let conditions = CreateConditions {
        request: request.as_ref(),
        token: incoming.token.as_ref(),
        slots: quota.uploads.map(|most| UploadSlots { most, lease }),
    };
    store.create_if(new, conditions).await
}

/// The refusal of a request whose key another one has taken since this one began.
pub(crate) async fn key_taken(store: &dyn Store, incoming: &Incoming) -> Refusal {
    let first = match &incoming.idempotency_key {
        Some(key) => store.first_upload(key).await,
        None => Ok(None),
    };
    match first {
        Ok(first) => {
            let first = first.as_ref().map(|first| &first.upload);
            Refusal::idempotency_in_progress(first)
        }
        Err(error) => error.into(),
    }
}
