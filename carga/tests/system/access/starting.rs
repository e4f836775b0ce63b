//! Whether keys are required is decided at the start.

use anyhow::{Result, ensure};
use carga_testkit::{Binary, Running};
use reqwest::Method;
use serde_json::json;

use super::{ADMIN, get, request, run};
use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::harness::{Harness, Mode};

in_both_modes! {
    a_listener_for_other_machines_does_not_start_before_the_setting_is_set,
    a_loopback_listener_requires_no_key_unless_the_setting_says_so,
    the_log_says_how_to_make_a_key_while_no_key_may_make_others,
}

const EVERY_ADDRESS: &str = "0.0.0.0:0";

/// Every address of IPv6, and with it of IPv4.
const EVERY_ADDRESS_OF_IPV6: &str = "[::]:0";

/// Starts a program that does not start, and returns its log.
async fn log_of_refusal(harness: &Harness) -> Result<String> {
    let binary = match harness {
        Harness::Embedded(_) => Binary::Carga,
        Harness::Distributed(_) => Binary::Api,
    };
    let mut refused = Running::spawn(binary, &harness.env())?.quiet();
    let status = refused.wait(TIMEOUT).await?;
    ensure!(!status.success(), "{status}");
    Ok(refused.log())
}

async fn a_listener_for_other_machines_does_not_start_before_the_setting_is_set(
    mode: Mode,
) -> Result<()> {
    let mut harness = mode.harness().await?;
    for address in [EVERY_ADDRESS_OF_IPV6, EVERY_ADDRESS] {
        harness = harness.with("CARGA_LISTEN", address);
        let log = log_of_refusal(&harness).await?;
        for expected in [address, "CARGA_AUTH", "`on`", "`off`", "carga keys create"] {
            ensure!(log.contains(expected), "`{expected}` is missing in:\n{log}");
        }
    }

    let mut app = App::start(harness.with("CARGA_AUTH", "on"), 0).await?;
    problem(get(&app, "/uploads", None).await?, 401, "missing_key").await?;
    // A data directory has one server at a time.
    app.api.kill9()?;
    app.restart_with(&[("CARGA_AUTH", "off")]).await?;
    ensure!(get(&app, "/uploads", None).await?.status() == 200);
    ensure!(app.api.log().contains("authentication is off"));
    app.api.kill9()?;
    let off = [("CARGA_AUTH", "off"), ("CARGA_ADMIN_KEY", ADMIN)];
    app.restart_with(&off).await?;
    for warning in ["CARGA_ADMIN_KEY has no effect", "every client that reaches"] {
        ensure!(app.api.log().contains(warning), "{}", app.api.log());
    }
    app.close().await
}

async fn a_loopback_listener_requires_no_key_unless_the_setting_says_so(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_ADMIN_KEY", ADMIN);
    let mut app = App::start(harness, 0).await?;
    for path in ["/uploads", "/keys"] {
        ensure!(get(&app, path, None).await?.status() == 200);
        // Without authentication, a key means nothing.
        ensure!(get(&app, path, Some("x")).await?.status() == 200);
    }
    ensure!(app.api.log().contains("CARGA_ADMIN_KEY has no effect"));
    // Nobody would check a key that is made now.
    let post = request(&app, Method::POST, "/keys", None);
    let answer = post.json(&json!({ "scopes": ["read"] })).send().await?;
    problem(answer, 409, "authentication_off").await?;
    app.api.kill9()?;
    app.restart_with(&[("CARGA_AUTH", "on")]).await?;
    problem(get(&app, "/uploads", None).await?, 401, "missing_key").await?;
    ensure!(get(&app, "/keys", Some(ADMIN)).await?.status() == 200);
    app.close().await
}

async fn the_log_says_how_to_make_a_key_while_no_key_may_make_others(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_AUTH", "on");
    let mut app = App::start(harness, 0).await?;
    let hint = "carga keys create --admin";
    ensure!(app.api.log().contains(hint), "{}", app.api.log());
    let (key, _) = run(&app.harness, &["keys", "create", "--admin"])?;
    ensure!(get(&app, "/keys", Some(key.trim())).await?.status() == 200);
    app.api.kill9()?;
    app.restart().await?;
    ensure!(get(&app, "/keys", Some(key.trim())).await?.status() == 200);
    ensure!(!app.api.log().contains(hint), "{}", app.api.log());
    // A key that may make no keys, and one that is revoked, are not enough.
    run(&app.harness, &["keys", "create", "--scope", "read"])?;
    run(&app.harness, &["keys", "revoke", key.trim()])?;
    app.api.kill9()?;
    app.restart().await?;
    ensure!(app.api.log().contains(hint), "{}", app.api.log());
    app.close().await
}
