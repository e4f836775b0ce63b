//! Requests from web pages: a browser lets any page send forms to any server.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use reqwest::multipart::{Form, Part};
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use uuid::Uuid;

use crate::answers::problem;
use crate::app::App;
use crate::files::csv;
use crate::harness::Mode;

in_both_modes! {
    a_page_of_another_origin_can_neither_import_nor_undo,
    a_page_of_an_allowed_origin_can_import,
    a_page_of_this_server_and_curl_can_import,
    on_loopback_a_request_for_a_foreign_host_is_refused,
}

/// The headers with which a browser marks a request from a page of another origin. Each set is
/// enough to refuse the request.
const FOREIGN: [&[(&str, &str)]; 5] = [
    &[
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ],
    &[("origin", "https://evil.example")],
    &[("origin", "null")],
    &[("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "same-site")],
];

async fn send(request: RequestBuilder, headers: &[(&str, &str)]) -> Result<Response> {
    let add = |request: RequestBuilder, (name, value): &(&str, &str)| request.header(*name, *value);
    Ok(headers.iter().fold(request, add).send().await?)
}

/// Sends a form with ten rows, as a page can without a script.
async fn send_form(app: &App, headers: &[(&str, &str)]) -> Result<Response> {
    let file = Part::text(csv(10)).file_name("rows.csv");
    let request = app.client.post(format!("{}/uploads", app.url));
    send(request.multipart(Form::new().part("file", file)), headers).await
}

async fn expect_imported(app: &App, answer: Response) -> Result<()> {
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    let upload: Value = answer.json().await?;
    let id = upload["id"].as_str().context("no id")?.parse()?;
    app.expect_completed(id, 10).await?;
    Ok(())
}

async fn a_page_of_another_origin_can_neither_import_nor_undo(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(10)).await?.status() == 202);
    app.expect_completed(id, 10).await?;
    for headers in FOREIGN {
        problem(send_form(&app, headers).await?, 403, "cross_origin").await?;
        let undo = app.client.post(format!("{}/uploads/{id}/undo", app.url));
        let answer = send(undo, headers).await?;
        problem(answer, 403, "cross_origin").await?;
        let list = app.client.get(format!("{}/uploads", app.url));
        problem(send(list, headers).await?, 403, "cross_origin").await?;
    }
    let refused = problem(send_form(&app, FOREIGN[0]).await?, 403, "cross_origin").await?;
    let detail = refused["detail"].to_string();
    ensure!(
        detail.contains("https://evil.example") && detail.contains("CARGA_ALLOWED_ORIGINS"),
        "{refused}"
    );
    app.expect_completed(id, 10).await?;
    let (_, list) = app.get("/uploads").await?;
    let uploads = list["uploads"].as_array().map(Vec::len);
    ensure!(uploads == Some(1), "{list}");
    app.close().await
}

async fn a_page_of_an_allowed_origin_can_import(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with(
        "CARGA_ALLOWED_ORIGINS",
        "https://other.example, https://app.example.org",
    );
    let app = App::start(harness, 1).await?;
    let allowed = [
        ("origin", "https://app.example.org"),
        ("sec-fetch-site", "cross-site"),
    ];
    expect_imported(&app, send_form(&app, &allowed).await?).await?;
    for headers in FOREIGN {
        problem(send_form(&app, headers).await?, 403, "cross_origin").await?;
    }
    app.close().await
}

async fn a_page_of_this_server_and_curl_can_import(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let own = [
        ("origin", app.url.as_str()),
        ("sec-fetch-site", "same-origin"),
    ];
    expect_imported(&app, send_form(&app, &own).await?).await?;

    let id = Uuid::now_v7();
    let write = |mut input: std::process::ChildStdin| input.write_all(csv(10).as_bytes());
    let (status, answer) = app.curl(id, write).await?;
    ensure!(status == 202, "{status}: {answer}");
    app.expect_completed(id, 10).await?;
    app.close().await
}

async fn on_loopback_a_request_for_a_foreign_host_is_refused(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let get = |path: &str| app.client.get(format!("{}{path}", app.url));
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
    ] {
        // After DNS rebinding, the browser takes Carga for the page's own server.
        let origin = format!("http://{host}");
        let headers = [
            ("host", host),
            ("origin", origin.as_str()),
            ("sec-fetch-site", "same-origin"),
        ];
        for headers in [&headers[..1], &headers[..]] {
            let refused = problem(send(get("/uploads"), headers).await?, 421, "wrong_host").await?;
            ensure!(refused["detail"].to_string().contains(host), "{refused}");
            problem(send_form(&app, headers).await?, 421, "wrong_host").await?;
        }
        // A probe may use any name.
        let alive = send(get("/livez"), &headers).await?;
        ensure!(alive.status() == 200, "{}", alive.text().await?);
    }
    for host in [
        "localhost",
        "localhost:8080",
        "127.0.0.1:8080",
        "[::1]:8080",
    ] {
        let answer = send(get("/uploads"), &[("host", host)]).await?;
        ensure!(answer.status() == 200, "{}", answer.text().await?);
    }
    let (_, list) = app.get("/uploads").await?;
    ensure!(list["uploads"] == serde_json::json!([]), "{list}");
    app.close().await
}
