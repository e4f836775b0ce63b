//! Names and cells may contain SQL, and stay names and cells.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{declare, delete, detail, import, options, putting, send, undo, url};
use crate::answers::problem;
use crate::app::App;
use crate::harness::{Mode, quoted};

in_both_modes! {
    names_and_cells_that_contain_sql_are_only_names_and_cells,
    a_name_that_no_dataset_can_have_is_refused,
}

const DATASETS: [&str; 5] = [
    "x\"; DROP TABLE uploads; --",
    "a'); DELETE FROM batches; --",
    "it's 100 % $1 ?1 \\ {} é",
    "SELECT",
    "a.b",
];

const COLUMNS: [&str; 7] = [
    "a\"); DROP TABLE uploads; --",
    "'; DELETE FROM datasets; --",
    "select",
    "$1 ?1",
    "100 %s \\ {}",
    "a/b.c",
    "línea",
];

/// A file with a header of these names, and with a row of these cells.
fn file_of(header: &[&str], cells: &[&str]) -> Result<Vec<u8>> {
    let mut file = csv::Writer::from_writer(Vec::new());
    file.write_record(header)?;
    file.write_record(cells)?;
    Ok(file.into_inner()?)
}

async fn names_and_cells_that_contain_sql_are_only_names_and_cells(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let columns = COLUMNS.map(|name| json!({ "name": name, "type": "text" }));
    let cells = COLUMNS.map(|name| format!("'); {name}"));
    let cells = cells.each_ref().map(String::as_str);
    let file = file_of(&COLUMNS, &cells)?;
    let selected = COLUMNS.map(quoted).join(", ");
    let mut ids = Vec::new();
    for dataset in DATASETS {
        declare(&app, dataset, json!(columns)).await?;
        ids.push(import(&app, dataset, file.clone(), 1).await?);
        let rows = app.harness.typed(dataset, &selected, &selected).await?;
        ensure!(rows == json!([cells]), "{dataset}: {rows}");

        let header = [DATASETS[0], COLUMNS[0]];
        let unknown = file_of(&header, &["1", "2"])?;
        let refused = send(&app, Uuid::now_v7(), &options(dataset, &[]), unknown).await?;
        problem(refused, 422, "columns_do_not_match").await?;
    }
    let unknown = options("y\"; DROP TABLE uploads; --", &[]);
    let refused = send(&app, Uuid::now_v7(), &unknown, "a\n1\n").await?;
    problem(refused, 404, "dataset_not_found").await?;

    let mut by_dataset = url(&app, &["uploads"])?;
    for (dataset, id) in DATASETS.into_iter().zip(ids) {
        by_dataset
            .query_pairs_mut()
            .clear()
            .append_pair("dataset", dataset);
        let list = app.client.get(by_dataset.clone()).send().await?;
        let list: Value = list.json().await?;
        ensure!(list["uploads"][0]["id"] == id.to_string(), "{list}");
        undo(&app, id).await?;
        let deleted = delete(&app, dataset).await?;
        ensure!(deleted.status() == 204, "{}", deleted.text().await?);
    }
    let (_, list) = app.get("/datasets").await?;
    ensure!(list["datasets"] == json!([]), "{list}");
    let (_, list) = app.get("/uploads").await?;
    let uploads = list["uploads"].as_array().map(Vec::len);
    ensure!(uploads == Some(DATASETS.len()), "{list}");
    app.close().await
}

async fn a_name_that_no_dataset_can_have_is_refused(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let definition = json!({ "columns": [{ "name": "a", "type": "text" }] });
    let too_long = "x".repeat(59);
    for (name, rule) in [
        ("a/b", "must not contain `/`"),
        ("sales_rows", "must not end in `_rows`"),
        (" ", "must not be empty or blank"),
        ("a\u{1}b", "control characters"),
        (&too_long, "at most 58 bytes"),
    ] {
        let answer = putting(&app, name, &definition)?.send().await?;
        let refused = problem(answer, 400, "malformed_name").await?;
        ensure!(detail(&refused)?.contains(rule), "{name}: {refused}");
        let answer = send(&app, Uuid::now_v7(), &options(name, &[]), "a\n1\n").await?;
        let refused = problem(answer, 400, "malformed_option").await?;
        ensure!(detail(&refused)?.contains(rule), "{name}: {refused}");
    }
    let not_utf8 = app.client.get(format!("{}/datasets/%FF", app.url));
    problem(not_utf8.send().await?, 400, "malformed_name").await?;
    app.close().await
}
