//! Every operation of the OpenAPI document against every kind of key. What is expected follows from
//! the scopes in the document, and from rules for keys that see only a part of a tenant.

mod clients;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use self::clients::{Client, Kind, clients};
use super::{
    ADMIN, closed_app, declare, get, key_of, make, read, request, send_accepted, text,
    wait_until_ended,
};
use crate::answers::problem;
use crate::app::App;
use crate::document::{Operation, document, operations};
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
    /// The same as a form with the dataset in a field.
    EmptyFormForDataset,
    /// This document, which has a fault.
    Document(&'static str),
}

impl Sent {
    fn is_for_dataset(self) -> bool {
        matches!(self, Self::EmptyFileForDataset | Self::EmptyFormForDataset)
    }

    fn is_file(self) -> bool {
        self == Self::EmptyFile || self.is_for_dataset()
    }
}

/// Every operation, and what its calls send. A new operation needs an entry here.
const CALLS: &[(&str, Sent)] = &[
    ("DELETE /admin/log", Sent::UnknownOption),
    ("DELETE /datasets/suggest", Sent::UnknownOption),
    ("DELETE /datasets/{name}", Sent::UnknownOption),
    ("DELETE /keys/{id}", Sent::UnknownOption),
    ("GET /admin/log", Sent::Nothing),
    ("GET /audit", Sent::Nothing),
    ("GET /datasets", Sent::Nothing),
    ("GET /datasets/suggest", Sent::Nothing),
    ("GET /datasets/{name}", Sent::Nothing),
    ("GET /docs", Sent::Nothing),
    ("GET /events", Sent::Nothing),
    ("GET /keys", Sent::Nothing),
    ("GET /livez", Sent::Nothing),
    ("GET /metrics", Sent::Nothing),
    ("GET /openapi.json", Sent::Nothing),
    ("GET /readyz", Sent::Nothing),
    ("GET /uploads", Sent::Nothing),
    ("GET /uploads/{id}", Sent::Nothing),
    ("GET /uploads/{id}/batches", Sent::Nothing),
    ("GET /uploads/{id}/rejected", Sent::Nothing),
    ("GET /uploads/{id}/rows", Sent::Nothing),
    ("POST /datasets/suggest", Sent::EmptyFile),
    ("POST /keys", Sent::Document("{}")),
    ("POST /tokens", Sent::Document("{\"expires_in\":0}")),
    ("POST /uploads", Sent::EmptyFile),
    ("POST /uploads", Sent::EmptyFileForDataset),
    ("POST /uploads", Sent::EmptyFormForDataset),
    ("POST /uploads/preview", Sent::EmptyFile),
    ("POST /uploads/validate", Sent::EmptyFileForDataset),
    ("POST /uploads/{id}/batches/{seq}/retry", Sent::Nothing),
    // The upload has ended, so it is not cancelled.
    ("POST /uploads/{id}/cancel", Sent::Nothing),
    ("POST /uploads/{id}/retry", Sent::Nothing),
    ("POST /uploads/{id}/undo", Sent::UnknownOption),
    ("PUT /admin/log", Sent::Document("{}")),
    ("PUT /datasets/suggest", Sent::Document("{}")),
    ("PUT /datasets/{name}", Sent::Document("{}")),
    ("PUT /uploads/{id}", Sent::EmptyFile),
    ("PUT /uploads/{id}", Sent::EmptyFileForDataset),
];

#[test]
fn every_operation_has_a_call_and_every_scope_a_key() -> Result<()> {
    let operations = operations()?;
    let mut routes: Vec<&str> = operations.iter().map(|it| it.route.as_str()).collect();
    routes.sort_unstable();
    let mut calls: Vec<&str> = CALLS.iter().map(|(route, _)| *route).collect();
    calls.dedup();
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
    if client.kind == Kind::OfOtherTenant {
        return match (is_of_upload, names_dataset(route, sent)) {
            (_, true) => Expected::Refused(404, "dataset_not_found"),
            // The id is free in this tenant.
            (true, false) if sent.is_file() => Expected::Refused(422, "empty_file"),
            (true, false) => Expected::Refused(404, "upload_not_found"),
            _ => Expected::Allowed,
        };
    }
    if client.kind == Kind::ForOtherDataset {
        match route {
            // The id is compared before the dataset, which a field of a form may name. The answer
            // says only that the tenant uses the id.
            "PUT /uploads/{id}" if sent == Sent::EmptyFile => {
                return Expected::Refused(409, "id_used");
            }
            _ if sent.is_file() => return Expected::Refused(403, "wrong_dataset"),
            "POST /tokens" => return Expected::Refused(403, "token_not_allowed"),
            _ => {}
        }
    }
    match is_of_upload && is_limited(client, operation) {
        true => Expected::Refused(404, "upload_not_found"),
        false => Expected::Allowed,
    }
}

/// Whether the scope `upload` alone allows the call, so only for uploads that the key has sent.
fn is_limited(client: &Client, operation: &Operation) -> bool {
    let Some(scopes) = &operation.scopes else {
        return false;
    };
    let has = |scope: &str| client.scopes.contains(&scope) || client.scopes.contains(&"admin");
    let is_another = |scope: &String| scope != "upload" && has(scope);
    scopes.len() > 1 && !scopes.iter().any(is_another)
}

/// What the answer to an allowed call must have, and what it must not have. The audit log is that
/// of all tenants.
fn shown(client: &Client, operation: &Operation, owned: &Owned) -> (Vec<String>, Vec<String>) {
    let upload = owned.upload.to_string();
    let dataset = format!("{DATASET:?}");
    let is_foreign = client.kind == Kind::OfOtherTenant;
    let (listed, is_hidden) = match operation.route.as_str() {
        "GET /uploads" | "GET /events" => {
            (vec![upload], is_foreign || is_limited(client, operation))
        }
        "GET /datasets" => (vec![dataset, "\"suggest\"".to_owned()], is_foreign),
        "GET /audit" => (vec![upload, dataset], false),
        _ => return (Vec::new(), Vec::new()),
    };
    match is_hidden {
        true => (Vec::new(), listed),
        false => (listed, Vec::new()),
    }
}

/// Whether the call is about a dataset of the tenant. The `PUT` of another tenant declares a
/// dataset of its own.
fn names_dataset(route: &str, sent: Sent) -> bool {
    let is_about = |method: &str| route.starts_with(&format!("{method} /datasets/"));
    sent.is_for_dataset() || is_about("GET") || is_about("DELETE")
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
    let mut path = template
        .replace("{id}", &id)
        .replace("{name}", DATASET)
        .replace("{seq}", "1");
    ensure!(!path.contains('{'), "{route} has an unknown parameter");
    // Every tenant may use these calls, so they are refused for their option only.
    let is_of_all = path.starts_with("/keys") || path.starts_with("/admin");
    let is_hidden = client.kind == Kind::OfOtherTenant && !is_of_all;
    if sent == Sent::UnknownOption && !is_hidden {
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
        Sent::EmptyFormForDataset => {
            let form = Form::new().text("dataset", DATASET);
            let file = Part::text("").file_name("sales.csv");
            call.multipart(form.part("file", file))
        }
        Sent::Document(document) => call
            .header("content-type", "application/json")
            .body(document),
    };
    Ok(call.send().await?)
}

/// Fails unless the answer is one of the document that does not refuse the key, and shows what the
/// client may see and nothing else.
async fn expect_allowed(
    answer: Response,
    client: &Client,
    operation: &Operation,
    owned: &Owned,
) -> Result<()> {
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
    if status == 200 {
        let (visible, hidden) = shown(client, operation, owned);
        for text in visible {
            ensure!(body.contains(&text), "{text} is missing in {body}");
        }
        for text in hidden {
            ensure!(!body.contains(&text), "{text} is in {body}");
        }
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
        let calls = CALLS.iter().filter(|(known, _)| *known == route);
        for ((_, sent), client) in calls.flat_map(|call| clients.iter().map(move |it| (call, it))) {
            let answer = call(&app, client, &owned, route, *sent).await?;
            let checked = match expected(client, &operation, *sent) {
                Expected::Allowed => expect_allowed(answer, client, &operation, &owned).await,
                Expected::Refused(status, code) => problem(answer, status, code).await.map(|_| ()),
            };
            checked.with_context(|| format!("{route} {sent:?} with {}", client.name))?;
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

/// Everything that a call could change. Maintenance changes other fields of an upload at any time.
async fn state(app: &App, owner: &str, owned: &Owned) -> Result<Value> {
    let page = read(app, "/uploads?limit=100", owner).await?;
    let uploads = page["uploads"].as_array().context("no uploads")?.iter();
    let uploads = uploads.map(|upload| {
        let fields = ["id", "status", "rows", "sha256"];
        fields.map(|field| upload[field].clone())
    });
    let rows = format!("/uploads/{}/rows", owned.upload);
    let keys = read(app, "/keys?tenant=acme&limit=100", ADMIN).await?;
    let key = keys["keys"].as_array().context("no keys")?;
    let key = key.iter().find(|it| it["id"] == owned.key);
    Ok(json!({
        "uploads": uploads.collect::<Vec<_>>(),
        "datasets": read(app, "/datasets", owner).await?,
        "rows": get(app, &rows, Some(owner)).await?.text().await?,
        "key": key.context("the key is not in the list")?,
        "log": read(app, "/admin/log", ADMIN).await?,
    }))
}
