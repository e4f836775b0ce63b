//! A key with scope `upload` alone sees the uploads that it has sent, and no others.

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use reqwest::Method;
use uuid::Uuid;

use super::{
    ADMIN, closed_app, get, ids, key_of, key_with, read, request, send_accepted, wait_until_ended,
};
use crate::answers::problem;
use crate::app::{App, KNOWN_DIALECT, TIMEOUT};
use crate::files::{csv, paced};
use crate::harness::Mode;

in_both_modes! {
    a_key_with_scope_upload_reads_only_its_own_uploads,
    a_key_with_scope_upload_lists_only_its_own_uploads,
    a_key_with_scope_upload_cancels_only_its_own_uploads,
}

async fn a_key_with_scope_upload_reads_only_its_own_uploads(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let own = key_with(&app, "upload").await?;
    let reader = key_with(&app, "read").await?;
    let other = key_with(&app, "upload").await?;
    let other_manager = key_of(&app, "default", &["upload", "manage"]).await?;
    let id = Uuid::now_v7();
    send_accepted(&app, &own, id, "", "a,b\n1,2\n3\n4,5\n").await?;
    let upload = wait_until_ended(&app, &own, id).await?;
    ensure!(upload["status"] == "partial", "{upload}");
    for (path, expected) in [
        ("", "\"partial\""),
        ("/rows", "a,b\n1,2\n4,5\n"),
        ("/rejected", "_carga_"),
    ] {
        let path = format!("/uploads/{id}{path}");
        for key in [own.as_str(), &reader, ADMIN] {
            let answer = get(&app, &path, Some(key)).await?;
            ensure!(answer.status() == 200, "{path}: {}", answer.status());
            let body = answer.text().await?;
            ensure!(body.replace("\r\n", "\n").contains(expected), "{body}");
        }
        for key in [&other, &other_manager] {
            let answer = get(&app, &path, Some(key)).await?;
            problem(answer, 404, "upload_not_found").await?;
            let head = request(&app, Method::HEAD, &path, Some(key)).send().await?;
            ensure!(head.status() == 404, "{path}: {}", head.status());
        }
    }
    app.close().await
}

/// The ids of all pages of a list, with two uploads in each.
async fn all_ids(app: &App, key: &str, options: &str) -> Result<Vec<String>> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/uploads?limit=2{options}{cursor}");
        let page = read(app, &path, key).await?;
        found.extend(ids(&page)?);
        let Some(next) = page["next_cursor"].as_str() else {
            return Ok(found);
        };
        cursor = format!("&cursor={next}");
    }
}

async fn a_key_with_scope_upload_lists_only_its_own_uploads(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let (one, other) = (
        key_with(&app, "upload").await?,
        key_with(&app, "upload").await?,
    );
    let none = key_with(&app, "upload").await?;
    let mut sent = Vec::new();
    for key in [&one, &other, &one, ADMIN, &one, &other] {
        let id = Uuid::now_v7();
        send_accepted(&app, key, id, "", csv(3)).await?;
        wait_until_ended(&app, ADMIN, id).await?;
        sent.push((key.to_owned(), id.to_string()));
    }
    sent.reverse();
    let all: Vec<&String> = sent.iter().map(|(_, id)| id).collect();
    let reader = key_with(&app, "read").await?;
    let both = key_of(&app, "default", &["upload", "read"]).await?;
    for options in ["", "&status=completed"] {
        for key in [one.as_str(), &other, &none] {
            let own = sent.iter().filter(|(by, _)| by == key).map(|(_, id)| id);
            let found = all_ids(&app, key, options).await?;
            ensure!(found.iter().eq(own), "{options}: {found:?} of {sent:?}");
        }
        for key in [ADMIN, &reader, &both] {
            let found = all_ids(&app, key, options).await?;
            ensure!(found.iter().eq(all.iter().copied()), "{found:?}");
        }
    }
    ensure!(all_ids(&app, &one, "&status=failed").await?.is_empty());
    app.close().await
}

async fn a_key_with_scope_upload_cancels_only_its_own_uploads(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let own = key_with(&app, "upload").await?;
    let other = key_of(&app, "default", &["upload", "read"]).await?;
    let id = Uuid::now_v7();
    let path = format!("/uploads/{id}?{KNOWN_DIALECT}");
    let put = request(&app, Method::PUT, &path, Some(&own));
    let put = put.header("content-type", "text/csv");
    // Sending takes more than a minute, so the upload is still received when it is cancelled.
    let sending = tokio::spawn(put.body(paced(csv(50_000), 20_000)).send());
    let path = format!("/uploads/{id}");
    eventually(TIMEOUT, "the upload to exist", async || {
        read(&app, &path, &own).await.is_ok()
    })
    .await?;
    let cancel = |key: &str| {
        let path = format!("/uploads/{id}/cancel");
        request(&app, Method::POST, &path, Some(key)).send()
    };
    problem(cancel(&other).await?, 404, "upload_not_found").await?;
    let unchanged = read(&app, &path, &own).await?;
    ensure!(unchanged["status"] == "receiving", "{unchanged}");
    let cancelled = cancel(&own).await?;
    ensure!(cancelled.status() == 202, "{}", cancelled.text().await?);
    let answer = sending.await?.context("no answer to the upload")?;
    problem(answer, 409, "cancelled").await?;
    // A key with scope `manage` also stops uploads of others. This one has been cancelled already.
    let manager = key_with(&app, "manage").await?;
    ensure!(cancel(&manager).await?.status() == 202);
    app.close().await
}
