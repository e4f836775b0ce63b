//! The store port: the system of record.
//!
//! The port is divided by subject. Each subject is one trait whose module lists its promises, one
//! file with the same name in each adapter, and one file or folder with the same name in the
//! contract's cases. [`Store`] is the sum of the subjects: callers hold an `Arc<dyn Store>`.
//!
//! | Subject | Trait | What it keeps |
//! |---|---|---|
//! | `uploads` | [`UploadStore`] | records, leases, changes of status |
//! | `datasets` | [`DatasetStore`] | definitions of datasets, with their tables |
//! | `batches` | [`BatchStore`] | the ledger and the rows, guarded by the fence |
//! | `completion` | [`CompletionStore`] | the end of an upload whose rows are all accounted for |
//! | `rows` | [`RowStore`] | reading stored rows |
//! | `rejects` | [`RejectStore`] | rejected rows with their reasons |
//! | `dead_letters` | [`DeadLetterStore`] | batches that failed, and can be retried |
//! | `validation` | [`ValidationStore`] | nothing: trials of what an upload would do |
//! | `maintenance` | [`MaintenanceStore`] | work that remains after an end or a crash |
//! | `holds` | [`HoldStore`] | which uploads workers have batches of, and which miss batches |
//! | `keys` | [`KeyStore`] | API keys, without their secrets |
//! | `tokens` | [`TokenStore`] | the secret that signs tokens |
//! | `idempotency` | [`IdempotencyStore`] | the keys of requests that take effect once |
//! | `observation` | [`ObservationStore`] | nothing: what an operator watches |
//! | `quotas` | [`QuotaStore`] | how much each tenant uploads |
//! | `audit` | [`AuditStore`] | who has changed what |
//! | `events` | [`EventStore`] | what happened to uploads |
//! | `connection` | [`StoreConnection`] | the connection itself |
//!
//! # Promises of every call
//!
//! - An error names its operation, `store.` and the method's name, the same on every adapter.

mod audit;
mod batches;
mod completion;
mod connection;
mod creation;
mod datasets;
mod dead_letters;
mod events;
mod holds;
mod idempotency;
mod keys;
mod maintenance;
mod observation;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod paging;
#[cfg(feature = "postgres")]
mod postgres;
mod quotas;
mod rejects;
mod rows;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod rules;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tokens;
mod traced;
mod uploads;
mod validation;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod violations;

pub use audit::AuditStore;
pub use batches::{
    ArchivedBatch, BatchQuery, BatchRecord, BatchStatus, BatchStore, LedgerEntry, StoreOutcome,
};
pub use completion::{Completed, Completion, CompletionStore};
pub use connection::StoreConnection;
pub use creation::{CreateConditions, CreateOutcome};
pub use datasets::{DatasetStore, DeleteOutcome, PutOutcome};
pub use dead_letters::{
    BatchRows, DeadBatch, DeadLetter, DeadLetterStore, Parked, Retried, RetriedBatch, RetryScope,
};
pub use events::{EventQuery, EventStore, ForgottenEvents, ListedEvent};
pub use holds::HoldStore;
pub use idempotency::{FirstAnswer, FirstUpload, IdempotencyStore};
pub use keys::{KeyPosition, KeyStore};
pub use maintenance::{Leftovers, MaintenanceStore, Removal};
pub use observation::{
    ConnectionUse, MOST_DEAD_LETTERS, MOST_UNSENT_EVENTS, Observation, ObservationStore,
};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresSettings, PostgresStore};
// For `intake/benches/core.rs` alone.
#[cfg(feature = "postgres")]
#[doc(hidden)]
pub use postgres::copy;
pub use quotas::{QuotaStore, USAGE_KEPT_DAYS, UploadSlots, Usage};
pub use rejects::{RejectStore, rejected_rows};
pub use rows::{RowPage, RowStore, StoredRow, stored_rows};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteStore, SqliteStoreSettings};
pub use tokens::TokenStore;
pub use uploads::{Heartbeat, NewUpload, Seal, UploadQuery, UploadStore};
pub use validation::{
    Difference, FirstRejects, TRIAL_REJECT_BYTES, TRIAL_REJECTS, Trial, TrialBatches, TrialWarning,
    Tried, ValidationStore,
};

/// The system of record: every subject of the port.
pub trait Store:
    UploadStore
    + DatasetStore
    + BatchStore
    + CompletionStore
    + RowStore
    + RejectStore
    + DeadLetterStore
    + ValidationStore
    + MaintenanceStore
    + HoldStore
    + KeyStore
    + TokenStore
    + IdempotencyStore
    + ObservationStore
    + QuotaStore
    + AuditStore
    + EventStore
    + StoreConnection
{
}

impl<S> Store for S where
    S: UploadStore
        + DatasetStore
        + BatchStore
        + CompletionStore
        + RowStore
        + RejectStore
        + DeadLetterStore
        + ValidationStore
        + MaintenanceStore
        + HoldStore
        + KeyStore
        + TokenStore
        + IdempotencyStore
        + ObservationStore
        + QuotaStore
        + AuditStore
        + EventStore
        + StoreConnection
{
}
