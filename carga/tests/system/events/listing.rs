//! `GET /events`, in both modes.

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use futures::future::try_join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{histories, read_on};
use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::files::{csv, paced};
use crate::harness::Mode;

in_both_modes! {
    each_change_of_a_status_leaves_one_event_in_order,
    a_reader_misses_no_event_while_uploads_end,
    a_reader_goes_on_after_a_restart,
    a_worker_deletes_events_that_are_old,
}

/// Sends a file. Fails unless its upload ends with this status.
async fn end_as(app: &App, status: &str, options: &str, file: &str) -> Result<Uuid> {
    let id = Uuid::now_v7();
    app.put_with(id, options, file.to_owned()).await?;
    let upload = app.wait_until_ended(id).await?;
    ensure!(upload["status"] == status, "{upload}");
    Ok(id)
}

async fn post(app: &App, id: Uuid, verb: &str) -> Result<()> {
    let post = app.client.post(format!("{}/uploads/{id}/{verb}", app.url));
    let answer = post.send().await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    Ok(())
}

async fn each_change_of_a_status_leaves_one_event_in_order(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let (status, first) = app.get("/events").await?;
    ensure!(
        status == 200 && first == json!({ "events": [], "next": "0" }),
        "{first}"
    );
    let completed = end_as(&app, "completed", "", &csv(1200)).await?;
    let partial = end_as(&app, "partial", "", "a,b\n1,2\n3\n4,5\n").await?;
    let failed = end_as(&app, "failed", "on_error=abort", "a,b\n1,2\n3\n").await?;
    let cancelled = Uuid::now_v7();
    // Sending takes more than a minute.
    let sending = app.start_sending(cancelled, paced(csv(50_000), 20_000));
    app.wait_until_begun(cancelled).await?;
    post(&app, cancelled, "cancel").await?;
    problem(sending.await??, 409, "cancelled").await?;
    let undone = end_as(&app, "completed", "", &csv(3)).await?;
    for _ in 0..2 {
        post(&app, undone, "undo").await?;
    }
    let (events, _) = read_on(&app, "0", 100).await?;
    let (in_pages, _) = read_on(&app, "0", 3).await?;
    ensure!(in_pages == events);
    let found = histories(&events)?;
    for (id, expected) in [
        (completed, &["receiving", "processing", "completed"][..]),
        (partial, &["receiving", "processing", "partial"]),
        (failed, &["receiving", "failed"]),
        (cancelled, &["receiving", "cancelled"]),
        (undone, &["receiving", "processing", "completed", "undone"]),
    ] {
        let history = found.get(&id.to_string()).context("no event")?;
        ensure!(history == expected, "{history:?} instead of {expected:?}");
        let of_upload: Vec<&Value> = events
            .iter()
            .filter(|event| event["upload"] == id.to_string())
            .collect();
        ensure!(of_upload.len() == expected.len(), "{of_upload:#?}");
        // The last event has the figures of the upload, and the first one has none.
        let upload = app.upload(id).await?.context("no upload")?;
        let last = of_upload.last().context("no event")?;
        if id != cancelled {
            ensure!(last["rows"] == upload["rows"], "{last} of {upload}");
        }
        let figures = of_upload[0]["rows"].as_object().context("no rows")?;
        ensure!(figures.values().all(Value::is_null), "{figures:?}");
    }
    ensure!(found.len() == 5, "{found:?}");
    app.close().await
}

async fn a_reader_misses_no_event_while_uploads_end(mode: Mode) -> Result<()> {
    const UPLOADS: usize = 16;
    let app = App::start(mode.harness().await?, 2).await?;
    let file = csv(30);
    let send = async |id: Uuid| {
        let sent = app.put(id, file.clone()).await?;
        ensure!(sent.status() == 202, "{}", sent.text().await?);
        app.wait_until_ended(id).await
    };
    let ids: Vec<Uuid> = (0..UPLOADS).map(|_| Uuid::now_v7()).collect();
    let sending = try_join_all(ids.iter().map(|id| send(*id)));
    let (mut events, mut after) = (Vec::new(), "0".to_owned());
    let reading = eventually(TIMEOUT, "all events to be listed", async || {
        let (more, next) = read_on(&app, &after, 5).await.ok()?;
        events.extend(more);
        after = next;
        (events.len() >= UPLOADS * 3).then_some(())
    });
    tokio::try_join!(sending, reading)?;
    let found = histories(&events)?;
    ensure!(events.len() == UPLOADS * 3 && found.len() == UPLOADS);
    for id in ids {
        let history = &found[&id.to_string()];
        ensure!(
            *history == ["receiving", "processing", "completed"],
            "{history:?}"
        );
    }
    app.close().await
}

async fn a_reader_goes_on_after_a_restart(mode: Mode) -> Result<()> {
    let mut app = App::start(mode.harness().await?, 1).await?;
    let before = end_as(&app, "completed", "", &csv(3)).await?;
    let (events, after) = read_on(&app, "0", 100).await?;
    ensure!(events.len() == 3, "{events:#?}");
    app.api.kill9()?;
    app.restart().await?;
    ensure!(read_on(&app, &after, 100).await? == (Vec::new(), after.clone()));
    post(&app, before, "undo").await?;
    let (events, _) = read_on(&app, &after, 100).await?;
    ensure!(
        events.len() == 1 && events[0]["type"] == "upload.undone",
        "{events:#?}"
    );
    app.close().await
}

async fn a_worker_deletes_events_that_are_old(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_EVENTS_DAYS", "30");
    let mut app = App::start(harness, 1).await?;
    let old = end_as(&app, "completed", "", &csv(3)).await?;
    let new = end_as(&app, "completed", "", &csv(3)).await?;
    app.storing_process().kill9()?;
    let statement = format!(
        "UPDATE upload_events SET at = '2001-01-01T00:00:00.000000Z' WHERE public_id = '{old}'"
    );
    app.harness.execute(&statement, &statement).await?;
    app.restart_storing_process().await?;
    eventually(TIMEOUT, "the old events to be deleted", async || {
        let (events, _) = read_on(&app, "0", 100).await.ok()?;
        let is_new = |event: &Value| event["upload"] == new.to_string();
        (events.len() == 3 && events.iter().all(is_new)).then_some(())
    })
    .await?;
    app.close().await
}
