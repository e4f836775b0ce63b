//! Declaring, showing, listing and deleting datasets.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    declare, delete, detail, expect_stored, import, options, put, putting, send, start_sending,
    undo, url,
};
use crate::answers::problem;
use crate::app::App;
use crate::files::paced;
use crate::harness::Mode;

in_both_modes! {
    a_dataset_is_declared_shown_and_deleted,
    datasets_are_listed_by_name_in_pages,
    a_page_of_large_definitions_ends_early_and_has_a_cursor,
    changes_that_the_table_can_take_are_made_and_others_are_refused,
    of_definitions_put_at_once_a_single_one_creates_the_dataset,
    a_dataset_whose_uploads_have_rows_is_not_deleted,
}

async fn a_dataset_is_declared_shown_and_deleted(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let definition = json!({
        "columns": [
            { "name": "sku", "type": "text", "required": true, "from": ["SKU", "código"] },
            { "name": "price", "type": "numeric", "decimal": "," },
        ],
        "null": ["", "NA"],
    });
    let created = put(&app, "sales", &definition, 201).await?;
    ensure!(
        created["name"] == "sales" && created["mode"] == "append" && created["key"] == json!([]),
        "{created}"
    );
    ensure!(
        created["columns"][0]["from"] == json!(["SKU", "código"])
            && created["columns"][1]["required"] == false
            && created["null"] == json!(["", "NA"])
            && created["created_at"].is_string(),
        "{created}"
    );
    let again = put(&app, "sales", &definition, 200).await?;
    ensure!(again == created, "{again} instead of {created}");
    let (status, shown) = app.get("/datasets/sales").await?;
    ensure!(status == 200 && shown == created, "{shown}");

    ensure!(delete(&app, "sales").await?.status() == 204);
    let deleted = problem(delete(&app, "sales").await?, 404, "dataset_not_found").await?;
    let shown = app.client.get(url(&app, &["datasets", "sales"])?);
    problem(shown.send().await?, 404, "dataset_not_found").await?;
    let id = Uuid::now_v7();
    let refused = send(&app, id, &options("sales", &[]), "sku,price\na,1\n").await?;
    let refused = problem(refused, 404, "dataset_not_found").await?;
    let remedy = "`PUT /datasets/sales`";
    ensure!(detail(&refused)?.contains(remedy), "{refused}");
    ensure!(!detail(&deleted)?.contains(remedy), "{deleted}");
    ensure!(app.upload(id).await?.is_none());

    // The name is free for another definition.
    declare(&app, "sales", json!([{ "name": "id", "type": "integer" }])).await?;
    import(&app, "sales", "id\n1\n", 1).await?;
    app.close().await
}

async fn datasets_are_listed_by_name_in_pages(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    for name in ["b", "Z", "é", "a b", "a"] {
        declare(&app, name, json!([{ "name": "id", "type": "integer" }])).await?;
    }
    let pages = pages(&app, 2).await?;
    ensure!(pages.iter().rev().skip(1).all(|page| page.len() == 2));
    let listed = pages.concat();
    ensure!(listed == ["Z", "a", "a b", "b", "é"], "{listed:?}");
    for (query, code) in [
        ("order=asc", "unknown_option"),
        ("limit=0", "malformed_option"),
        ("limit=101", "malformed_option"),
        ("cursor=!", "malformed_option"),
        ("limit=1&limit=1", "repeated_option"),
    ] {
        let answer = app.client.get(format!("{}/datasets?{query}", app.url));
        problem(answer.send().await?, 400, code).await?;
    }
    app.close().await
}

/// The names of all datasets, page by page.
async fn pages(app: &App, limit: u32) -> Result<Vec<Vec<String>>> {
    let mut pages = Vec::new();
    let mut path = format!("/datasets?limit={limit}");
    loop {
        let (status, page) = app.get(&path).await?;
        ensure!(status == 200, "{page}");
        let datasets = page["datasets"].as_array().context("no datasets")?;
        let names = datasets.iter().filter_map(|shown| shown["name"].as_str());
        pages.push(names.map(str::to_owned).collect());
        let Some(cursor) = page["next_cursor"].as_str() else {
            return Ok(pages);
        };
        path = format!("/datasets?limit={limit}&cursor={cursor}");
    }
}

async fn a_page_of_large_definitions_ends_early_and_has_a_cursor(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let column = |number: usize| {
        let other = |index: usize| format!("another name of column {number} in file {index}");
        let others: Vec<String> = (0..20).map(other).collect();
        json!({ "name": format!("column {number}"), "type": "text", "from": others })
    };
    let columns: Vec<Value> = (0..900).map(column).collect();
    for name in ["a", "b", "c"] {
        declare(&app, name, json!(columns)).await?;
    }
    let pages = pages(&app, 100).await?;
    ensure!(pages == [vec!["a", "b"], vec!["c"]], "{pages:?}");
    app.close().await
}

async fn changes_that_the_table_can_take_are_made_and_others_are_refused(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let a = json!({ "name": "a", "type": "integer" });
    let b = json!({ "name": "b", "type": "text", "required": true });
    let c = json!({ "name": "c", "type": "date" });
    declare(&app, "changing", json!([a, b])).await?;
    import(&app, "changing", "a,b\n1,x\n", 1).await?;

    let with = |column: &Value, field: &str, value: Value| {
        let mut column = column.clone();
        column[field] = value;
        column
    };
    for refused in [
        json!([with(&a, "type", json!("text")), b]),
        json!([with(&a, "required", json!(true)), b]),
        json!([a, with(&b, "required", json!(false))]),
        json!([a]),
        json!([b, a]),
        json!([a, c, b]),
        json!([a, b, with(&c, "required", json!(true))]),
    ] {
        let (_, before) = app.get("/datasets/changing").await?;
        let answer = putting(&app, "changing", &json!({ "columns": refused }))?;
        problem(answer.send().await?, 409, "dataset_conflict").await?;
        let (_, after) = app.get("/datasets/changing").await?;
        ensure!(after == before, "{after} instead of {before}");
    }
    for accepted in [
        json!({ "columns": [with(&a, "from", json!(["number"])), b], "null": ["-"] }),
        json!({ "columns": [a, b, c] }),
    ] {
        let shown = put(&app, "changing", &accepted, 200).await?;
        ensure!(shown["updated_at"] != shown["created_at"], "{shown}");
    }
    import(&app, "changing", "a,b,c\n2,y,2024-02-29\n", 1).await?;
    let cells = "a, b, c";
    let rows = app.harness.typed("changing", cells, cells).await?;
    ensure!(
        rows == json!([[1, "x", null], [2, "y", "2024-02-29"]]),
        "{rows}"
    );
    app.close().await
}

async fn of_definitions_put_at_once_a_single_one_creates_the_dataset(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let put_all = async |dataset: &str, kinds: [&str; 6]| -> Result<Vec<u16>> {
        let answers = kinds.map(|kind| {
            let definition = json!({ "columns": [{ "name": "a", "type": kind }] });
            let request = putting(&app, dataset, &definition);
            async move { anyhow::Ok(request?.send().await?.status().as_u16()) }
        });
        try_join_all(answers).await
    };
    let different = ["text", "integer", "numeric", "float", "boolean", "date"];
    let statuses = put_all("different", different).await?;
    let created = statuses.iter().position(|status| *status == 201);
    let created = created.with_context(|| format!("{statuses:?}"))?;
    let count = |statuses: &[u16], wanted: u16| {
        let found = statuses.iter().filter(|status| **status == wanted);
        found.count()
    };
    ensure!(
        count(&statuses, 201) == 1 && count(&statuses, 409) == 5,
        "{statuses:?}"
    );
    let (_, shown) = app.get("/datasets/different").await?;
    ensure!(
        shown["columns"][0]["type"] == different[created],
        "{shown} instead of {}",
        different[created]
    );
    let statuses = put_all("equal", ["text"; 6]).await?;
    ensure!(
        count(&statuses, 201) == 1 && count(&statuses, 200) == 5,
        "{statuses:?}"
    );
    app.close().await
}

async fn a_dataset_whose_uploads_have_rows_is_not_deleted(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare(&app, "sales", json!([{ "name": "id", "type": "integer" }])).await?;
    let receiving = Uuid::now_v7();
    let numbers: String = (1..=60_000).map(|number| format!("{number}\n")).collect();
    let file = paced(format!("id\n{numbers}"), 100_000);
    let sent = start_sending(&app, receiving, "sales", file)?;
    app.wait_until_begun(receiving).await?;
    let in_use = async || -> Result<()> {
        let refused = problem(delete(&app, "sales").await?, 409, "dataset_in_use").await?;
        let detail = detail(&refused)?;
        for part in [
            ": 1;",
            "cancel uploads that have not ended",
            "undo those that have rows",
            "`GET /uploads?dataset=sales`",
        ] {
            ensure!(detail.contains(part), "no {part}: {detail}");
        }
        Ok(())
    };
    in_use().await?;
    ensure!(sent.await??.status() == 202);
    expect_stored(&app, "sales", receiving, "completed", 60_000).await?;
    in_use().await?;

    undo(&app, receiving).await?;
    ensure!(delete(&app, "sales").await?.status() == 204);
    // The record of the upload stays.
    let (_, list) = app.get("/uploads?dataset=sales").await?;
    let uploads = list["uploads"].as_array().context("no uploads")?;
    ensure!(
        uploads.len() == 1
            && uploads[0]["id"] == receiving.to_string()
            && uploads[0]["dataset"] == "sales",
        "{list}"
    );
    let (_, list) = app.get("/uploads?dataset=other").await?;
    ensure!(list["uploads"] == json!([]), "{list}");
    app.close().await
}
