//! The state that the handlers share.

use std::sync::Arc;

use carga_common::backends::Backends;
use carga_common::dataset::{Dataset, DatasetKey, DatasetName};
use carga_common::metrics::Exposition;
use carga_common::settings::{Authentication, IntakeSettings, TenantQuota};
use carga_common::telemetry::LogFilter;
use carga_common::upload::{Upload, UploadId};
use carga_intake::crowding::UploadSlot;
use carga_intake::intake::Intake;
use carga_intake::refusal::{Refusal, RefusalKind};
use tokio_util::sync::CancellationToken;

use crate::access::{Access, JwtVerifier};
use crate::caller::Caller;
use crate::limits::Limits;
use crate::readiness::Answered;
use crate::shared_check::SharedCheck;

/// The state as handlers get it. A request clones what its handler gets once for each layer, so
/// that is a single pointer.
pub(crate) type SharedState = Arc<ApiState>;

/// The shared state; one per process.
#[derive(Debug)]
pub(crate) struct ApiState {
    pub(crate) intake: Intake,
    /// Who may send requests.
    pub(crate) access: Access,
    /// How many requests each client may send.
    pub(crate) limits: Limits,
    /// Cancelled when the server stops. New uploads are refused from then on.
    pub(crate) draining: CancellationToken,
    /// The last answers of the dependencies.
    pub(crate) readiness: SharedCheck<Answered>,
    /// What `/metrics` shows; `None` if that route does not exist here.
    pub(crate) exposition: Option<Exposition>,
    /// What this process logs; `None` if the program does not let it be changed.
    pub(crate) log_filter: Option<LogFilter>,
}

impl ApiState {
    pub(crate) fn new(
        backends: Backends,
        settings: IntakeSettings,
        authentication: &Authentication,
        jwt: Option<JwtVerifier>,
        draining: CancellationToken,
    ) -> Self {
        Self {
            access: Access::new(authentication, jwt, &backends.store),
            limits: Limits::default(),
            intake: Intake::new(backends, settings, draining.clone()),
            draining,
            readiness: SharedCheck::default(),
            exposition: None,
            log_filter: None,
        }
    }

    /// Limits the requests of clients, and what each tenant uploads.
    pub(crate) fn limited(mut self, limits: Limits, quota: TenantQuota) -> Self {
        self.limits = limits;
        self.intake.quota = quota;
        self
    }

    pub(crate) fn backends(&self) -> &Backends {
        &self.intake.backends
    }

    pub(crate) fn settings(&self) -> &IntakeSettings {
        &self.intake.settings
    }

    /// Reads the record of an upload of the caller by its public id. The refusal is the same for an
    /// unknown id, for an upload of another tenant, and for an upload of another key if the caller
    /// may use the route only for its own.
    pub(crate) async fn upload(&self, caller: &Caller, id: UploadId) -> Result<Upload, Refusal> {
        let upload = self.backends().store.upload_of(&caller.tenant, id).await?;
        let upload = upload.filter(|upload| !caller.only_own || caller.has_sent(upload));
        upload.ok_or_else(|| Refusal::no_such_upload(id))
    }

    /// Reads a dataset of the caller. An unknown name is refused.
    pub(crate) async fn dataset(
        &self,
        caller: &Caller,
        name: &DatasetName,
    ) -> Result<Dataset, Refusal> {
        let key = DatasetKey::new(caller.tenant.clone(), name.clone());
        let dataset = self.backends().store.dataset(&key).await?;
        dataset.ok_or_else(|| Refusal::no_such_dataset(name))
    }

    /// Refuses a request if the server is stopping.
    pub(crate) fn refuse_when_stopping(&self) -> Result<(), Refusal> {
        match self.draining.is_cancelled() {
            true => Err(Refusal::unavailable(
                "stopping",
                "the server is stopping; retry later",
            )),
            false => Ok(()),
        }
    }

    /// Takes a slot to receive an upload, or refuses if all stay taken.
    pub(crate) async fn upload_slot(&self) -> Result<UploadSlot, Refusal> {
        self.intake.crowding.slot().await.ok_or_else(|| {
            let limit = self.settings().max_uploads as u64;
            let message = format!("already receiving {limit} uploads, the most allowed (CARGA_MAX_UPLOADS); retry later");
            let refusal = Refusal::new(RefusalKind::TooMany, "too_many_uploads", message);
            refusal.exceeding(limit, limit + 1).retry_after(2)
        })
    }
}
