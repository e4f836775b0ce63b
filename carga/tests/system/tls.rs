//! TLS of Carga's own port. `distributed/tls.rs` is about TLS to the servers that Carga uses.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carga_testkit::{Authority, Binary, DataDir, Running, TlsTunnel, command, eventually};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::app::{App, TIMEOUT, curl_upload};
use crate::files::{csv, paced};
use crate::harness::{Harness, Mode};
use crate::metrics::scrape;

in_both_modes! {
    a_file_is_received_with_tls_and_answers_demand_tls,
    a_client_that_is_still_sending_reads_the_refusal_with_tls,
    sighup_serves_the_new_certificate_and_keeps_the_upload_in_flight,
    a_certificate_that_cannot_be_used_leaves_the_current_one,
    a_server_without_its_certificate_does_not_start,
    a_client_without_a_handshake_is_disconnected_and_counted,
    the_health_check_reaches_a_server_with_tls,
    the_log_warns_if_keys_are_sent_without_encryption,
}

/// A Carga with TLS, and the files that it reads its certificate from.
struct Encrypted {
    app: App,
    /// The URL of the server itself. `app.url` leads through the tunnel, because the client of the
    /// app has no TLS.
    url: String,
    authority: Authority,
    _tunnel: TlsTunnel,
    files: TempDir,
}

impl Encrypted {
    async fn start(harness: Harness, workers: usize) -> Result<Self> {
        let authority = Authority::new()?;
        let files = TempDir::new()?;
        copy(&authority, files.path())?;
        let mut app = App::start(with_certificate(harness, files.path()), workers).await?;
        let url = app.url.clone();
        ensure!(url.starts_with("https://"), "{url}");
        let tunnel = TlsTunnel::start(&authority, port(&url)?).await?;
        app.url = tunnel.url();
        Ok(Self {
            app,
            url,
            authority,
            _tunnel: tunnel,
            files,
        })
    }

    /// Sends SIGHUP, and waits until the log has an outcome.
    async fn reload(&mut self, outcome: &str) -> Result<()> {
        self.app.api.hang_up()?;
        self.app.api.wait_for_log(outcome, TIMEOUT).await
    }

    /// Whether a client that trusts this authority gets an answer.
    fn is_trusted(&self, authority: &Authority) -> Result<bool> {
        let url = format!("{}/livez", self.url);
        let mut curl = Command::new("curl");
        let curl = curl.args(["--silent", "--show-error", "--cacert"]);
        let answered = curl.arg(authority.certificate()).arg(url).output()?;
        match answered.status.code() {
            Some(0) => Ok(answered.stdout == b"ok\n"),
            // curl cannot check the certificate with the authorities that it knows.
            Some(60) => Ok(false),
            _ => anyhow::bail!("{answered:?}"),
        }
    }
}

fn certificate_in(directory: &Path) -> PathBuf {
    directory.join("cert.pem")
}

fn key_in(directory: &Path) -> PathBuf {
    directory.join("key.pem")
}

/// Puts a certificate of the authority where the server reads it.
fn copy(authority: &Authority, directory: &Path) -> Result<()> {
    fs::copy(authority.server_certificate(), certificate_in(directory))?;
    fs::copy(authority.server_key(), key_in(directory))?;
    Ok(())
}

fn with_certificate(harness: Harness, directory: &Path) -> Harness {
    let certificate = certificate_in(directory).display().to_string();
    let key = key_in(directory).display().to_string();
    let harness = harness.with("CARGA_TLS_CERT", &certificate);
    harness.with("CARGA_TLS_KEY", &key)
}

fn port(url: &str) -> Result<u16> {
    let (_, port) = url.rsplit_once(':').context("no port")?;
    Ok(port.parse()?)
}

/// The program that serves in this mode.
fn binary(harness: &Harness) -> Binary {
    match harness {
        Harness::Embedded(_) => Binary::Carga,
        Harness::Distributed(_) => Binary::Api,
    }
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

async fn a_file_is_received_with_tls_and_answers_demand_tls(mode: Mode) -> Result<()> {
    let encrypted = Encrypted::start(mode.harness().await?, 1).await?;
    let Encrypted {
        app,
        url,
        authority,
        ..
    } = &encrypted;
    let id = Uuid::now_v7();
    let write = |mut input: std::process::ChildStdin| input.write_all(csv(3000).as_bytes());
    let url = format!("{url}/uploads/{id}");
    let (status, answer) = curl_upload(url, Some(authority.certificate()), write).await?;
    ensure!(status == 202, "{status}: {answer}");
    app.expect_completed(id, 3000).await?;
    let alive = app.client.get(format!("{}/livez", app.url)).send().await?;
    let demanded = alive.headers().get("strict-transport-security");
    ensure!(demanded.context("no HSTS")? == "max-age=31536000");
    // A client that does not trust the authority gets no answer.
    ensure!(!encrypted.is_trusted(&Authority::new()?)?);
    encrypted.app.close().await
}

async fn a_client_that_is_still_sending_reads_the_refusal_with_tls(mode: Mode) -> Result<()> {
    let harness = mode
        .harness()
        .await?
        .with("CARGA_MAX_UPLOAD_BYTES", "2000000");
    let encrypted = Encrypted::start(harness, 0).await?;
    // 60 MB: more than Carga reads after its answer.
    let write = |mut input: std::process::ChildStdin| {
        input.write_all(b"a,b\n")?;
        let rows = "some,row\n".repeat(7_000);
        (0..1000).try_for_each(|_| input.write_all(rows.as_bytes()))
    };
    let url = format!("{}/uploads/{}", encrypted.url, Uuid::now_v7());
    let trusted = Some(encrypted.authority.certificate());
    let (status, answer) = curl_upload(url, trusted, write).await?;
    ensure!(status == 413, "{status}: {answer}");
    ensure!(answer["code"] == "upload_too_large", "{answer}");
    encrypted.app.close().await
}

async fn sighup_serves_the_new_certificate_and_keeps_the_upload_in_flight(
    mode: Mode,
) -> Result<()> {
    let mut encrypted = Encrypted::start(mode.harness().await?, 1).await?;
    let other = Authority::new()?;
    let id = Uuid::now_v7();
    let sending = encrypted.app.start_sending(id, paced(csv(20_000), 100_000));
    encrypted.app.wait_until_begun(id).await?;
    copy(&other, encrypted.files.path())?;
    encrypted.reload("reloaded the TLS certificate").await?;
    ensure!(encrypted.is_trusted(&other)?);
    ensure!(!encrypted.is_trusted(&encrypted.authority)?);
    ensure!(!sending.is_finished(), "the upload was over too early");
    let answer = sending.await??;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    let tunnel = TlsTunnel::start(&other, port(&encrypted.url)?).await?;
    encrypted.app.url = tunnel.url();
    encrypted.app.expect_completed(id, 20_000).await?;
    encrypted.app.close().await
}

async fn a_certificate_that_cannot_be_used_leaves_the_current_one(mode: Mode) -> Result<()> {
    let mut encrypted = Encrypted::start(mode.harness().await?, 0).await?;
    let certificate = certificate_in(encrypted.files.path());
    fs::write(&certificate, "not a certificate")?;
    encrypted.reload("keeps the current one").await?;
    let log = encrypted.app.api.log();
    let reason = format!("CARGA_TLS_CERT={}", certificate.display());
    ensure!(log.contains(&reason), "{log}");
    ensure!(encrypted.is_trusted(&encrypted.authority)?);
    encrypted.app.close().await
}

async fn a_server_without_its_certificate_does_not_start(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?;
    let binary = binary(&harness);
    let authority = Authority::new()?;
    let certificate = authority.server_certificate().display().to_string();
    for (name, value, expected) in [
        ("CARGA_TLS_KEY", "", "CARGA_TLS_KEY is not set"),
        (
            "CARGA_TLS_KEY",
            "/missing.pem",
            "CARGA_TLS_KEY=/missing.pem",
        ),
        ("CARGA_TLS_KEY", &certificate, "no private key"),
    ] {
        let mut env = harness.env();
        env.insert("CARGA_TLS_CERT".to_owned(), certificate.clone());
        env.insert(name.to_owned(), value.to_owned());
        let mut refused = Running::spawn(binary, &env)?.quiet();
        let status = refused.wait(TIMEOUT).await?;
        ensure!(!status.success(), "{status}");
        let log = refused.log();
        ensure!(log.contains(expected), "`{expected}` is missing in:\n{log}");
    }
    harness.close().await
}

async fn a_client_without_a_handshake_is_disconnected_and_counted(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_HEADER_TIMEOUT_SECS", "1");
    let encrypted = Encrypted::start(harness, 0).await?;
    let metrics = format!("{}/metrics", encrypted.app.url);
    let errors = async || {
        let found = scrape(&encrypted.app, &metrics).await.ok()?;
        found.get("carga_tls_handshake_errors_total").copied()
    };
    let before = errors().await.context("the metric is missing")?;
    let address = encrypted.url.trim_start_matches("https://");
    let mut silent = TcpStream::connect(address).await?;
    let mut nothing = Vec::new();
    // Other clients are served meanwhile.
    ensure!(encrypted.is_trusted(&encrypted.authority)?);
    let read = silent.read_to_end(&mut nothing);
    let ended = tokio::time::timeout(Duration::from_secs(30), read).await;
    ended.context("the connection stays open")?.ok();
    eventually(TIMEOUT, "the handshake to be counted", async || {
        errors().await.is_some_and(|errors| errors > before)
    })
    .await?;
    encrypted.app.close().await
}

async fn the_health_check_reaches_a_server_with_tls(mode: Mode) -> Result<()> {
    let mut encrypted = Encrypted::start(mode.harness().await?, 0).await?;
    let address = encrypted.url.trim_start_matches("https://").to_owned();
    let check = |harness: &Harness| -> Result<Output> {
        let mut check = command(binary(harness))?;
        let check = check.arg("healthcheck").envs(harness.env());
        Ok(check.env("CARGA_LISTEN", &address).output()?)
    };
    let healthy = check(&encrypted.app.harness)?;
    ensure!(healthy.status.success(), "{}", text(&healthy.stderr));
    // The server still answers, so it is healthy.
    fs::write(certificate_in(encrypted.files.path()), "not a certificate")?;
    let healthy = check(&encrypted.app.harness)?;
    ensure!(healthy.status.success(), "{}", text(&healthy.stderr));
    encrypted.app.api.kill9()?;
    let unhealthy = check(&encrypted.app.harness)?;
    ensure!(!unhealthy.status.success());
    encrypted.app.close().await
}

async fn the_log_warns_if_keys_are_sent_without_encryption(mode: Mode) -> Result<()> {
    const WARNING: &str = "without encryption";
    let harness = mode.harness().await?.with("CARGA_AUTH", "on");
    let harness = harness.with("CARGA_LISTEN", "0.0.0.0:0");
    let mut app = App::start(harness, 0).await?;
    ensure!(app.api.log().contains(WARNING), "{}", app.api.log());
    app.api.kill9()?;
    app.restart_with(&[("CARGA_LISTEN", "127.0.0.1:0")]).await?;
    ensure!(!app.api.log().contains(WARNING), "{}", app.api.log());
    app.api.kill9()?;
    let authority = Authority::new()?;
    let certificate = authority.server_certificate().display().to_string();
    let key = authority.server_key().display().to_string();
    let files = [
        ("CARGA_TLS_CERT", certificate.as_str()),
        ("CARGA_TLS_KEY", &key),
    ];
    app.restart_with(&files).await?;
    ensure!(!app.api.log().contains(WARNING), "{}", app.api.log());
    app.close().await
}

#[tokio::test]
async fn commands_ask_a_server_with_tls_only_if_it_has_the_certificate_of_the_settings()
-> Result<()> {
    const KEY: &str = "the-admin-key-of-the-tests-0123456789";
    let harness = Harness::from(DataDir::new()?).with("CARGA_ADMIN_KEY", KEY);
    let mut encrypted = Encrypted::start(harness, 0).await?;
    let id = Uuid::now_v7();
    ensure!(encrypted.app.put(id, csv(10)).await?.status() == 202);
    encrypted.app.expect_completed(id, 10).await?;
    let undo = |settings: &[(&str, &str)]| -> Result<Output> {
        let mut undo = command(Binary::Carga)?;
        let undo = undo
            .args(["undo", "last"])
            .envs(encrypted.app.harness.env());
        Ok(undo.envs(settings.iter().copied()).output()?)
    };
    // Without the certificate, the command would send its key to any server.
    let unknown = undo(&[("CARGA_TLS_CERT", ""), ("CARGA_TLS_KEY", "")])?;
    ensure!(!unknown.status.success());
    let problem = text(&unknown.stderr);
    ensure!(problem.contains("CARGA_TLS_CERT"), "{problem}");
    let other = Authority::new()?;
    let certificate = other.server_certificate().display().to_string();
    let refused = undo(&[("CARGA_TLS_CERT", &certificate)])?;
    ensure!(!refused.status.success());
    let problem = text(&refused.stderr);
    ensure!(
        problem.contains("not the certificate in CARGA_TLS_CERT"),
        "{problem}"
    );
    let upload = encrypted.app.upload(id).await?.unwrap_or(Value::Null);
    ensure!(upload["status"] == "completed", "{upload}");

    let undone = undo(&[])?;
    ensure!(undone.status.success(), "{}", text(&undone.stderr));
    let upload = encrypted.app.upload(id).await?.unwrap_or(Value::Null);
    ensure!(upload["status"] == "undone", "{upload}");
    // A whole file goes through the same connection.
    validate_over_tls(&mut encrypted).await?;
    encrypted.app.close().await
}

/// `carga validate` sends a file to the server.
async fn validate_over_tls(encrypted: &mut Encrypted) -> Result<()> {
    let file = encrypted.files.path().join("rows.csv");
    fs::write(&file, csv(5000))?;
    let mut validate = command(Binary::Carga)?;
    let validate = validate.arg("validate").arg(&file);
    let validate = validate.args(["--on-duplicate", "reject", "--format", "json"]);
    let validated = validate.envs(encrypted.app.harness.env()).output()?;
    ensure!(validated.status.success(), "{}", text(&validated.stderr));
    let validation: Value = serde_json::from_slice(&validated.stdout)?;
    ensure!(validation["rows"]["would_insert"] == 5000, "{validation}");
    Ok(())
}
