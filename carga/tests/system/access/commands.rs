//! `carga keys`, and the key of other commands.

use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use carga_testkit::{Binary, DataDir, Running};
use serde_json::Value;

use super::{ADMIN, carga, closed_app, get, run, secret};
use crate::app::TIMEOUT;
use crate::harness::{Harness, Mode};

in_both_modes! {
    commands_make_list_and_revoke_keys,
}

/// Makes a key with every field.
const CREATE: &[&str] = &[
    "keys",
    "create",
    "--scope",
    "upload",
    "--scope",
    "read",
    "--tenant",
    "acme",
    "--dataset",
    "sales",
    "--name",
    "till 4",
    "--expires-in",
    "30",
];

async fn commands_make_list_and_revoke_keys(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let (printed, notes) = run(&app.harness, CREATE)?;
    // Standard output has the key alone, so that a script can take it.
    let key = printed.strip_suffix('\n').context("no line")?;
    ensure!(key.len() == 68 && key.starts_with("carga_"), "{printed}");
    let id = &key[6..18];
    for expected in [id, "acme", "till 4", "read upload", "sales", "expires at"] {
        ensure!(
            notes.contains(expected),
            "`{expected}` is missing in:\n{notes}"
        );
    }
    ensure!(!notes.contains(secret(key)?), "{notes}");
    ensure!(get(&app, "/uploads", Some(key)).await?.status() == 200);

    let served: Value = get(&app, "/keys", Some(ADMIN)).await?.json().await?;
    ensure!(served["keys"][0]["id"] == id, "{served}");
    let state = |state: &str| -> Result<()> {
        let (listed, _) = run(&app.harness, &["keys", "list", "--tenant", "acme"])?;
        let line = listed.lines().find(|line| line.starts_with(id));
        let line = line.with_context(|| format!("no {id} in:\n{listed}"))?;
        ensure!(line.contains(state) && line.ends_with("till 4"), "{listed}");
        ensure!(!listed.contains(secret(key)?), "{listed}");
        Ok(())
    };
    state("active")?;
    let (nothing, _) = run(&app.harness, &["keys", "list", "--tenant", "other"])?;
    ensure!(nothing.lines().count() == 1, "{nothing}");
    // The error does not repeat a faulty key, because most of its characters may be right.
    let mistyped = carga(&app.harness, &["keys", "revoke", &key[..67]])?.output()?;
    let problem = String::from_utf8(mistyped.stderr)?;
    ensure!(
        !mistyped.status.success() && problem.contains("12 letters"),
        "{problem}"
    );
    ensure!(!problem.contains(&secret(key)?[..8]), "{problem}");
    state("active")?;
    let (revoked, _) = run(&app.harness, &["keys", "revoke", key])?;
    ensure!(revoked == format!("key {id} is revoked\n"), "{revoked}");
    run(&app.harness, &["keys", "revoke", id])?;
    state("revoked")?;
    let unknown = carga(&app.harness, &["keys", "revoke", "000000000000"])?.output()?;
    let problem = String::from_utf8(unknown.stderr)?;
    ensure!(problem.contains("does not exist"), "{problem}");
    app.close().await
}

#[test]
fn the_first_key_is_made_without_a_server() -> Result<()> {
    let harness = Harness::from(DataDir::new()?);
    let none = carga(&harness, &["keys", "list"])?.output()?;
    ensure!(!none.status.success(), "{none:?}");
    ensure!(!harness.directory()?.path().exists());
    let (key, _) = run(&harness, &["keys", "create", "--admin"])?;
    let (listed, _) = run(&harness, &["keys", "list"])?;
    ensure!(
        listed.contains(&key[6..18]) && listed.contains("admin"),
        "{listed}"
    );
    let faulty = ["keys", "create", "--scope", "read", "--dataset", "sales"];
    let faulty = carga(&harness, &faulty)?.output()?;
    let problem = String::from_utf8(faulty.stderr)?;
    ensure!(
        problem.contains("`dataset`") && faulty.stdout.is_empty(),
        "{problem}"
    );
    Ok(())
}

#[test]
fn a_key_that_could_not_be_printed_is_named_so_that_it_can_be_revoked() -> Result<()> {
    let harness = Harness::from(DataDir::new()?);
    let mut create = carga(&harness, &["keys", "create", "--admin"])?;
    let mut create = create
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Nobody reads the key.
    drop(create.stdout.take());
    let created = create.wait_with_output()?;
    let problem = String::from_utf8(created.stderr)?;
    ensure!(!created.status.success(), "{problem}");
    let (_, rest) = problem
        .split_once("carga keys revoke ")
        .context("no remedy")?;
    let id = rest.get(..12).context("no id")?;
    run(&harness, &["keys", "revoke", id])?;
    let (listed, _) = run(&harness, &["keys", "list"])?;
    ensure!(
        listed.contains(id) && listed.contains("revoked"),
        "{listed}"
    );
    Ok(())
}

#[tokio::test]
async fn a_server_and_the_command_for_its_first_key_may_start_at_once() -> Result<()> {
    for server_is_first in [true, false, true, false] {
        let harness = Harness::from(DataDir::new()?).with("CARGA_AUTH", "on");
        let create = || -> Result<Child> {
            let mut create = carga(&harness, &["keys", "create", "--admin"])?;
            let create = create.stdout(Stdio::piped()).stderr(Stdio::piped());
            Ok(create.spawn()?)
        };
        let serve = || Running::spawn(Binary::Carga, &harness.env());
        let (mut server, create) = if server_is_first {
            let server = serve()?;
            (server, create()?)
        } else {
            let create = create()?;
            (serve()?, create)
        };
        let url = server.base_url(TIMEOUT).await?;
        let created = create.wait_with_output()?;
        let notes = String::from_utf8(created.stderr)?;
        ensure!(created.status.success(), "{notes}");
        let key = String::from_utf8(created.stdout)?;
        let listing = reqwest::Client::new().get(format!("{url}/keys"));
        let listed = listing.header("x-api-key", key.trim()).send().await?;
        ensure!(listed.status() == 200, "{}", listed.text().await?);
    }
    Ok(())
}

#[tokio::test]
async fn a_command_asks_a_closed_server_with_the_admin_key() -> Result<()> {
    let app = closed_app(Mode::Embedded, 0).await?;
    let directory = tempfile::TempDir::new()?;
    let file = directory.path().join("sales.json");
    std::fs::write(
        &file,
        r#"{ "columns": [{ "name": "sku", "type": "text" }] }"#,
    )?;
    let file = file.to_str().context("no text")?;
    let put = ["dataset", "put", "sales", file];
    let refused = carga(&app.harness, &put)?
        .env_remove("CARGA_ADMIN_KEY")
        .output()?;
    let problem = String::from_utf8(refused.stderr)?;
    ensure!(problem.contains("CARGA_ADMIN_KEY"), "{problem}");
    run(&app.harness, &put)?;
    let dataset = get(&app, "/datasets/sales", Some(ADMIN)).await?;
    ensure!(dataset.status() == 200);
    let file = directory.path().join("sales.csv");
    std::fs::write(&file, "sku\na\n")?;
    let file = file.to_str().context("no text")?;
    let dialect = ["--delimiter", ",", "--header", "true"];
    let validate = ["validate", "--dataset", "sales", file];
    run(&app.harness, &[&validate[..], &dialect].concat())?;
    run(&app.harness, &["dataset", "delete", "sales"])?;
    app.close().await
}
