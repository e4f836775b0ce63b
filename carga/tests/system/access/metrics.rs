//! The metrics of a Carga that requires keys.

use anyhow::{Result, ensure};

use super::{ADMIN, closed_app, closed_harness, get, key_with};
use crate::answers::problem;
use crate::app::App;
use crate::harness::Mode;
use crate::metrics::{OWN_LISTENER, metrics_url, parse, scrape};

in_both_modes! {
    the_route_of_the_metrics_needs_a_key_with_scope_admin,
    the_listener_of_the_metrics_needs_no_key,
}

async fn the_route_of_the_metrics_needs_a_key_with_scope_admin(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    problem(get(&app, "/metrics", None).await?, 401, "missing_key").await?;
    problem(get(&app, "/metrics", Some("x")).await?, 401, "invalid_key").await?;
    let read = key_with(&app, "read").await?;
    let refused = get(&app, "/metrics", Some(&read)).await?;
    problem(refused, 403, "missing_scope").await?;
    let admin = key_with(&app, "admin").await?;
    let answer = get(&app, "/metrics", Some(&admin)).await?;
    ensure!(answer.status() == 200, "{answer:?}");
    let found = parse(&answer.text().await?)?;
    let checks = ["accepted", "missing", "invalid", "forbidden", "unavailable"].map(|outcome| {
        let series = format!("carga_authentications_total{{outcome=\"{outcome}\"}}");
        found.get(&series).copied().unwrap_or(-1.0)
    });
    // Two keys were made, and the metrics were read.
    ensure!(checks == [3.0, 1.0, 1.0, 1.0, 0.0], "{checks:?}");
    let from_store = found.get("carga_key_lookups_total{source=\"store\"}");
    ensure!(from_store == Some(&2.0), "{from_store:?}");
    for key in [&read, &admin] {
        let named = found.keys().find(|series| series.contains(&key[6..18]));
        ensure!(named.is_none(), "{named:?}");
    }
    app.close().await
}

async fn the_listener_of_the_metrics_needs_no_key(mode: Mode) -> Result<()> {
    let harness = closed_harness(mode).await?;
    let app = App::start(harness.with(OWN_LISTENER.0, OWN_LISTENER.1), 1).await?;
    for program in std::iter::once(&app.api).chain(&app.workers) {
        let found = scrape(&app, &metrics_url(program)?).await?;
        ensure!(found.contains_key("carga_process_start_time_seconds"));
    }
    problem(get(&app, "/metrics", None).await?, 401, "missing_key").await?;
    problem(get(&app, "/metrics", Some(ADMIN)).await?, 404, "not_found").await?;
    app.close().await
}
