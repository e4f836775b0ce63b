//! Two tenants with keys do not see each other.

use anyhow::{Context, Result, ensure};
use carga_api::router::requirements;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    closed_app, declare, get, ids, key_of, make, read, request, send, send_accepted, text,
    wait_until_ended,
};
use crate::answers::problem;
use crate::app::{App, KNOWN_DIALECT};
use crate::harness::Mode;

in_both_modes! {
    two_tenants_use_the_same_names_ids_and_files_independently,
    no_route_shows_or_changes_what_another_tenant_has,
}

const SCOPES: [&str; 3] = ["read", "upload", "manage"];

const FILE: &str = "number\n1\n2\n3\n";

/// A definition whose column has this type.
fn definition(kind: &str) -> Value {
    json!({ "columns": [{ "name": "number", "type": kind }] })
}

async fn rows(app: &App, key: &str, id: Uuid) -> Result<Vec<Value>> {
    let path = format!("/uploads/{id}/rows?format=ndjson");
    let body = get(app, &path, Some(key)).await?.text().await?;
    let lines = body.lines().map(|line| Ok(serde_json::from_str(line)?));
    lines.collect()
}

async fn two_tenants_use_the_same_names_ids_and_files_independently(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let [one, other] = [
        key_of(&app, "acme", &SCOPES).await?,
        key_of(&app, "globex", &SCOPES).await?,
    ];
    let id = Uuid::new_v4();
    for (key, kind) in [(&one, "integer"), (&other, "text")] {
        let declared = declare(&app, key, "sales", &definition(kind)).await?;
        ensure!(declared.status() == 201, "{}", declared.text().await?);
        // The tenant before has sent the same file under the same id.
        let sent = send_accepted(&app, key, id, "&dataset=sales&on_duplicate=reject", FILE).await?;
        ensure!(sent["id"] == id.to_string() && sent["duplicate_of"].is_null());
        let upload = wait_until_ended(&app, key, id).await?;
        ensure!(upload["status"] == "completed", "{upload}");
        ensure!(upload["rows"]["inserted"] == 3, "{upload}");
    }
    let again = Uuid::new_v4();
    let sent = send_accepted(&app, &one, again, "", FILE).await?;
    ensure!(sent["duplicate_of"] == id.to_string(), "{sent}");
    wait_until_ended(&app, &one, again).await?;
    let refused = send(&app, &one, Uuid::new_v4(), "&on_duplicate=reject", FILE).await?;
    problem(refused, 409, "duplicate_file").await?;

    for (key, listed, kind) in [(&one, 2, "integer"), (&other, 1, "text")] {
        let page = read(&app, "/uploads?status=completed", key).await?;
        ensure!(ids(&page)?.len() == listed, "{page}");
        let page = read(&app, "/uploads?dataset=sales", key).await?;
        ensure!(ids(&page)? == [id.to_string()], "{page}");
        let page = read(&app, "/datasets", key).await?;
        let datasets = page["datasets"].as_array().context("no datasets")?;
        ensure!(datasets.len() == 1, "{page}");
        ensure!(datasets[0]["columns"][0]["type"] == kind, "{page}");
        ensure!(rows(&app, key, id).await?.len() == 3);
    }
    // The undo of one tenant leaves the rows of the other one.
    let path = format!("/uploads/{id}/undo");
    let undone = request(&app, Method::POST, &path, Some(&one))
        .send()
        .await?;
    ensure!(undone.status() == 202, "{}", undone.text().await?);
    ensure!(rows(&app, &other, id).await?.len() == 3);
    let kept = read(&app, &format!("/uploads/{id}"), &other).await?;
    ensure!(kept["status"] == "completed", "{kept}");
    app.close().await
}

/// Every route with a parameter, and the answer to a client of a tenant that has nothing under the
/// given id or name: the code of a refusal, or `None` if the client gets something of its own.
const ANSWERS: &[(&str, u16, Option<&str>)] = &[
    ("DELETE /datasets/{name}", 404, Some("dataset_not_found")),
    ("DELETE /keys/{id}", 403, Some("missing_scope")),
    ("GET /datasets/{name}", 404, Some("dataset_not_found")),
    ("GET /uploads/{id}", 404, Some("upload_not_found")),
    ("GET /uploads/{id}/batches", 404, Some("upload_not_found")),
    ("GET /uploads/{id}/rejected", 404, Some("upload_not_found")),
    ("GET /uploads/{id}/rows", 404, Some("upload_not_found")),
    (
        "POST /uploads/{id}/batches/{seq}/retry",
        404,
        Some("upload_not_found"),
    ),
    ("POST /uploads/{id}/cancel", 404, Some("upload_not_found")),
    ("POST /uploads/{id}/retry", 404, Some("upload_not_found")),
    ("POST /uploads/{id}/undo", 404, Some("upload_not_found")),
    ("PUT /datasets/{name}", 201, None),
    ("PUT /uploads/{id}", 202, None),
];

#[test]
fn every_route_with_a_parameter_has_an_answer_to_another_tenant() {
    let with_parameter = requirements()
        .into_iter()
        .filter(|(_, path, _)| path.contains('{'));
    let mut found: Vec<String> = with_parameter
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    found.sort();
    let expected: Vec<&str> = ANSWERS.iter().map(|(route, _, _)| *route).collect();
    assert_eq!(found, expected);
}

/// Calls a route. A `PUT` sends a file or a definition.
async fn call(app: &App, key: &str, method: &str, path: &str) -> Result<Response> {
    let method = Method::from_bytes(method.as_bytes())?;
    let is_put = method == Method::PUT;
    let path = match is_put && path.starts_with("/uploads") {
        true => format!("{path}?{KNOWN_DIALECT}"),
        false => path.to_owned(),
    };
    let call = request(app, method, &path, Some(key));
    let call = match (is_put, path.starts_with("/uploads")) {
        (true, true) => call.header("content-type", "text/csv").body(FILE),
        (true, false) => call.json(&definition("date")),
        (false, _) => call,
    };
    Ok(call.send().await?)
}

async fn no_route_shows_or_changes_what_another_tenant_has(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let owner = make(&app, &json!({ "tenant": "acme", "scopes": SCOPES })).await?;
    let (owner_id, owner) = (text(&owner, "id")?, text(&owner, "key")?);
    let stranger = key_of(&app, "globex", &SCOPES).await?;
    let declared = declare(&app, &owner, "sales", &definition("integer")).await?;
    ensure!(declared.status() == 201);
    let id = Uuid::new_v4();
    let options = "&dataset=sales";
    send_accepted(&app, &owner, id, options, "number\n1\nx\n3\n").await?;
    wait_until_ended(&app, &owner, id).await?;
    let owned = [format!("/uploads/{id}"), "/datasets/sales".to_owned()];
    let before = [
        read(&app, &owned[0], &owner).await?,
        read(&app, &owned[1], &owner).await?,
    ];
    ensure!(before[0]["status"] == "partial", "{}", before[0]);
    for (route, status, code) in ANSWERS {
        let (method, template) = route.split_once(' ').context("no method")?;
        let path = match template.starts_with("/keys") {
            true => template.replace("{id}", &owner_id),
            false => template.replace("{id}", &id.to_string()),
        };
        let path = path.replace("{name}", "sales").replace("{seq}", "1");
        let answer = call(&app, &stranger, method, &path).await?;
        match code {
            Some(code) => {
                let refused = problem(answer, *status, code).await;
                refused.with_context(|| route.to_string())?;
            }
            None => ensure!(answer.status() == *status, "{route}: {}", answer.status()),
        }
        if method == "GET" {
            let head = call(&app, &stranger, "HEAD", &path).await?;
            ensure!(head.status() == *status, "HEAD {template}");
        }
    }
    let mine = wait_until_ended(&app, &stranger, id).await?;
    ensure!(mine["status"] == "completed" && mine["dataset"].is_null());
    for (path, before) in owned.iter().zip(before) {
        let after = read(&app, path, &owner).await?;
        ensure!(after == before, "{after} was {before}");
    }
    ensure!(rows(&app, &owner, id).await?.len() == 2);
    app.close().await
}
