//! Every operation of the OpenAPI document against every kind of key. What is expected follows from
//! the scopes in the document, and from rules for keys that see only a part of a tenant.

mod clients;
mod document;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use self::clients::{Client, Kind, clients};
use self::document::{Operation, document, operations};
use super::{
    ADMIN, closed_app, declare, get, key_of, make, read, request, send_accepted, text,
    wait_until_ended,
};
use crate::answers::problem;
use crate::app::App;
use crate::harness::Mode;

in_both_modes! {
    each_key_reaches_exactly_what_the_document_and_its_tenant_allow,
}

/// The scopes of the document. A new one needs an entry here.
const SCOPES: &[&str] = &["admin", "manage", "read", "upload"];

/// The dataset of the tenant, besides one with the name `suggest`.
const DATASET: &str = "sales";

/// What a call sends. Where a key is allowed, the call stores and changes nothing: its file is
/// empty, its document has a fault, or it has an option that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Nothing,
    /// An unknown option. A caller of another tenant does not send it, because this caller must be
    /// refused for another reason.
    UnknownOption,
    EmptyFile,
    /// An empty file for the dataset of the tenant.
    EmptyFileForDataset,
    /// This document, which has a fault.
    Document(&'static str),
}

/// Every operation, and what its call sends. A new operation needs an entry here.
const CALLS: &[(&str, Sent)] = &[
    ("DELETE /datasets/suggest", Sent::UnknownOption),
    ("DELETE /datasets/{name}", Sent::UnknownOption),
    ("DELETE /keys/{id}", Sent::UnknownOption),
    ("GET /datasets", Sent::Nothing),
    ("GET /datasets/suggest", Sent::Nothing),
    ("GET /datasets/{name}", Sent::Nothing),
    ("GET /docs", Sent::Nothing),
    ("GET /keys", Sent::Nothing),
    ("GET /livez", Sent::Nothing),
    ("GET /metrics", Sent::Nothing),
    ("GET /openapi.json", Sent::Nothing),
    ("GET /readyz", Sent::Nothing),
    ("GET /uploads", Sent::Nothing),
    ("GET /uploads/{id}", Sent::Nothing),
    ("GET /uploads/{id}/rejected", Sent::Nothing),
    ("GET /uploads/{id}/rows", Sent::Nothing),
    ("POST /datasets/suggest", Sent::EmptyFile),
    ("POST /keys", Sent::Document("{}")),
    ("POST /tokens", Sent::Document("{\"expires_in\":0}")),
    ("POST /uploads", Sent::EmptyFileForDataset),
    ("POST /uploads/preview", Sent::EmptyFile),
    ("POST /uploads/validate", Sent::EmptyFileForDataset),
    // The upload has ended, so it is not cancelled.
    ("POST /uploads/{id}/cancel", Sent::Nothing),
    ("POST /uploads/{id}/undo", Sent::UnknownOption),
    ("PUT /datasets/suggest", Sent::Document("{}")),
    ("PUT /datasets/{name}", Sent::Document("{}")),
    ("PUT /uploads/{id}", Sent::EmptyFileForDataset),
];

#[test]
fn every_operation_has_a_call_and_every_scope_a_key() -> Result<()> {
    let operations = operations()?;
    let mut routes: Vec<&str> = operations.iter().map(|it| it.route.as_str()).collect();
    routes.sort_unstable();
    let calls: Vec<&str> = CALLS.iter().map(|(route, _)| *route).collect();
    ensure!(routes == calls, "{routes:?} are not {calls:?}");
    let scopes = operations.into_iter().filter_map(|it| it.scopes).flatten();
    let scopes: BTreeSet<String> = scopes.collect();
    ensure!(scopes.iter().eq(SCOPES), "{scopes:?}");
    let declared = &document()?["components"]["schemas"]["Scope"]["enum"];
    ensure!(*declared == json!(SCOPES), "{declared}");
    Ok(())
}

/// The answer that a client gets.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    /// No refusal because of the key. A fault in the call may still be refused.
    Allowed,
    Refused(u16, &'static str),
}

fn expected(client: &Client, operation: &Operation, sent: Sent) -> Expected {
    let Some(scopes) = &operation.scopes else {
        return Expected::Allowed;
    };
    if let Kind::Unknown(code) = client.kind {
        return Expected::Refused(401, code);
    }
    let has = |scope: &&str| client.scopes.contains(scope) || client.scopes.contains(&"admin");
    if !scopes.iter().any(|scope| has(&scope.as_str())) {
        return Expected::Refused(403, "missing_scope");
    }
    let route = operation.route.as_str();
    let is_of_upload = route.contains(" /uploads/{id}");
    let sends_file = matches!(sent, Sent::EmptyFile | Sent::EmptyFileForDataset);
    if client.kind == Kind::OfOtherTenant {
        return match (is_of_upload, names_dataset(route, sent)) {
            (_, true) => Expected::Refused(404, "dataset_not_found"),
            (true, false) => Expected::Refused(404, "upload_not_found"),
            _ => Expected::Allowed,
        };
    }
    if client.kind == Kind::ForOtherDataset {
        match route {
            _ if sends_file => return Expected::Refused(403, "wrong_dataset"),
            "POST /tokens" => return Expected::Refused(403, "token_not_allowed"),
            _ => {}
        }
    }
    // The scope `upload` allows such a call only for uploads that the key has sent.
    let by_another_scope = |scope: &&String| *scope != "upload" && has(&scope.as_str());
    let is_limited = scopes.len() > 1 && !scopes.iter().any(|scope| by_another_scope(&scope));
    match is_of_upload && is_limited {
        true => Expected::Refused(404, "upload_not_found"),
        false => Expected::Allowed,
    }
}

/// Whether the call is about a dataset of the tenant. The `PUT` of another tenant declares a
/// dataset of its own.
fn names_dataset(route: &str, sent: Sent) -> bool {
    let is_about = |method: &str| route.starts_with(&format!("{method} /datasets/"));
    sent == Sent::EmptyFileForDataset || is_about("GET") || is_about("DELETE")
}

/// What the tenant has.
#[derive(Debug)]
struct Owned {
    upload: Uuid,
    /// The id of one of its keys.
    key: String,
}

async fn call(
    app: &App,
    client: &Client,
    owned: &Owned,
    route: &str,
    sent: Sent,
) -> Result<Response> {
    let (method, template) = route.split_once(' ').context("no method")?;
    let id = match template.starts_with("/keys") {
        true => owned.key.clone(),
        false => owned.upload.to_string(),
    };
    let mut path = template.replace("{id}", &id).replace("{name}", DATASET);
    ensure!(!path.contains('{'), "{route} has an unknown parameter");
    let is_of_other_tenant = client.kind == Kind::OfOtherTenant && !path.starts_with("/keys");
    if sent == Sent::UnknownOption && !is_of_other_tenant {
        path.push_str("?unknown=1");
    }
    if sent == Sent::EmptyFileForDataset {
        path.push_str(&format!("?dataset={DATASET}"));
    }
    let method = Method::from_bytes(method.as_bytes())?;
    let call = request(app, method, &path, client.key.as_deref());
    let call = match sent {
        Sent::Nothing | Sent::UnknownOption => call,
        Sent::EmptyFile | Sent::EmptyFileForDataset => {
            call.header("content-type", "text/csv").body("")
        }
        Sent::Document(document) => call
            .header("content-type", "application/json")
            .body(document),
    };
    Ok(call.send().await?)
}

/// Fails unless the answer is one of the document that does not refuse the key.
async fn expect_allowed(answer: Response, operation: &Operation) -> Result<()> {
    let status = answer.status().as_u16();
    let body = answer.text().await?;
    let codes = operation.answers.get(&status);
    let codes = codes.with_context(|| format!("{status} is not in the document: {body}"))?;
    ensure!(
        !matches!(status, 401 | 403..=405 | 500..),
        "{status}: {body}"
    );
    if !codes.is_empty() {
        let code = text(&serde_json::from_str(&body)?, "code")?;
        ensure!(
            codes.contains(&code),
            "{status} {code} is not in the document"
        );
    }
    Ok(())
}

async fn each_key_reaches_exactly_what_the_document_and_its_tenant_allow(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 1).await?;
    let owner = key_of(&app, "acme", &["manage", "read", "upload"]).await?;
    let owned = owned(&app, &owner).await?;
    let before = state(&app, &owner, &owned).await?;
    let clients = clients(&app).await?;
    for operation in operations()? {
        let route = operation.route.as_str();
        let known = CALLS.iter().find(|(known, _)| *known == route);
        let (_, sent) = known.with_context(|| format!("{route} has no call"))?;
        for client in &clients {
            let answer = call(&app, client, &owned, route, *sent).await?;
            let checked = match expected(client, &operation, *sent) {
                Expected::Allowed => expect_allowed(answer, &operation).await,
                Expected::Refused(status, code) => problem(answer, status, code).await.map(|_| ()),
            };
            checked.with_context(|| format!("{route} with {}", client.name))?;
        }
    }
    let after = state(&app, &owner, &owned).await?;
    ensure!(after == before, "{after} was {before}");
    app.close().await
}

/// Makes the datasets of the tenant, and an upload whose rows are stored.
async fn owned(app: &App, owner: &str) -> Result<Owned> {
    let definition = json!({ "columns": [{ "name": "number", "type": "integer" }] });
    for name in [DATASET, "suggest"] {
        let declared = declare(app, owner, name, &definition).await?;
        ensure!(declared.status() == 201, "{}", declared.text().await?);
    }
    let upload = Uuid::now_v7();
    let options = format!("&dataset={DATASET}");
    send_accepted(app, owner, upload, &options, "number\n1\nx\n3\n").await?;
    let ended = wait_until_ended(app, owner, upload).await?;
    ensure!(ended["status"] == "partial", "{ended}");
    let key = make(app, &json!({ "tenant": "acme", "scopes": ["read"] })).await?;
    let key = text(&key, "id")?;
    Ok(Owned { upload, key })
}

/// Everything that a call could change.
async fn state(app: &App, owner: &str, owned: &Owned) -> Result<Value> {
    let rows = format!("/uploads/{}/rows", owned.upload);
    let keys = read(app, "/keys?tenant=acme&limit=100", ADMIN).await?;
    let key = keys["keys"].as_array().context("no keys")?;
    let key = key.iter().find(|it| it["id"] == owned.key);
    Ok(json!({
        "uploads": read(app, "/uploads", owner).await?,
        "datasets": read(app, "/datasets", owner).await?,
        "rows": get(app, &rows, Some(owner)).await?.text().await?,
        "key": key.context("the key is not in the list")?,
    }))
}
