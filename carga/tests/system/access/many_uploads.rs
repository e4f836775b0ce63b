//! Two tenants with many uploads each learn nothing about each other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use futures::stream::iter;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ADMIN, closed_app, get, ids, key_of, make, read, request, send, text};
use crate::answers::check_accounts;
use crate::app::App;
use crate::harness::Mode;

in_both_modes! {
    nothing_tells_a_tenant_about_the_uploads_of_another_one,
    the_id_of_another_tenant_is_answered_as_fast_as_an_unknown_one,
}

const SCOPES: [&str; 3] = ["read", "upload", "manage"];

const UPLOADS: usize = 50;

/// How many of the ids both tenants use.
const SHARED: usize = 10;

/// How many requests are sent at the same time.
const AT_ONCE: usize = 8;

/// How often each answer is measured.
const MEASURED: usize = 300;

struct Tenant {
    key: String,
    ids: Vec<Uuid>,
    /// The rows of the upload with number `n` are `n` plus this.
    rows: usize,
}

impl Tenant {
    /// The file of an upload. Every fifth one has a record with a field too many.
    fn file(&self, number: usize) -> String {
        let rows = (0..number + self.rows).map(|row| format!("{row}\n"));
        let wrong = if number.is_multiple_of(5) {
            "1,2\n"
        } else {
            ""
        };
        format!("number\n{}{wrong}", rows.collect::<String>())
    }

    /// Sends all files, and waits until they are stored. Every seventh file does not have the
    /// announced digest, and fails.
    async fn send_all(&self, app: &App) -> Result<()> {
        let sending = self.ids.iter().enumerate().map(async |(number, id)| {
            let (options, expected) = match number % 7 {
                6 => (format!("&sha256={}", "0".repeat(64)), 422),
                _ => (String::new(), 202),
            };
            let answer = send(app, &self.key, *id, &options, self.file(number)).await?;
            let status = answer.status();
            ensure!(status == expected, "{status}: {}", answer.text().await?);
            super::wait_until_ended(app, &self.key, *id).await?;
            anyhow::Ok(())
        });
        let mut sent = iter(sending).buffer_unordered(AT_ONCE);
        while let Some(outcome) = sent.next().await {
            outcome?;
        }
        Ok(())
    }

    /// Reads the pages of a list to its end.
    async fn pages(&self, app: &App, path: &str) -> Result<Vec<Value>> {
        let mut pages = Vec::new();
        let mut next = format!("{path}limit=7");
        loop {
            let page = read(app, &next, &self.key).await?;
            let cursor = page["next_cursor"].as_str().map(str::to_owned);
            pages.push(page);
            match cursor {
                Some(cursor) => next = format!("{path}limit=7&cursor={cursor}"),
                None => return Ok(pages),
            }
        }
    }

    /// The list has exactly the tenant's own uploads, with their own figures.
    async fn check_list(&self, app: &App) -> Result<()> {
        let pages = self.pages(app, "/uploads?").await?;
        let mut listed = Vec::new();
        for page in &pages {
            listed.extend(page["uploads"].as_array().context("no uploads")?.clone());
        }
        ensure!(listed.len() == UPLOADS, "{} are listed", listed.len());
        for (number, id) in self.ids.iter().enumerate() {
            let found = listed.iter().find(|upload| upload["id"] == id.to_string());
            let upload = found.with_context(|| format!("{id} is not listed"))?;
            check_accounts(upload)?;
            let (status, inserted) = match (number % 7, number % 5) {
                (6, _) => ("failed", 0),
                (_, 0) => ("partial", number + self.rows),
                _ => ("completed", number + self.rows),
            };
            let is_own = upload["status"] == status && upload["rows"]["inserted"] == inserted;
            ensure!(is_own, "{number}: {upload}");
        }
        for status in ["completed", "partial", "failed", "receiving"] {
            let path = format!("/uploads?status={status}&");
            let pages = self.pages(app, &path).await?;
            let of_status: Result<Vec<Vec<String>>> = pages.iter().map(ids).collect();
            let expected = listed.iter().filter(|it| it["status"] == status).count();
            ensure!(of_status?.concat().len() == expected, "{status}");
        }
        Ok(())
    }
}

async fn two_tenants(app: &App) -> Result<[Tenant; 2]> {
    let mut tenants = Vec::new();
    let shared: Vec<Uuid> = (0..SHARED).map(|_| Uuid::new_v4()).collect();
    for (name, rows) in [("acme", 3), ("globex", 70)] {
        let own = (SHARED..UPLOADS).map(|_| Uuid::new_v4());
        tenants.push(Tenant {
            key: key_of(app, name, &SCOPES).await?,
            ids: shared.iter().copied().chain(own).collect(),
            rows,
        });
    }
    tenants.try_into().ok().context("not two tenants")
}

/// An answer without what differs from request to request: its status, its headers and its body,
/// with a placeholder for the id.
async fn answer(
    app: &App,
    key: &str,
    (method, path): (&Method, &str),
    id: Uuid,
) -> Result<(u16, BTreeMap<String, String>, String)> {
    let id = id.to_string();
    let path = path.replace("{id}", &id);
    let answer = request(app, method.clone(), &path, Some(key))
        .send()
        .await?;
    let status = answer.status().as_u16();
    let headers = answer
        .headers()
        .iter()
        .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()));
    let headers = headers
        .map(|(name, value)| Ok((name.to_string(), value.to_str()?.replace(&id, "{id}"))))
        .collect::<Result<_>>()?;
    let mut body: Value = answer.json().await?;
    if let Some(body) = body.as_object_mut() {
        body.remove("request_id");
    }
    Ok((status, headers, body.to_string().replace(&id, "{id}")))
}

async fn nothing_tells_a_tenant_about_the_uploads_of_another_one(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let tenants = two_tenants(&app).await?;
    let [one, other] = &tenants;
    let (first, second) = tokio::join!(one.send_all(&app), other.send_all(&app));
    first?;
    second?;
    let metrics = metrics(&app).await?;
    for (tenant, other) in [(one, other), (other, one)] {
        tenant.check_list(&app).await?;
        // The cursor of another tenant leads to no upload but the tenant's own.
        let pages = other.pages(&app, "/uploads?").await?;
        let cursor = text(&pages[2], "next_cursor")?;
        let page = get(
            &app,
            &format!("/uploads?cursor={cursor}"),
            Some(&tenant.key),
        )
        .await?;
        if page.status() == 200 {
            for id in ids(&page.json().await?)? {
                ensure!(
                    tenant.ids.contains(&id.parse()?),
                    "{id} is of the other tenant"
                );
            }
        }
        let unknown = Uuid::new_v4();
        let (get, post) = (Method::GET, Method::POST);
        for call in [
            (&get, "/uploads/{id}"),
            (&get, "/uploads/{id}/rows"),
            (&get, "/uploads/{id}/rejected"),
            (&post, "/uploads/{id}/cancel"),
            (&post, "/uploads/{id}/undo"),
            (&get, "/uploads/{id}/batches"),
            (&post, "/uploads/{id}/retry"),
            (&post, "/uploads/{id}/batches/1/retry"),
        ] {
            let expected = answer(&app, &tenant.key, call, unknown).await?;
            ensure!(expected.0 == 404, "{call:?}: {expected:?}");
            for id in &other.ids[SHARED..] {
                let found = answer(&app, &tenant.key, call, *id).await?;
                ensure!(found == expected, "{call:?}: {found:?}, not {expected:?}");
            }
        }
        for name in ["acme", "globex"] {
            ensure!(!metrics.contains(name), "the metrics name `{name}`");
        }
        let named = tenant
            .ids
            .iter()
            .find(|id| metrics.contains(&id.to_string()));
        ensure!(named.is_none(), "the metrics name {named:?}");
    }
    app.close().await
}

/// The metrics, which only an administrator reads.
async fn metrics(app: &App) -> Result<String> {
    Ok(get(app, "/metrics", Some(ADMIN)).await?.text().await?)
}

/// The time of the fastest quarter of many requests, which a busy machine changes least.
fn lower_quartile(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 4]
}

async fn the_id_of_another_tenant_is_answered_as_fast_as_an_unknown_one(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let made = make(&app, &json!({ "tenant": "acme", "scopes": SCOPES })).await?;
    let owner = text(&made, "key")?;
    let stranger = key_of(&app, "globex", &SCOPES).await?;
    let id = Uuid::new_v4();
    super::send_accepted(&app, &owner, id, "", "number\n1\n").await?;
    super::wait_until_ended(&app, &owner, id).await?;
    for path in [
        "/uploads/{id}",
        "/uploads/{id}/rows",
        "/uploads/{id}/rejected",
    ] {
        let mut times = [Vec::new(), Vec::new()];
        // The requests take turns, so that both meet the same load.
        for number in 0..2 * MEASURED {
            let id = if number % 2 == 0 { id } else { Uuid::new_v4() };
            let begun = Instant::now();
            let answer = get(
                &app,
                &path.replace("{id}", &id.to_string()),
                Some(&stranger),
            )
            .await?;
            ensure!(answer.status() == 404);
            answer.bytes().await?;
            times[number % 2].push(begun.elapsed());
        }
        let [foreign, unknown] = times.map(lower_quartile);
        let ratio = foreign.as_secs_f64() / unknown.as_secs_f64();
        ensure!(
            (0.75..1.33).contains(&ratio),
            "{path}: {foreign:?}, {unknown:?}"
        );
    }
    app.close().await
}
