//! A file that comes from this machine instead of over HTTP: the same way from its first byte to the seal.

use std::io;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderMap;
use carga_common::backends::Backends;
use carga_common::settings::Settings;
use carga_common::upload::{Upload, UploadId};
use futures::{Stream, TryStreamExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::live;
use super::options::Options;
use super::{Intake, body};
use crate::problem::{ApiError, Refusal};
use crate::state::ApiState;

/// A pipe may be silent for as long as it likes.
const NEVER: Duration = Duration::MAX;

/// A file to receive.
#[derive(Debug, Clone)]
pub struct LocalFile {
    /// The upload it becomes.
    pub id: UploadId,
    /// The name to keep for it.
    pub filename: Option<String>,
    /// Its size, where it is known.
    pub bytes_total: Option<u64>,
    /// Options by name, as in a request's query.
    pub options: Vec<(String, String)>,
}

/// Receives files without HTTP.
#[derive(Debug)]
pub struct LocalIntake {
    state: ApiState,
    stop: CancellationToken,
    heartbeat: JoinHandle<()>,
}

impl LocalIntake {
    /// `stop` fails the file at hand.
    pub fn start(settings: &Settings, backends: Backends, stop: CancellationToken) -> Self {
        let every = settings.intake.heartbeat;
        let state = ApiState::new(backends, settings.intake.clone(), stop.clone());
        let heartbeat = live::beat_forever(state.live.clone(), state.backends.clone(), every);
        Self {
            heartbeat: tokio::spawn(heartbeat),
            state,
            stop,
        }
    }

    /// Receives a file to its end: when this returns an upload, every batch of it is durable.
    pub async fn receive(
        &self,
        file: LocalFile,
        pieces: impl Stream<Item = io::Result<Bytes>> + Unpin + Send + 'static,
    ) -> Result<Upload, ApiError> {
        let mut options = Options::from_query(&file.options)?;
        options.default_filename(file.filename.as_deref());
        let intake = Intake {
            state: self.state.clone(),
            id: file.id,
            options,
            headers: HeaderMap::new(),
        };
        let pieces = pieces.map_err(|error| unreadable(&error));
        let pieces = body::pieces(pieces, NEVER, self.stop.clone());
        let upload = intake.load(pieces, file.bytes_total, async || Ok(()));
        upload.await
    }

    /// Waits for what goes on behind: rows of a failed upload that are being removed.
    pub async fn finish(self) {
        self.state.tasks.close();
        self.state.tasks.wait().await;
        self.heartbeat.abort();
    }
}

pub(super) fn unreadable(error: &io::Error) -> Refusal {
    let message = format!("the file cannot be read: {error}; nothing of it is kept");
    Refusal::unprocessable("unreadable_file", message)
}
