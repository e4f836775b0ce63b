//! Spans around the calls of the store.
//!
//! A new method of a subject needs a line here. A method with a default body does, too: without the
//! line, the default would hide the store's own method.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::{
    ArchivedBatch, AuditStore, BatchQuery, BatchRecord, BatchStore, Completed, Completion,
    CompletionStore, ConnectionUse, CreateConditions, CreateOutcome, DatasetStore, DeadBatch,
    DeadLetter, DeadLetterStore, DeleteOutcome, EventQuery, EventStore, FirstAnswer, FirstUpload,
    ForgottenEvents, Heartbeat, HoldStore, IdempotencyStore, KeyPosition, KeyStore, LedgerEntry,
    Leftovers, ListedEvent, MaintenanceStore, NewUpload, Observation, ObservationStore, Parked,
    PutOutcome, QuotaStore, RejectStore, Removal, Retried, RetriedBatch, RetryScope, RowPage,
    RowStore, Seal, Store, StoreConnection, StoreOutcome, TokenStore, Trial, TrialBatches, Tried,
    UploadQuery, UploadStore, Usage, ValidationStore,
};
use crate::access::{KeyDigest, KeyId, KeyRecord, TokenSecret};
use crate::audit::{Action, AuditEntry};
use crate::batch::BatchId;
use crate::dataset::{Dataset, DatasetKey, DatasetName, Definition, TableFault};
use crate::error::PortResult;
use crate::events::ClaimedEvent;
use crate::idempotency::{IdempotencyKey, IdempotentRequest};
use crate::progress::{Counters, Snapshot};
use crate::rejects::RejectedRow;
use crate::sha256::Sha256;
use crate::tenant::Tenant;
use crate::traced::traced_port;
use crate::upload::{Failure, Upload, UploadId, UploadKey};

traced_port! { "store", UploadStore for dyn Store {
    async fn create(&self, upload: &NewUpload) -> PortResult<Upload>;
    async fn create_if(
        &self,
        upload: &NewUpload,
        conditions: CreateConditions<'_>,
    ) -> PortResult<CreateOutcome>;
    async fn heartbeat(&self, beats: &[Heartbeat]) -> PortResult<Vec<UploadId>>;
    async fn seal(&self, key: UploadKey, seal: &Seal) -> PortResult<bool> {
        rows = seal.rows, bytes = seal.bytes
    };
    async fn fail(
        &self,
        key: UploadKey,
        failure: &Failure,
        last: Option<Heartbeat>,
    ) -> PortResult<bool>;
    async fn cancel(&self, key: UploadKey) -> PortResult<bool>;
    async fn undo(&self, key: UploadKey) -> PortResult<bool>;
    async fn same_content(
        &self,
        tenant: &Tenant,
        sha256: Sha256,
        except: UploadId,
    ) -> PortResult<Option<UploadId>>;
    async fn claim_content(&self, key: UploadKey, sha256: Sha256) -> PortResult<Option<UploadId>>;
    async fn upload(&self, id: UploadId) -> PortResult<Option<Upload>>;
    async fn upload_of(&self, tenant: &Tenant, public_id: UploadId) -> PortResult<Option<Upload>>;
    async fn uploads(&self, query: &UploadQuery) -> PortResult<Vec<Upload>>;
}}

traced_port! { "store", DatasetStore for dyn Store {
    async fn put_dataset(
        &self,
        key: &DatasetKey,
        definition: &Definition,
    ) -> PortResult<PutOutcome>;
    async fn dataset(&self, key: &DatasetKey) -> PortResult<Option<Dataset>>;
    async fn datasets(
        &self,
        tenant: &Tenant,
        after: Option<&DatasetName>,
        limit: u32,
    ) -> PortResult<Vec<Dataset>>;
    async fn delete_dataset(&self, key: &DatasetKey) -> PortResult<DeleteOutcome>;
    async fn check_table(
        &self,
        definition: &Definition,
        written: &[&str],
    ) -> PortResult<Result<(), TableFault>>;
} plain {
    fn max_row_bytes(&self) -> Option<usize> {
        self.0.max_row_bytes()
    }
}}

traced_port! { "store", BatchStore for dyn Store {
    async fn admits(&self, id: BatchId) -> PortResult<bool>;
    async fn store(&self, group: &[ArchivedBatch]) -> PortResult<Vec<StoreOutcome>> {
        batches = group.len(),
        rows = group.iter().map(|archived| archived.batch.row_count()).sum::<usize>(),
        bytes = group.iter().map(|archived| archived.batch.size_bytes()).sum::<usize>()
    };
    async fn ledger(&self, key: UploadKey) -> PortResult<Vec<LedgerEntry>>;
    async fn batches(&self, key: UploadKey, query: BatchQuery) -> PortResult<Vec<BatchRecord>>;
    async fn progress(&self, key: UploadKey) -> PortResult<Snapshot>;
    async fn sums(&self, key: UploadKey) -> PortResult<Counters>;
}}

traced_port! { "store", CompletionStore for dyn Store {
    async fn completion(&self, id: UploadId) -> PortResult<Completion>;
    async fn complete(&self, key: UploadKey, dead: u64) -> PortResult<Completed>;
}}

traced_port! { "store", RowStore for dyn Store {
    async fn row_page(&self, id: UploadId, after_seq: u32) -> PortResult<Option<RowPage>>;
}}

traced_port! { "store", RejectStore for dyn Store {
    async fn reject(&self, key: UploadKey, rows: &[RejectedRow]) -> PortResult<bool> {
        rows = rows.len()
    };
    async fn rejected_page(&self, id: UploadId, after_row: u64) -> PortResult<Vec<RejectedRow>>;
}}

traced_port! { "store", DeadLetterStore for dyn Store {
    async fn park(&self, batch: &DeadBatch) -> PortResult<Parked>;
    async fn dead_letters(&self, after: u64, limit: u32) -> PortResult<Vec<DeadLetter>>;
    async fn dead_message(&self, id: BatchId) -> PortResult<Option<Bytes>>;
    async fn retry(&self, key: UploadKey, scope: RetryScope) -> PortResult<Retried>;
    async fn claim_retried(&self, limit: u32) -> PortResult<Vec<RetriedBatch>>;
    async fn mark_published(&self, numbers: &[u64]) -> PortResult<()>;
}}

traced_port! { "store", ValidationStore for dyn Store {
    async fn validate(&self, trial: &Trial, batches: TrialBatches<'_>) -> PortResult<Tried> {
        rows = trial.rows_read
    };
}}

traced_port! { "store", MaintenanceStore for dyn Store {
    async fn leftovers(&self, lease: Duration, archive_grace: Duration) -> PortResult<Leftovers>;
    async fn expire(&self, key: UploadKey, lease: Duration) -> PortResult<bool>;
    async fn expire_rows(&self, older_than: Duration) -> PortResult<u64>;
    async fn remove_rows(&self, id: UploadId) -> PortResult<Removal>;
    async fn forget_previous(&self, older_than: Duration) -> PortResult<u64>;
    async fn archive_removed(&self, id: UploadId) -> PortResult<()>;
    async fn extend_landing(&self) -> PortResult<()>;
    async fn shrink_landing(&self) -> PortResult<bool>;
}}

traced_port! { "store", HoldStore for dyn Store {
    async fn hold(&self, uploads: &[UploadId]) -> PortResult<()>;
    async fn quiet_uploads(&self, quiet: Duration) -> PortResult<Vec<UploadKey>>;
    async fn mark_missing(&self, uploads: &[UploadKey]) -> PortResult<()>;
    async fn fail_lost(&self, key: UploadKey, quiet: Duration) -> PortResult<bool>;
}}

traced_port! { "store", KeyStore for dyn Store {
    async fn create_key(&self, key: &KeyRecord, digest: &KeyDigest) -> PortResult<()>;
    async fn key(&self, id: &KeyId) -> PortResult<Option<(KeyRecord, KeyDigest)>>;
    async fn keys(
        &self,
        tenant: Option<&Tenant>,
        after: Option<&KeyPosition>,
        limit: u32,
    ) -> PortResult<Vec<KeyRecord>>;
    async fn revoke_key(&self, id: &KeyId, tenant: Option<&Tenant>) -> PortResult<bool>;
}}

traced_port! { "store", TokenStore for dyn Store {
    async fn token_secret(&self, new: &TokenSecret) -> PortResult<TokenSecret>;
}}

traced_port! { "store", IdempotencyStore for dyn Store {
    async fn first_upload(&self, key: &IdempotencyKey) -> PortResult<Option<FirstUpload>>;
    async fn create_key_once(
        &self,
        key: &KeyRecord,
        digest: &KeyDigest,
        request: &IdempotentRequest,
        answer: &str,
    ) -> PortResult<bool>;
    async fn first_answer(&self, key: &IdempotencyKey) -> PortResult<Option<FirstAnswer>>;
    async fn forget_requests(&self) -> PortResult<u64>;
}}

traced_port! { "store", ObservationStore for dyn Store {
    async fn observe(&self) -> PortResult<Observation>;
    async fn reject_codes(&self, id: UploadId) -> PortResult<Vec<(String, u64)>>;
} plain {
    fn connection_use(&self) -> ConnectionUse {
        self.0.connection_use()
    }
}}

traced_port! { "store", QuotaStore for dyn Store {
    async fn usage(&self, tenant: &Tenant, lease: Duration) -> PortResult<Usage>;
    async fn forget_usage(&self) -> PortResult<u64>;
}}

traced_port! { "store", AuditStore for dyn Store {
    async fn record_audit(&self, tenant: &Tenant, action: Action, object: &str) -> PortResult<()>;
    async fn audit_entries(
        &self,
        tenant: Option<&Tenant>,
        after: u64,
        limit: u32,
    ) -> PortResult<Vec<AuditEntry>>;
    async fn forget_audit(&self, older_than: Duration) -> PortResult<u64>;
}}

traced_port! { "store", EventStore for dyn Store {
    async fn events(&self, query: &EventQuery) -> PortResult<Vec<ListedEvent>>;
    async fn claim_events(&self, limit: u32, lease: Duration) -> PortResult<Vec<ClaimedEvent>>;
    async fn events_sent(&self, numbers: &[u64]) -> PortResult<()>;
    async fn release_events(&self, numbers: &[u64]) -> PortResult<()>;
    async fn forget_events(&self, older_than: Duration) -> PortResult<ForgottenEvents>;
}}

traced_port! { "store", StoreConnection for dyn Store {
    async fn ping(&self) -> PortResult<()>;
    async fn installation(&self) -> PortResult<Uuid>;
} plain {
    async fn close(&self) {
        self.0.close().await;
    }
}}
