//! `GET /livez` and `GET /readyz`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use carga_intake::refusal::Refusal;
use serde::Serialize;

use crate::problem::ApiError;
use crate::query::no_options;
use crate::readiness::{Answered, ask_all};
use crate::state::SharedState;

/// Answers while the process runs. It asks no dependency, so that an outage elsewhere does not
/// restart this process.
pub(crate) async fn live(
    Query(query): Query<Vec<(String, String)>>,
) -> Result<&'static str, ApiError> {
    no_options(&query)?;
    Ok("ok\n")
}

/// Whether uploads are accepted.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct Readiness {
    /// `ready`, `degraded`, `unavailable` or `draining`.
    status: &'static str,
    /// `ok` or `unavailable` for each dependency. `limits` is present only if several APIs share
    /// the rate limits.
    dependencies: BTreeMap<&'static str, &'static str>,
}

/// Reports whether uploads are accepted. Receiving needs the store and the queue only. Without live
/// counters, figures come from the store. Without the archive, workers wait. Without the shared
/// rate limiter, each process counts alone. Everybody may send this request, so all requests share
/// one check of the dependencies.
pub(crate) async fn ready(
    State(state): State<SharedState>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    no_options(&query)?;
    let checking = ask_all(state.backends().clone(), state.limits.clone());
    let Answered {
        store,
        queue,
        archive,
        progress,
        limits,
    } = state
        .readiness
        .answer(checking)
        .await
        .ok_or_else(Refusal::internal)?;
    let draining = state.draining.is_cancelled();
    let ready = store && queue && !draining;
    let status = match (
        ready,
        draining,
        archive && progress && limits != Some(false),
    ) {
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
    // Without a shared limiter, there is nothing that could be away.
    let limits = limits.map(|up| ("limits", up));
    let dependencies = dependencies.into_iter().chain(limits);
    let body = Readiness {
        status,
        dependencies: dependencies.map(|(name, up)| (name, label(up))).collect(),
    };
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok((code, Json(body)).into_response())
}
