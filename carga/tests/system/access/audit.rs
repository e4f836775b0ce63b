//! The audit log: every change that a client makes leaves one entry with its actor.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::{
    ADMIN, closed_app, declare, get, make, read, request, run, send_accepted, text,
    wait_until_ended,
};
use crate::answers::problem;
use crate::app::{App, KNOWN_DIALECT, TIMEOUT};
use crate::files::{csv, paced};
use crate::harness::Mode;

in_both_modes! {
    every_change_leaves_one_entry_with_its_actor,
    a_token_has_an_entry_and_is_the_actor_of_its_uploads,
    a_change_of_the_log_filter_is_recorded_though_its_client_leaves,
    a_repeated_request_for_a_key_leaves_one_entry,
    a_refused_request_leaves_no_entry,
    without_authentication_the_actor_is_nobody,
    a_worker_deletes_entries_that_are_old,
}

/// All entries, read in short pages.
async fn entries(app: &App, key: Option<&str>, options: &str) -> Result<Vec<Value>> {
    let (mut entries, mut after) = (Vec::new(), 0);
    loop {
        let path = format!("/audit?limit=2&after={after}{options}");
        let page: Value = get(app, &path, key).await?.json().await?;
        let found = page["entries"].as_array();
        entries.extend(found.with_context(|| page.to_string())?.iter().cloned());
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => return Ok(entries),
        }
    }
}

/// The action, the actor and the object of an entry.
fn change(entry: &Value) -> Result<[String; 3]> {
    Ok([
        text(entry, "action")?,
        text(entry, "actor")?,
        text(entry, "object")?,
    ])
}

async fn post(app: &App, path: &str, key: &str) -> Result<u16> {
    let answer = request(app, Method::POST, path, Some(key)).send().await?;
    Ok(answer.status().as_u16())
}

/// Cancels an upload while it is being sent.
async fn cancel_one(app: &App, key: &str) -> Result<Uuid> {
    let id = Uuid::now_v7();
    let path = format!("/uploads/{id}?{KNOWN_DIALECT}");
    let sending = request(app, Method::PUT, &path, Some(key))
        .header("content-type", "text/csv")
        .body(paced(csv(20_000), 100_000))
        .send();
    let sending = tokio::spawn(sending);
    let path = format!("/uploads/{id}");
    let begun = async || {
        let answer = get(app, &path, Some(key)).await.ok()?;
        (answer.status() == 200).then_some(())
    };
    eventually(TIMEOUT, "the upload to exist", begun).await?;
    ensure!(post(app, &format!("/uploads/{id}/cancel"), key).await? == 202);
    // The answer or the cut connection is of no interest here.
    let _ = sending.await?;
    Ok(id)
}

/// Sends a file, and undoes it.
async fn undo_one(app: &App, key: &str) -> Result<Uuid> {
    let id = Uuid::now_v7();
    send_accepted(app, key, id, "", csv(10)).await?;
    let upload = wait_until_ended(app, key, id).await?;
    ensure!(upload["status"] == "completed", "{upload}");
    ensure!(post(app, &format!("/uploads/{id}/undo"), key).await? == 202);
    Ok(id)
}

/// Declares, changes and deletes a dataset.
async fn change_dataset(app: &App, key: &str) -> Result<()> {
    let columns = [
        json!({ "name": "a", "type": "text" }),
        json!({ "name": "b", "type": "text" }),
    ];
    for (count, status) in [(1, 201), (2, 200), (2, 200)] {
        let definition = json!({ "columns": columns[..count] });
        let answer = declare(app, key, "sales", &definition).await?;
        ensure!(answer.status() == status, "{}", answer.text().await?);
    }
    let delete = request(app, Method::DELETE, "/datasets/sales", Some(key));
    ensure!(delete.send().await?.status() == 204);
    Ok(())
}

async fn change_log(app: &App) -> Result<()> {
    let filter = request(app, Method::PUT, "/admin/log", Some(ADMIN));
    let filter = filter.json(&json!({ "filter": "info" })).send().await?;
    ensure!(filter.status() == 200);
    Ok(())
}

async fn every_change_leaves_one_entry_with_its_actor(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let scopes = ["read", "upload", "manage"];
    let made = make(&app, &json!({ "tenant": "acme", "scopes": scopes })).await?;
    let (id, key) = (text(&made, "id")?, text(&made, "key")?);
    let undone = undo_one(&app, &key).await?.to_string();
    let cancelled = cancel_one(&app, &key).await?.to_string();
    change_dataset(&app, &key).await?;
    change_log(&app).await?;
    run(&app.harness, &["keys", "revoke", &id])?;

    let all = entries(&app, Some(ADMIN), "").await?;
    let found: Result<Vec<_>> = all.iter().map(change).collect();
    let expected = [
        ["key.create", "admin key", &id],
        ["upload.create", &id, &undone],
        ["upload.undo", &id, &undone],
        ["upload.create", &id, &cancelled],
        ["upload.cancel", &id, &cancelled],
        ["dataset.create", &id, "sales"],
        ["dataset.change", &id, "sales"],
        ["dataset.delete", &id, "sales"],
        ["log.change", "admin key", "info"],
        ["key.revoke", "command line", &id],
    ];
    ensure!(found? == expected, "{all:#?}");
    for entry in &all {
        let is_command = entry["actor"] == "command line";
        ensure!(entry["request_id"].is_null() == is_command, "{entry}");
        let address = if is_command {
            json!(null)
        } else {
            json!("127.0.0.1")
        };
        ensure!(entry["address"] == address, "{entry}");
        let is_log = entry["action"] == "log.change";
        let tenant = if is_log { "default" } else { "acme" };
        ensure!(entry["tenant"] == tenant, "{entry}");
    }
    let of_tenant = entries(&app, Some(ADMIN), "&tenant=acme").await?;
    ensure!(of_tenant.len() == all.len() - 1, "{of_tenant:#?}");
    // The change by the command is in the log of the command.
    let log = app.api.log();
    ensure!(
        log.matches("carga::audit").count() == all.len() - 1,
        "{log}"
    );
    app.close().await
}

async fn a_token_has_an_entry_and_is_the_actor_of_its_uploads(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let made = make(&app, &json!({ "tenant": "acme", "scopes": ["upload"] })).await?;
    let (id, key) = (text(&made, "id")?, text(&made, "key")?);
    let mut senders = Vec::new();
    for (maker, key) in [(id.as_str(), key.as_str()), ("admin", ADMIN)] {
        let post = request(&app, Method::POST, "/tokens", Some(key));
        let answer = post.json(&json!({})).send().await?;
        ensure!(answer.status() == 201, "{answer:?}");
        let made: Value = answer.json().await?;
        let (token, upload) = (text(&made, "token")?, Uuid::now_v7());
        send_accepted(&app, &token, upload, "", csv(10)).await?;
        senders.push((maker, text(&made, "id")?, upload.to_string()));
    }
    let all = entries(&app, Some(ADMIN), "").await?;
    let found: Result<Vec<_>> = all.iter().map(change).collect();
    let mut expected = vec![["key.create", "admin key", &id].map(str::to_owned)];
    for ((maker, token, upload), actor) in senders.iter().zip([id.as_str(), "admin key"]) {
        expected.push(["token.create", actor, token].map(str::to_owned));
        let sender = format!("{maker}.{token}");
        expected.push(["upload.create", &sender, upload].map(str::to_owned));
    }
    ensure!(found? == expected, "{all:#?}");
    let tenants: Vec<_> = all.iter().map(|entry| &entry["tenant"]).collect();
    ensure!(tenants == ["acme", "acme", "acme", "default", "default"]);
    app.close().await
}

/// The client closes its connection before the change is recorded.
async fn a_change_of_the_log_filter_is_recorded_though_its_client_leaves(mode: Mode) -> Result<()> {
    const REQUESTS: u64 = 20;
    let app = closed_app(mode, 0).await?;
    let body = json!({ "filter": "info" }).to_string();
    let head = format!(
        "PUT /admin/log HTTP/1.1\r\nhost: localhost\r\nx-api-key: {ADMIN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for number in 0..REQUESTS {
        let mut connection = app.connect().await?;
        connection
            .write_all((head.clone() + &body).as_bytes())
            .await?;
        // So some clients leave before the change, some after it, and some in between.
        tokio::time::sleep(Duration::from_millis(number)).await;
    }
    let recorded = async || {
        let entries = entries(&app, Some(ADMIN), "").await.ok()?.len();
        // A client may have left before the server has begun to change the filter.
        let changes = app.api.log().matches("the log filter was changed").count();
        (changes > 0 && entries == changes).then_some(())
    };
    eventually(TIMEOUT, "each change to have an entry", recorded).await?;
    app.close().await
}

async fn a_repeated_request_for_a_key_leaves_one_entry(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let post = request(&app, Method::POST, "/keys", Some(ADMIN));
        let post = post.header("idempotency-key", "k");
        let answer = post.json(&json!({ "scopes": ["read"] })).send().await?;
        ensure!(answer.status() == 201, "{answer:?}");
        ids.push(text(&answer.json().await?, "id")?);
    }
    ensure!(ids[0] == ids[1], "{ids:?}");
    let all = entries(&app, Some(ADMIN), "").await?;
    let [entry] = all.as_slice() else {
        anyhow::bail!("{all:#?}");
    };
    let expected = ["key.create", "admin key", &ids[0]].map(str::to_owned);
    ensure!(change(entry)? == expected, "{entry}");
    app.close().await
}

async fn a_refused_request_leaves_no_entry(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let made = make(&app, &json!({ "scopes": ["read", "upload"] })).await?;
    let key = text(&made, "key")?;
    let before = entries(&app, Some(ADMIN), "").await?;
    let missing = Uuid::now_v7();
    for path in [
        format!("/uploads/{missing}/cancel"),
        format!("/uploads/{missing}/undo"),
        format!("/uploads/{missing}/retry"),
    ] {
        ensure!(post(&app, &path, ADMIN).await? == 404);
        ensure!(matches!(post(&app, &path, &key).await?, 403 | 404));
    }
    let keys = request(&app, Method::POST, "/keys", Some(&key));
    let refused = keys.json(&json!({ "scopes": ["read"] })).send().await?;
    problem(refused, 403, "missing_scope").await?;
    let tokens = request(&app, Method::POST, "/tokens", Some(&key));
    let refused = tokens.json(&json!({ "scopes": ["admin"] })).send().await?;
    problem(refused, 403, "missing_scope").await?;
    let definition = json!({ "columns": [] });
    let faulty = declare(&app, ADMIN, "sales", &definition).await?;
    problem(faulty, 422, "malformed_definition").await?;
    let faulty = request(&app, Method::PUT, "/admin/log", Some(ADMIN));
    let faulty = faulty
        .json(&json!({ "filter": "carga=loud" }))
        .send()
        .await?;
    problem(faulty, 422, "malformed_log_filter").await?;
    let post = request(&app, Method::POST, "/uploads", Some(&key));
    let empty = post
        .header("content-type", "text/csv")
        .body("")
        .send()
        .await?;
    ensure!(empty.status().is_client_error(), "{empty:?}");
    let after = entries(&app, Some(ADMIN), "").await?;
    ensure!(after == before && after.len() == 1, "{after:#?}");
    for path in ["/audit?after=x", "/audit?limit=0", "/audit?tenant=A"] {
        let refused = get(&app, path, Some(ADMIN)).await?;
        problem(refused, 400, "malformed_option").await?;
    }
    app.close().await
}

async fn without_authentication_the_actor_is_nobody(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(10)).await?.status() == 202);
    app.expect_completed(id, 10).await?;
    let all = entries(&app, None, "").await?;
    let [entry] = all.as_slice() else {
        anyhow::bail!("{all:#?}");
    };
    let expected = [
        "upload.create".to_owned(),
        "nobody".to_owned(),
        id.to_string(),
    ];
    ensure!(change(entry)? == expected, "{entry}");
    let shown = read(&app, "/audit", "unused").await?;
    ensure!(shown == json!({ "entries": all, "next": null }), "{shown}");
    app.close().await
}

async fn a_worker_deletes_entries_that_are_old(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_AUDIT_DAYS", "30");
    let mut app = App::start(harness, 1).await?;
    let (old, new) = (Uuid::now_v7(), Uuid::now_v7());
    for id in [old, new] {
        ensure!(app.put(id, csv(10)).await?.status() == 202);
        app.expect_completed(id, 10).await?;
    }
    app.storing_process().kill9()?;
    let statement =
        format!("UPDATE audit_log SET at = '2001-01-01T00:00:00.000000Z' WHERE object = '{old}'");
    app.harness.execute(&statement, &statement).await?;
    app.restart_storing_process().await?;
    let objects = async || {
        let entries = entries(&app, None, "").await.ok()?;
        let objects: Result<Vec<_>> = entries.iter().map(|entry| text(entry, "object")).collect();
        (objects.ok()? == [new.to_string()]).then_some(())
    };
    eventually(TIMEOUT, "the old entry to be deleted", objects).await?;
    app.close().await
}
