//! Polling shows correct figures at every moment.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::answers::check_accounts;
use crate::app::App;
use crate::files::{FLIGHTS_ROWS, flights, paced};
use crate::harness::Mode;

in_both_modes! {
    polled_figures_grow_and_never_decrease,
}

/// Figures that must never decrease while an upload succeeds.
pub(crate) const ALL_FIGURES: &[(&str, &str)] = &[
    ("rows", "read"),
    ("rows", "inserted"),
    ("bytes", "received"),
    ("batches", "stored"),
];

/// What a poller has observed.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) statuses: Vec<String>,
    pub(crate) reads: BTreeSet<u64>,
    pub(crate) degraded: bool,
}

/// Polls until the upload has ended. Fails if a figure decreases or the row counts do not add up.
pub(crate) fn poll(
    app: &App,
    id: Uuid,
    figures: &'static [(&str, &str)],
) -> JoinHandle<Result<Seen>> {
    let (client, url) = (app.client.clone(), format!("{}/uploads/{id}", app.url));
    tokio::spawn(async move {
        let mut seen = Seen::default();
        let mut last: Option<Value> = None;
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let answer = client.get(&url).send().await?;
            if answer.status() == 404 {
                ensure!(last.is_none(), "the upload existed and has vanished");
                continue;
            }
            let terminal = answer.headers().get("retry-after").is_none();
            let upload: Value = answer.error_for_status()?.json().await?;
            check_accounts(&upload)?;
            if let Some(last) = &last {
                for (group, figure) in figures {
                    let (before, now) =
                        (last[group][figure].as_u64(), upload[group][figure].as_u64());
                    ensure!(
                        before <= now,
                        "{group}.{figure} decreased from {before:?} to {now:?}"
                    );
                }
            }
            let status = upload["status"].as_str().context("no status")?;
            if seen.statuses.last().is_none_or(|last| last != status) {
                seen.statuses.push(status.to_owned());
            }
            if status == "receiving" {
                seen.reads.extend(upload["rows"]["read"].as_u64());
                ensure!(
                    upload["percent"].is_null() && upload["batches"]["total"].is_null(),
                    "{upload}"
                );
            }
            seen.degraded |= upload["degraded"] == serde_json::json!(["progress"]);
            if !upload["finished_at"].is_null() {
                ensure!(terminal);
                return Ok(seen);
            }
            last = Some(upload);
        }
    })
}

async fn polled_figures_grow_and_never_decrease(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 2).await?;
    let id = Uuid::now_v7();
    let poller = poll(&app, id, ALL_FIGURES);
    let answer = app.put(id, paced(flights().await?, 8_000_000)).await?;
    ensure!(answer.status() == 202);
    let seen = poller.await??;
    ensure!(
        seen.statuses == ["receiving", "processing", "completed"],
        "{:?}",
        seen.statuses
    );
    ensure!(
        seen.reads.len() >= 5,
        "too few values seen: {:?}",
        seen.reads
    );
    ensure!(!seen.degraded);
    app.expect_completed(id, FLIGHTS_ROWS).await?;
    app.close().await
}
