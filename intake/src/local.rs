//! Receives local files through the same intake, without HTTP. Their uploads are of the tenant
//! `default`.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use carga_common::backends::Backends;
use carga_common::settings::IntakeSettings;
use carga_common::telemetry::continue_trace;
use carga_common::tenant::Tenant;
use carga_common::upload::{Upload, UploadId};
use futures::{Stream, TryStreamExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::incoming::Incoming;
use crate::intake::{Intake, upload_span};
use crate::options::Options;
use crate::pieces::{Pace, pieces};
use crate::refusal::Refusal;

/// A local file may be read at any pace, because a pipe may be silent for any length of time.
const ANY_PACE: Pace = Pace {
    idle: Duration::MAX,
    min_rate: 0,
};

/// A file to receive.
#[derive(Debug, Clone)]
pub struct LocalFile {
    /// The public id of the upload.
    pub id: UploadId,
    /// The name that is recorded for the file.
    pub filename: Option<String>,
    /// The size of the file, if it is known.
    pub bytes_total: Option<u64>,
    /// Options by name and value, as in a request's query.
    pub options: Vec<(String, String)>,
}

/// Receives local files.
#[derive(Debug)]
pub struct LocalIntake {
    intake: Intake,
    heartbeat: JoinHandle<()>,
}

impl LocalIntake {
    /// Starts the heartbeat. Cancelling `stop` fails the file that is being received.
    pub fn start(settings: &IntakeSettings, backends: Backends, stop: CancellationToken) -> Self {
        // `finish` waits for all removals, because no sweeper may run after this process.
        let mut intake = Intake::new(backends, settings.clone(), CancellationToken::new());
        intake.abort_uploads = stop;
        Self {
            heartbeat: tokio::spawn(intake.heartbeat()),
            intake,
        }
    }

    /// Receives a whole file. When it returns an upload, every batch is durable.
    pub async fn receive(
        &self,
        file: LocalFile,
        bytes: impl Stream<Item = io::Result<Bytes>> + Unpin + Send + 'static,
    ) -> Result<Upload, Refusal> {
        let mut options = Options::from_query(&file.options)?;
        options.default_filename(file.filename.as_deref());
        let bytes = bytes.map_err(|error| Refusal::unreadable(&error));
        let pieces = pieces(
            bytes,
            ANY_PACE,
            self.intake.crowding.clone(),
            self.intake.abort_uploads.clone(),
        );
        let tenant = Tenant::default();
        let span = upload_span(file.id, &tenant);
        let incoming = Incoming {
            id: file.id,
            tenant,
            created_by: None,
            token: None,
            sees_all: true,
            idempotency_key: None,
            options,
            bytes_total: file.bytes_total,
            trace: continue_trace(&span, None),
        };
        let receiving = self.intake.receive(incoming, pieces, async || Ok(()));
        receiving.instrument(span).await
    }

    /// Waits until the rows of failed uploads are removed.
    pub async fn finish(self) {
        self.intake.tasks.close();
        self.intake.tasks.wait().await;
        self.heartbeat.abort();
    }
}
