//! Limits on the requests of clients, and on what a tenant uploads.

mod requests;
mod tenants;

use anyhow::{Context, Result, bail, ensure};
use carga_testkit::eventually;
use reqwest::Response;

use crate::access::{closed_harness, get};
use crate::app::{App, TIMEOUT};
use crate::harness::Mode;

/// More requests than any limit of a test.
const MANY: u32 = 300;

/// A Carga that requires keys, and that has only these limits. If several APIs could share them,
/// Redis counts the requests from the first one on.
async fn limited_app(mode: Mode, workers: usize, settings: &[(&str, &str)]) -> Result<App> {
    let mut harness = closed_harness(mode).await?;
    for (name, value) in settings {
        harness = harness.with(name, value);
    }
    let app = App::start(harness, workers).await?;
    let limits_requests = settings
        .iter()
        .any(|(name, _)| name.starts_with("CARGA_LIMIT_"));
    if limits_requests && matches!(mode, Mode::Distributed) {
        wait_for_limits(&app, "ok").await?;
    }
    Ok(app)
}

/// Waits until `/readyz` shows this state of the shared limits.
pub(crate) async fn wait_for_limits(app: &App, state: &str) -> Result<()> {
    let what = format!("the shared limits to be {state}");
    eventually(TIMEOUT, &what, async || {
        let ready = app.get("/readyz").await;
        ready.is_ok_and(|(_, ready)| ready["dependencies"]["limits"] == state)
    })
    .await
}

/// Lists uploads until a limit refuses it. Returns the number of requests before that one, which
/// have this status, and the refusal.
pub(crate) async fn until_refused(app: &App, key: &str, status: u16) -> Result<(u32, Response)> {
    for admitted in 0..MANY {
        let answer = get(app, "/uploads", Some(key)).await?;
        if answer.status() == 429 {
            return Ok((admitted, answer));
        }
        ensure!(answer.status() == status, "{}", answer.text().await?);
    }
    bail!("{MANY} requests were admitted")
}

fn header<'a>(answer: &'a Response, name: &str) -> Result<&'a str> {
    let value = answer.headers().get(name);
    let value = value.with_context(|| format!("no header `{name}`"))?;
    Ok(value.to_str()?)
}
