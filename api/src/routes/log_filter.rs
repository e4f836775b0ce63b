//! `GET`, `PUT` and `DELETE /admin/log`: what this process logs.

use axum::Json;
use axum::extract::{Query, Request, State};
use carga_common::audit::{self, Action};
use carga_common::telemetry::LogFilter;
use carga_intake::refusal::{Refusal, RefusalKind};
use serde::{Deserialize, Serialize};
use tracing::Instrument;

use crate::caller::Caller;
use crate::json_body::{JsonBody, MAX_FIELDS_BYTES};
use crate::problem::ApiError;
use crate::query::no_options;
use crate::state::{ApiState, SharedState};

const FIELDS: JsonBody = JsonBody {
    content: "fields",
    max_bytes: MAX_FIELDS_BYTES,
    too_large: "log_filter_too_large",
};

/// The filter of this process.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = LogFilter))]
pub(crate) struct View {
    /// The filter in effect.
    filter: String,
    /// The filter of `CARGA_LOG`, to which a restart returns.
    configured: String,
}

/// The body of `PUT`. `null` stands for the filter of `CARGA_LOG`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema), schema(as = LogFilterRequest))]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// The new filter, in the form of `CARGA_LOG` and with at most 4 KiB. `None` restores the
    /// filter of `CARGA_LOG`.
    // Without this, a missing field would be `null`.
    #[serde(deserialize_with = "Option::deserialize")]
    filter: Option<String>,
}

pub(crate) async fn get(
    State(state): State<SharedState>,
    _caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<View>, ApiError> {
    no_options(&query)?;
    let filter = log_filter(&state)?;
    Ok(Json(view(filter, filter.current())))
}

pub(crate) async fn put(
    State(state): State<SharedState>,
    caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Json<View>, ApiError> {
    no_options(&query)?;
    let filter = log_filter(&state)?.clone();
    let Change { filter: wanted } = read(&state, request).await?;
    change(state, filter, caller, wanted).await
}

pub(crate) async fn delete(
    State(state): State<SharedState>,
    caller: Caller,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<View>, ApiError> {
    no_options(&query)?;
    let filter = log_filter(&state)?.clone();
    change(state, filter, caller, None).await
}

/// Changes the filter and records the change in a task of its own. Otherwise, a client that
/// disconnects could prevent the entry in the audit log.
async fn change(
    state: SharedState,
    filter: LogFilter,
    caller: Caller,
    wanted: Option<String>,
) -> Result<Json<View>, ApiError> {
    let tasks = state.intake.tasks.clone();
    let changing = async move {
        let changed = match &wanted {
            Some(wanted) => filter.set(wanted).map_err(|fault| malformed(&fault))?,
            None => filter.reset(),
        };
        record(&state, &caller, &changed).await;
        Ok::<_, Refusal>(Json(view(&filter, changed)))
    };
    let changing = audit::inherited(changing).in_current_span();
    let changed = tasks.spawn(changing).await.unwrap_or_else(|panic| {
        tracing::error!(%panic, "changing the log filter panicked");
        Err(Refusal::internal())
    });
    Ok(changed?)
}

/// Logs and records a change. The change is made even if it cannot be recorded, because the log may
/// be needed to find out why.
async fn record(state: &ApiState, caller: &Caller, filter: &str) {
    tracing::warn!(filter, sender = %caller, "the log filter was changed");
    let store = state.backends().store.as_ref();
    let recorded = store.record_audit(&caller.tenant, Action::ChangeLog, filter);
    if let Err(error) = recorded.await {
        let error = error.chain();
        tracing::warn!(
            error,
            "the change of the log filter is not in the audit log"
        );
    }
}

/// `in_effect` is the filter that a change has just put into effect, even if another change has
/// followed.
fn view(filter: &LogFilter, in_effect: String) -> View {
    View {
        filter: in_effect,
        configured: filter.configured().to_owned(),
    }
}

/// The filter that the program has given to the server.
fn log_filter(state: &ApiState) -> Result<&LogFilter, Refusal> {
    state.log_filter.as_ref().ok_or_else(|| {
        let message = "this program does not let its log filter be changed";
        Refusal::new(RefusalKind::NotFound, "not_found", message)
    })
}

async fn read(state: &ApiState, request: Request) -> Result<Change, Refusal> {
    let (parts, body) = request.into_parts();
    FIELDS.check_headers(&parts.headers)?;
    let body = FIELDS.read(body, state.settings().body_idle).await?;
    parse(&body)
}

fn parse(body: &[u8]) -> Result<Change, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        malformed(&format!(
            "{error}; send `{{\"filter\": \"info,carga_api=debug\"}}`, or null to go back to CARGA_LOG"
        ))
    })
}

fn malformed(fault: &dyn std::fmt::Display) -> Refusal {
    Refusal::unprocessable("malformed_log_filter", fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_or_null_is_read_and_anything_else_is_refused_with_an_example() {
        let filter = |body: &str| parse(body.as_bytes()).map(|change| change.filter);
        assert_eq!(
            filter(r#"{"filter": "info"}"#).unwrap().as_deref(),
            Some("info")
        );
        assert_eq!(filter(r#"{"filter": null}"#).unwrap(), None);
        for body in [
            "",
            "{}",
            "[]",
            r#"{"filter": 1}"#,
            r#"{"filter": "a", "b": 1}"#,
        ] {
            let refusal = filter(body).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::Unprocessable, "{body}");
            assert_eq!(refusal.failure.code, "malformed_log_filter");
            let message = refusal.failure.message;
            assert!(message.contains("carga_api=debug"), "{message}");
        }
    }
}
