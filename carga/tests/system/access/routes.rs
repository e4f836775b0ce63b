//! Every route against every scope. A new route without an entry here is a failure.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use carga_api::router::requirements;
use reqwest::Method;
use uuid::Uuid;

use super::{closed_app, key_with, request};
use crate::answers::problem;
use crate::harness::Mode;

in_both_modes! {
    each_scope_reaches_exactly_its_routes,
}

const SCOPES: [&str; 4] = ["admin", "manage", "read", "upload"];

/// The routes, and the scopes besides `admin` that each requires. `None`: the route needs no key.
const EXPECTED: &[(&str, Option<&[&str]>)] = &[
    ("GET /livez", None),
    ("GET /readyz", None),
    ("GET /openapi.json", None),
    ("GET /docs", None),
    ("GET /uploads", Some(&["read", "upload"])),
    ("POST /uploads", Some(&["upload"])),
    ("POST /uploads/preview", Some(&["upload"])),
    ("POST /uploads/validate", Some(&["upload"])),
    ("GET /uploads/{id}", Some(&["read", "upload"])),
    ("PUT /uploads/{id}", Some(&["upload"])),
    ("GET /uploads/{id}/rows", Some(&["read", "upload"])),
    ("GET /uploads/{id}/rejected", Some(&["read", "upload"])),
    ("POST /uploads/{id}/cancel", Some(&["manage", "upload"])),
    ("POST /uploads/{id}/undo", Some(&["manage"])),
    ("GET /uploads/{id}/batches", Some(&["read", "upload"])),
    ("POST /uploads/{id}/retry", Some(&["manage"])),
    ("POST /uploads/{id}/batches/{seq}/retry", Some(&["manage"])),
    ("GET /datasets", Some(&["read", "upload"])),
    ("POST /datasets/suggest", Some(&["upload"])),
    ("GET /datasets/suggest", Some(&["read", "upload"])),
    ("PUT /datasets/suggest", Some(&["manage"])),
    ("DELETE /datasets/suggest", Some(&["manage"])),
    ("GET /datasets/{name}", Some(&["read", "upload"])),
    ("PUT /datasets/{name}", Some(&["manage"])),
    ("DELETE /datasets/{name}", Some(&["manage"])),
    ("GET /events", Some(&["read", "upload"])),
    ("GET /keys", Some(&[])),
    ("POST /keys", Some(&[])),
    ("DELETE /keys/{id}", Some(&[])),
    ("GET /metrics", Some(&[])),
    ("POST /tokens", Some(&["manage", "read", "upload"])),
    ("GET /audit", Some(&[])),
    ("GET /admin/log", Some(&[])),
    ("PUT /admin/log", Some(&[])),
    ("DELETE /admin/log", Some(&[])),
];

#[test]
fn every_route_has_an_expectation_and_every_expectation_has_a_route() {
    let found = requirements().into_iter();
    let mut found: Vec<String> = found
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    found.sort();
    let mut expected: Vec<&str> = EXPECTED.iter().map(|(route, _)| *route).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// The path of a route with values for its parameters. No upload, dataset or key has them.
fn path(route: &str) -> String {
    let id = match route.starts_with("/keys") {
        true => "000000000000".to_owned(),
        false => Uuid::now_v7().to_string(),
    };
    route
        .replace("{id}", &id)
        .replace("{name}", "missing")
        .replace("{seq}", "1")
}

async fn each_scope_reaches_exactly_its_routes(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let mut keys = BTreeMap::new();
    for scope in SCOPES {
        keys.insert(scope, key_with(&app, scope).await?);
    }
    for (route, required) in EXPECTED {
        let (method, template) = route.split_once(' ').context("no method")?;
        let send = async |method: &str, key: Option<&str>| {
            let method = Method::from_bytes(method.as_bytes())?;
            anyhow::Ok(request(&app, method, &path(template), key).send().await?)
        };
        let Some(required) = required else {
            ensure!(send(method, None).await?.status() == 200, "{route}");
            continue;
        };
        problem(send(method, None).await?, 401, "missing_key").await?;
        problem(send(method, Some("x")).await?, 401, "invalid_key").await?;
        for (scope, key) in &keys {
            let is_allowed = *scope == "admin" || required.contains(scope);
            let answer = send(method, Some(key)).await?;
            if !is_allowed {
                let refused = problem(answer, 403, "missing_scope").await;
                refused.with_context(|| format!("{route} with scope {scope}"))?;
                continue;
            }
            let status = answer.status().as_u16();
            ensure!(
                !matches!(status, 401 | 403 | 405),
                "{route} {scope}: {status}"
            );
            if method == "GET" {
                let head = send("HEAD", Some(key)).await?.status().as_u16();
                ensure!(head == status, "HEAD {template} {scope}: {head}");
            }
        }
    }
    app.close().await
}
