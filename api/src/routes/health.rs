//! `GET /livez` and `GET /readyz`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use carga_common::error::PortResult;
use serde::Serialize;

use crate::problem::ApiError;
use crate::query::no_options;
use crate::state::ApiState;

/// A dependency that takes longer to answer counts as unavailable.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers while the process runs. It asks no dependency, so that an outage elsewhere does not
/// restart this process.
pub(crate) async fn live(
    Query(query): Query<Vec<(String, String)>>,
) -> Result<&'static str, ApiError> {
    no_options(&query)?;
    Ok("ok\n")
}

#[derive(Debug, Serialize)]
struct Readiness {
    status: &'static str,
    dependencies: BTreeMap<&'static str, &'static str>,
}

/// Reports whether uploads are accepted. Receiving needs the store and the queue only. Without live
/// counters, figures come from the store. Without the archive, workers wait.
pub(crate) async fn ready(
    State(state): State<ApiState>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    no_options(&query)?;
    let backends = state.backends();
    let (store, queue, archive, progress) = tokio::join!(
        is_available(backends.store.ping()),
        is_available(backends.queue.ping()),
        is_available(backends.archive.ping()),
        is_available(backends.progress_store.ping()),
    );
    let draining = state.draining.is_cancelled();
    let ready = store && queue && !draining;
    let status = match (ready, draining, archive && progress) {
        (_, true, _) => "draining",
        (false, _, _) => "unavailable",
        (true, _, false) => "degraded",
        (true, _, true) => "ready",
    };
    let label = |up: bool| if up { "ok" } else { "unavailable" };
    let dependencies = [
        ("store", store),
        ("queue", queue),
        ("archive", archive),
        ("progress", progress),
    ];
    let body = Readiness {
        status,
        dependencies: dependencies.map(|(name, up)| (name, label(up))).into(),
    };
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok((code, Json(body)).into_response())
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
