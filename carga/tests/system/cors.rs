//! CORS: what a browser asks before it lets a page of an allowed origin send a request, and what it
//! needs to show the answer to the page.

use anyhow::{Context, Result, ensure};
use reqwest::{Method, RequestBuilder, Response};
use uuid::Uuid;

use crate::access::{ADMIN as KEY, closed_harness};
use crate::answers::problem;
use crate::app::App;
use crate::files::csv;
use crate::harness::Mode;

in_both_modes! {
    a_preflight_of_an_allowed_page_is_answered_without_a_key,
    a_preflight_of_another_page_is_refused,
    an_allowed_page_can_read_every_answer,
    without_allowed_origins_no_answer_has_headers_for_pages,
}

/// The page that may use Carga, besides another one.
const PAGE: &str = "https://app.example.org";

/// A Carga that requires keys and allows the page.
async fn app_for_pages(mode: Mode) -> Result<App> {
    let harness = closed_harness(mode).await?;
    let origins = format!("http://localhost:3000,{PAGE}");
    let harness = harness.with("CARGA_ALLOWED_ORIGINS", &origins);
    App::start(harness.with("CARGA_MAX_UPLOAD_BYTES", "100000"), 0).await
}

/// A request as a browser sends it for a script of a page.
fn from_page(app: &App, method: Method, path: &str, origin: &str) -> RequestBuilder {
    let request = app.client.request(method, format!("{}{path}", app.url));
    let request = request.header("origin", origin);
    request.header("sec-fetch-site", "cross-site")
}

/// Asks whether a page may send a request with this method, a key and a media type.
async fn preflight(app: &App, path: &str, method: &str, origin: &str) -> Result<Response> {
    let request = from_page(app, Method::OPTIONS, path, origin);
    let request = request.header("access-control-request-method", method);
    let headers = "content-type,x-api-key";
    let request = request.header("access-control-request-headers", headers);
    Ok(request.send().await?)
}

fn header<'a>(answer: &'a Response, name: &str) -> Result<&'a str> {
    let value = answer.headers().get(name);
    let value = value.with_context(|| format!("no {name} in {:?}", answer.headers()))?;
    Ok(value.to_str()?)
}

/// Fails unless a browser shows this answer to the page.
fn expect_readable(answer: &Response) -> Result<()> {
    ensure!(header(answer, "access-control-allow-origin")? == PAGE);
    ensure!(header(answer, "vary")?.contains("origin"));
    let exposed = header(answer, "access-control-expose-headers")?;
    for name in ["location", "retry-after", "x-request-id"] {
        ensure!(exposed.contains(name), "{exposed}");
    }
    // A key is not a cookie, so a page needs no permission to send cookies.
    let credentials = "access-control-allow-credentials";
    ensure!(!answer.headers().contains_key(credentials));
    Ok(())
}

async fn a_preflight_of_an_allowed_page_is_answered_without_a_key(mode: Mode) -> Result<()> {
    let app = app_for_pages(mode).await?;
    let upload = format!("/uploads/{}", Uuid::now_v7());
    for (path, method, methods) in [
        ("/uploads", "POST", &["GET", "POST", "HEAD"][..]),
        (&upload, "PUT", &["GET", "PUT", "HEAD"]),
        (
            "/datasets/sales",
            "DELETE",
            &["GET", "PUT", "DELETE", "HEAD"],
        ),
        ("/readyz", "GET", &["GET", "HEAD"]),
        // So that the page can read the 404.
        (
            "/no/such/path",
            "GET",
            &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        ),
    ] {
        let answer = preflight(&app, path, method, PAGE).await?;
        ensure!(answer.status() == 204, "{path}: {}", answer.status());
        expect_readable(&answer)?;
        let allowed = header(&answer, "access-control-allow-methods")?;
        let mut allowed: Vec<&str> = allowed.split(',').collect();
        allowed.sort_unstable();
        let mut methods = methods.to_vec();
        methods.sort_unstable();
        ensure!(allowed == methods, "{path}: {allowed:?}");
        let headers = header(&answer, "access-control-allow-headers")?;
        for name in ["authorization", "x-api-key", "content-type", "traceparent"] {
            ensure!(headers.contains(name), "{headers}");
        }
        ensure!(header(&answer, "access-control-max-age")? == "600");
    }
    // Without the header of a preflight, it is a request like any other.
    let options = from_page(&app, Method::OPTIONS, "/uploads", PAGE);
    problem(options.send().await?, 401, "missing_key").await?;
    app.close().await
}

async fn a_preflight_of_another_page_is_refused(mode: Mode) -> Result<()> {
    let app = app_for_pages(mode).await?;
    for origin in ["https://evil.example", "null", "http://app.example.org"] {
        let answer = preflight(&app, "/uploads", "POST", origin).await?;
        ensure!(!answer.headers().contains_key("access-control-allow-origin"));
        problem(answer, 403, "cross_origin").await?;
    }
    app.close().await
}

async fn an_allowed_page_can_read_every_answer(mode: Mode) -> Result<()> {
    let app = app_for_pages(mode).await?;
    let put = |id: Uuid, file: String| {
        let request = from_page(&app, Method::PUT, &format!("/uploads/{id}"), PAGE);
        let request = request.header("x-api-key", KEY);
        request.header("content-type", "text/csv").body(file)
    };
    let accepted = put(Uuid::now_v7(), csv(10)).send().await?;
    ensure!(accepted.status() == 202, "{}", accepted.status());
    expect_readable(&accepted)?;
    let refused = put(Uuid::now_v7(), csv(10_000)).send().await?;
    expect_readable(&refused)?;
    problem(refused, 413, "upload_too_large").await?;

    for (path, key, status) in [
        ("/uploads", Some(KEY), 200),
        ("/uploads", None, 401),
        ("/no/such/path", Some(KEY), 404),
        ("/uploads/preview", Some(KEY), 405),
        ("/livez", None, 200),
    ] {
        let mut request = from_page(&app, Method::GET, path, PAGE);
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        let answer = request.send().await?;
        ensure!(answer.status() == status, "{path}: {}", answer.status());
        expect_readable(&answer).with_context(|| path.to_owned())?;
    }
    let foreign = from_page(&app, Method::GET, "/uploads", "https://evil.example");
    let foreign = foreign.header("x-api-key", KEY).send().await?;
    ensure!(
        !foreign
            .headers()
            .contains_key("access-control-allow-origin")
    );
    problem(foreign, 403, "cross_origin").await?;
    // A cache must not give this answer to a page.
    let other = app.client.get(format!("{}/livez", app.url)).send().await?;
    ensure!(header(&other, "vary")?.contains("origin"));
    ensure!(!other.headers().contains_key("access-control-allow-origin"));
    app.close().await
}

async fn without_allowed_origins_no_answer_has_headers_for_pages(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let answer = preflight(&app, "/uploads", "POST", PAGE).await?;
    problem(answer, 403, "cross_origin").await?;
    let own = app.url.clone();
    let own = app
        .client
        .get(format!("{}/uploads", app.url))
        .header("origin", own);
    let own = own.send().await?;
    ensure!(own.status() == 200, "{}", own.status());
    let for_pages = |name: &str| name.starts_with("access-control-");
    ensure!(!own.headers().keys().any(|name| for_pages(name.as_str())));
    app.close().await
}
