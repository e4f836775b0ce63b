//! Asks the dependencies whether they answer.

use std::time::Duration;

use carga_common::backends::Backends;
use carga_common::error::PortResult;

use crate::limits::Limits;

/// A dependency that takes longer to answer counts as unavailable.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Which dependencies answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    pub(crate) store: bool,
    pub(crate) queue: bool,
    pub(crate) archive: bool,
    pub(crate) progress: bool,
    /// `None` if no rate limiter is shared.
    pub(crate) limits: Option<bool>,
}

pub(crate) async fn ask_all(backends: Backends, limits: Limits) -> Answered {
    let (store, queue, archive, progress, limits) = tokio::join!(
        is_available(backends.store.ping()),
        is_available(backends.queue.ping()),
        is_available(backends.archive.ping()),
        is_available(backends.progress_store.ping()),
        limits.are_shared(),
    );
    Answered {
        store,
        queue,
        archive,
        progress,
        limits,
    }
}

async fn is_available(ping: impl Future<Output = PortResult<()>>) -> bool {
    match tokio::time::timeout(PING_TIMEOUT, ping).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(error = error.chain(), "a dependency is unavailable");
            false
        }
        Err(_) => false,
    }
}
