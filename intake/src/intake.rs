//! Receives uploads: the state that they share in a process, and the steps from the first byte
//! to the seal.

use std::sync::Arc;

use bytes::Bytes;
use carga_common::audit;
use carga_common::backends::Backends;
use carga_common::dataset::Dataset;
use carga_common::error::ErrorKind;
use carga_common::lifecycle::remove_rows;
use carga_common::metrics::Exposition;
use carga_common::replay::replay;
use carga_common::settings::{IntakeSettings, TenantQuota};
use carga_common::store::{CreateOutcome, NewUpload};
use carga_common::telemetry;
use carga_common::tenant::Tenant;
use carga_common::upload::{Dialect, Upload, UploadDataset, UploadId};
use futures::Stream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, field};

use crate::crowding::Crowding;
use crate::decompress::Decompressor;
use crate::file_rows::{FileRows, find_dataset};
use crate::heartbeat::{ActiveUploads, run_heartbeat};
use crate::incoming::{Incoming, key_taken, record};
use crate::metrics::{self, IntakeMetrics};
use crate::open::{csv_limits, open};
use crate::options::Options;
use crate::pieces::interrupted;
use crate::quota::{Allowance, no_slot};
use crate::refusal::Refusal;
use crate::removals::Removals;
use crate::size_limit::SizeLimit;
use crate::source::FileSource;
use crate::validation::{Validation, Validator};

/// How many merges run at the same time. Many uploads may end together, and their merges must leave
/// database connections for new uploads.
const MERGES_AT_ONCE: usize = 2;

/// Receives uploads; one per process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Intake {
    /// The ports.
    pub backends: Backends,
    /// Limits and deadlines.
    pub settings: Arc<IntakeSettings>,
    /// How much each tenant may upload; no limit by default.
    pub quota: TenantQuota,
    /// Tasks that outlive their request. A client that disconnects must not interrupt a seal,
    /// and no client waits for the removal of rows.
    pub tasks: TaskTracker,
    /// Cancelled when the grace period is over. Uploads that are still in flight then fail.
    pub abort_uploads: CancellationToken,
    /// The slots of uploads that may be received at the same time.
    pub crowding: Crowding,
    /// The uploads whose leases are renewed.
    active: Arc<ActiveUploads>,
    /// One permit per byte of unconfirmed batches. All uploads share them in the order of their
    /// requests.
    pub(crate) publish_budget: Arc<Semaphore>,
    /// The removals of rows, a few at a time.
    pub(crate) removals: Removals,
    /// One permit per merge that runs at the same time.
    pub(crate) merges: Arc<Semaphore>,
    /// Validates files that are not stored.
    pub validator: Validator,
    pub(crate) metrics: Arc<IntakeMetrics>,
}

/// The span of an upload of this tenant with this public id. Workers log the id in the database,
/// which the upload gets when it is created.
pub(crate) fn upload_span(id: UploadId, tenant: &Tenant) -> Span {
    tracing::info_span!(
        "upload",
        upload.public_id = %id,
        upload.id = field::Empty,
        %tenant,
        trace.id = field::Empty,
        rows = field::Empty,
        bytes = field::Empty,
    )
}

impl Intake {
    /// An intake. Its heartbeat does not run before [`Self::heartbeat`] is polled. Once `stopping`
    /// is cancelled, the sweeper does the removals of rows that have not begun.
    pub fn new(backends: Backends, settings: IntakeSettings, stopping: CancellationToken) -> Self {
        let settings = Arc::new(settings);
        let store = Arc::clone(&backends.store);
        let metrics = Arc::new(IntakeMetrics::new());
        Self {
            publish_budget: Arc::new(Semaphore::new(settings.publish_budget_bytes)),
            crowding: Crowding::new(settings.max_uploads),
            validator: Validator::new(Arc::clone(&settings), Some(store)),
            settings,
            quota: TenantQuota::default(),
            backends,
            tasks: TaskTracker::new(),
            abort_uploads: CancellationToken::new(),
            active: Arc::new(ActiveUploads::new(Arc::clone(&metrics))),
            removals: Removals::new(stopping),
            merges: Arc::new(Semaphore::new(MERGES_AT_ONCE)),
            metrics,
        }
    }

    /// Shows the requests that wait for a slot, and the use of the publish budget.
    pub fn watch(&self, exposition: &Exposition) {
        let bytes = self.settings.publish_budget_bytes;
        let budget = Arc::clone(&self.publish_budget);
        metrics::watch(exposition, self.crowding.clone(), budget, bytes);
    }

    /// Renews the leases of all uploads while it is polled.
    pub fn heartbeat(&self) -> impl Future<Output = ()> + Send + 'static {
        let every = self.settings.heartbeat;
        run_heartbeat(Arc::clone(&self.active), self.backends.clone(), every)
    }

    /// Removes the rows of an upload that ended without keeping them, in the background.
    pub fn remove_rows_later(&self, id: UploadId) {
        let store = Arc::clone(&self.backends.store);
        let removals = self.removals.clone();
        self.tasks.spawn(async move {
            let removal = remove_rows(store.as_ref(), id);
            removals.run(id, removal).await;
        });
    }

    /// Publishes the dead letters that were retried, in the background.
    pub fn replay_later(&self) {
        let backends = self.backends.clone();
        self.tasks.spawn(async move {
            if let Err(error) = replay(&backends).await {
                tracing::warn!(
                    error = error.chain(),
                    "could not publish the dead letters that were retried; a worker will publish them"
                );
            }
        });
    }

    /// Runs `receiving` to its end on its own task, even if the client disconnects. `id` is the
    /// public id of the upload, and `tenant` its tenant.
    pub async fn run_to_end(
        &self,
        id: UploadId,
        tenant: &Tenant,
        receiving: impl Future<Output = Result<Upload, Refusal>> + Send + 'static,
    ) -> Result<Upload, Refusal> {
        let receiving = audit::inherited(receiving).instrument(upload_span(id, tenant));
        let received = self.tasks.spawn(receiving).await;
        let received = received.unwrap_or_else(|panic| {
            tracing::error!(%panic, "receiving an upload panicked");
            Err(Refusal::internal())
        });
        received.inspect_err(|refusal| self.metrics.count_quota(refusal))
    }

    /// Runs a validation as a part of the work that an orderly stop of the process waits for. Once
    /// the grace period is over, the validation is refused.
    pub async fn run_validation(
        &self,
        validating: impl Future<Output = Result<Validation, Refusal>>,
    ) -> Result<Validation, Refusal> {
        let validating = self.tasks.track_future(validating);
        let ended = self.abort_uploads.run_until_cancelled(validating).await;
        ended.unwrap_or_else(|| Err(interrupted()))
    }

    /// Receives a file from its first byte to the seal. When it returns an upload, every batch
    /// is durable. `end` checks that the request ends with the file.
    pub async fn receive(
        &self,
        incoming: Incoming,
        pieces: impl Stream<Item = Result<Bytes, Refusal>> + Unpin + Send,
        end: impl AsyncFnOnce() -> Result<(), Refusal>,
    ) -> Result<Upload, Refusal> {
        let settings = &self.settings;
        let (tenant, bytes_total) = (&incoming.tenant, incoming.bytes_total);
        let allowance = self.left(tenant, bytes_total).await?;
        // Before the file is read, so that a wrong option costs the client no transfer.
        let store = self.backends.store.as_ref();
        let found = find_dataset(store, &incoming.tenant, &incoming.options).await?;
        let max_bytes = incoming.token.as_ref().and_then(|token| token.max_bytes);
        let limit = SizeLimit::of(settings).with_token(max_bytes);
        let source = FileSource::new(pieces, limit).within(allowance);
        let mut file = Decompressor::open(source, settings.limits).await?;
        let limits = csv_limits(&settings.limits);
        let (reader, dialect) = open(&mut file, incoming.options.csv.clone(), limits).await?;
        let columns = reader.columns().to_vec();
        let (options, kept) = (&incoming.options, settings.limits.rejects);
        let rows = FileRows::checked(store, reader, &dialect, found.as_ref(), options, kept);
        let (rows, dataset) = rows.await?;
        let upload = self.create(&incoming, columns, dialect, dataset).await?;
        let span = Span::current();
        span.record("upload.id", field::display(upload.id));

        let active = self.active.register(upload.key());
        file.source().report_to(Arc::clone(&active.figures));
        let Incoming { options, trace, .. } = incoming;
        // The batches belong to the span of the upload, if spans are sent.
        let trace = telemetry::of_span(&span).unwrap_or(trace);
        let sealed = async {
            let policy = options.policy;
            let seal = self
                .publish_rows(rows, file, &upload, &active, policy, &trace)
                .await?;
            // `publish_rows` has dropped the file's part, so the rest of the form can be read.
            end().await?;
            span.record("rows", seal.rows).record("bytes", seal.bytes);
            options.check_sha256(seal.sha256)?;
            let seal = self
                .check_duplicate(&upload, seal, options.on_duplicate)
                .await?;
            self.seal(&upload, &seal).await
        };
        match sealed.await {
            Ok(sealed) => Ok(self.finish(sealed).await),
            Err(refusal) => self.fail(upload, &active, refusal).await,
        }
    }

    /// The dataset of the tenant that the options name, with the definition for the cells of this
    /// file. It must exist, have a key if the mode needs one, and take the options for cells.
    pub async fn dataset(
        &self,
        tenant: &Tenant,
        options: &Options,
    ) -> Result<Option<Dataset>, Refusal> {
        find_dataset(self.backends.store.as_ref(), tenant, options).await
    }

    /// Refuses a file if its tenant may send nothing more today, if the file has more bytes than
    /// are left, or if the tenant has no free slot for an upload.
    pub async fn check_quota(
        &self,
        tenant: &Tenant,
        bytes_total: Option<u64>,
    ) -> Result<(), Refusal> {
        let left = self.left(tenant, bytes_total).await;
        left.map(|_| ())
            .inspect_err(|refusal| self.metrics.count_quota(refusal))
    }

    /// What a tenant may still send today. Refuses like [`Self::check_quota`].
    async fn left(&self, tenant: &Tenant, bytes_total: Option<u64>) -> Result<Allowance, Refusal> {
        if !self.quota.is_limited() {
            return Ok(Allowance::default());
        }
        let store = &self.backends.store;
        let usage = store.usage(tenant, self.quota.lease).await?;
        Allowance::of(&self.quota, tenant, usage, bytes_total)
    }

    async fn create(
        &self,
        incoming: &Incoming,
        columns: Vec<String>,
        dialect: Dialect,
        dataset: Option<UploadDataset>,
    ) -> Result<Upload, Refusal> {
        let id = incoming.id;
        let new = NewUpload {
            id,
            tenant: incoming.tenant.clone(),
            created_by: incoming.created_by.clone(),
            filename: incoming.options.filename.clone(),
            dialect,
            columns,
            dataset,
            bytes_total: incoming.bytes_total,
        };
        let store = self.backends.store.as_ref();
        match record(store, &new, incoming, &self.quota).await {
            Ok(CreateOutcome::Created(upload)) => Ok(*upload),
            Ok(CreateOutcome::KeyTaken) => Err(key_taken(store, incoming).await),
            Ok(CreateOutcome::TokenUsedUp) => {
                let token = incoming.token.as_ref();
                Err(token.map_or_else(Refusal::internal, Refusal::token_used_up))
            }
            Ok(CreateOutcome::NoSlot) => {
                let most = self.quota.uploads.unwrap_or_default();
                Err(no_slot(&incoming.tenant, most))
            }
            // Another request of this tenant has created this id first.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let other = store.upload_of(&incoming.tenant, id).await?;
                let seen = other.filter(|upload| incoming.may_see(upload));
                Err(Refusal::id_used(id, seen.map(|upload| upload.status)))
            }
            // The dataset was deleted while the header was read.
            Err(error) if error.kind() == ErrorKind::NotFound => match &new.dataset {
                Some(dataset) => Err(Refusal::no_such_dataset(&dataset.name)),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }
}
