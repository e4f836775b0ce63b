//! `carga import` merges rows into a dataset, and `carga undo` takes them back.

use anyhow::{Result, ensure};
use carga_testkit::{DataDir, eventually};
use serde_json::{Value, json};
use uuid::Uuid;

use super::datasets::{Files, expect};
use crate::app::{App, TIMEOUT};
use crate::harness::Harness;

const DEFINITION: &str = r#"{
    "columns": [
        { "name": "sku", "type": "text" },
        { "name": "price", "type": "numeric" }
    ],
    "key": ["sku"]
}"#;

/// The dialect of the files, which are too small to detect it.
const DIALECT: [&str; 6] = ["--delimiter", ",", "--header", "true", "--skip", "0"];

/// Imports a file. Fails unless the command ends with this exit code and prints all these texts.
fn import(
    harness: &Harness,
    options: &[&str],
    file: &str,
    code: i32,
    texts: &[&str],
) -> Result<()> {
    let import = ["import", "--dataset", "prices"];
    let arguments = [&import[..], &DIALECT, options, &["-"]].concat();
    expect(harness, &arguments, file, code, texts)?;
    Ok(())
}

/// Fails unless these are the visible rows, in the order of their uploads.
async fn expect_rows(harness: &Harness, expected: Value) -> Result<()> {
    let rows = harness.typed("prices", "sku, price", "sku, price").await?;
    ensure!(rows == expected, "{rows} instead of {expected}");
    Ok(())
}

#[tokio::test]
async fn an_import_merges_rows_by_the_mode_of_its_options() -> Result<()> {
    let (harness, files) = (Harness::from(DataDir::new()?), Files::new()?);
    let definition = files.write("prices.json", DEFINITION)?;
    let put = ["dataset", "put", "prices", &definition];
    expect(&harness, &put, "", 0, &["dataset prices is created"])?;
    let first = "sku,price\na,1.50\nb,2.50\n";
    import(&harness, &[], first, 0, &["2 rows"])?;

    // The mode of the dataset is `update`.
    let second = "sku,price\na,3.50\nb,2.50\nc,4.50\nd,cheap\n";
    let texts = ["1 were inserted, 1 updated, 1 changed nothing, 1 rejected"];
    import(&harness, &[], second, 3, &texts)?;
    let updated = json!([["b", "2.50"], ["a", "3.50"], ["c", "4.50"]]);
    expect_rows(&harness, updated.clone()).await?;
    let status = expect(&harness, &["status", "last"], "", 0, &[])?;
    let status: Value = serde_json::from_str(&status)?;
    let rows = &status["rows"];
    ensure!(
        rows["inserted"] == 1 && rows["updated"] == 1 && rows["duplicate"] == 1,
        "{status}"
    );

    let third = "sku,price\na,5.50\ne,6.50\n";
    let texts = ["1 were inserted, 0 updated, 1 changed nothing"];
    import(&harness, &["--mode", "ignore"], third, 0, &texts)?;
    expect(&harness, &["undo", "last"], "", 0, &["1 row taken back"])?;
    expect_rows(&harness, updated.clone()).await?;
    let append = ["--mode", "append", "--atomic", "true"];
    import(&harness, &append, third, 3, &["1 were", "1 rejected"])?;
    expect(&harness, &["undo", "last"], "", 0, &["1 row taken back"])?;
    import(&harness, &["--mode", "upsert"], third, 2, &["`mode`"])?;
    import(&harness, &["--atomic", "yes"], third, 2, &["`atomic`"])?;
    expect_rows(&harness, updated).await?;
    harness.close().await
}

#[tokio::test]
async fn an_undo_after_the_days_of_the_setting_is_refused() -> Result<()> {
    let directory = DataDir::new()?.with("CARGA_UNDO_DAYS", "1");
    let mut app = App::start(directory, 0).await?;
    let files = Files::new()?;
    let definition = files.write("prices.json", DEFINITION)?;
    let put = ["dataset", "put", "prices", &definition];
    expect(&app.harness, &put, "", 0, &["is created"])?;
    let query = "dataset=prices&delimiter=,&header=true";
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    for (id, file) in ids
        .into_iter()
        .zip(["sku,price\na,1\n", "sku,price\na,2\n"])
    {
        ensure!(app.put_with(id, query, file).await?.status() == 202);
        app.wait_until_ended(id).await?;
    }
    // Carga looks for old uploads when it starts.
    app.api.kill9()?;
    let age = "UPDATE uploads SET finished_at = '2024-01-01T00:00:00.000000Z'";
    app.harness.execute("", age).await?;
    app.restart().await?;
    let [_, id] = ids;
    eventually(TIMEOUT, "the previous values to be forgotten", async || {
        let upload = app.upload(id).await.ok().flatten();
        upload.is_some_and(|upload| upload["reversible"] == false)
    })
    .await?;
    let undo = ["undo", &id.to_string()];
    // With a server that runs, and without one.
    expect(&app.harness, &undo, "", 1, &["CARGA_UNDO_DAYS"])?;
    app.api.terminate()?;
    app.api.wait(TIMEOUT).await?;
    expect(&app.harness, &undo, "", 1, &["CARGA_UNDO_DAYS"])?;
    let rows = app.harness.typed("prices", "price", "price").await?;
    ensure!(rows == json!([["2"]]), "{rows}");
    app.close().await
}
