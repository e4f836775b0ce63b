//! The columns of a file are matched with those of the dataset before any row is read.

use anyhow::{Result, ensure};
use serde_json::json;
use uuid::Uuid;

use super::{declare, detail, expect_stored, import, options, put, send};
use crate::answers::problem;
use crate::app::{App, KNOWN_DIALECT};
use crate::harness::Mode;

in_both_modes! {
    columns_that_do_not_match_are_all_named_in_one_refusal,
    unknown_columns_are_ignored_on_request_and_missing_ones_are_null,
    an_added_column_is_null_in_old_rows_and_filled_from_new_files,
    a_preview_does_not_take_a_dataset,
}

async fn columns_that_do_not_match_are_all_named_in_one_refusal(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let columns = json!([
        { "name": "sku", "type": "text", "required": true },
        { "name": "price", "type": "numeric", "required": true },
        { "name": "name", "type": "text" },
    ]);
    declare(&app, "articles", columns).await?;
    let id = Uuid::now_v7();
    let file = "skuu,Name,NÁME,colour\na,b,c,d\n";
    let refused = send(&app, id, &options("articles", &[]), file).await?;
    let refused = problem(refused, 422, "columns_do_not_match").await?;
    // Missing, unknown and ambiguous columns; the two spellings of `name` mean the same column.
    for column in ["sku", "price", "skuu", "colour", "Name", "NÁME"] {
        let named = format!("`{column}`");
        ensure!(detail(&refused)?.contains(&named), "no {named}: {refused}");
    }
    ensure!(app.upload(id).await?.is_none(), "the file left an upload");
    ensure!(app.harness.count_typed("articles", id).await? == (0, 0));
    app.close().await
}

async fn unknown_columns_are_ignored_on_request_and_missing_ones_are_null(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let columns = json!([
        { "name": "sku", "type": "text", "required": true },
        { "name": "price", "type": "numeric" },
        { "name": "note", "type": "text" },
    ]);
    declare(&app, "articles", columns).await?;
    let file = "colour,PRICE,sku\nred,1.50,a\n";
    let strict = options("articles", &[]);
    let refused = send(&app, Uuid::now_v7(), &strict, file).await?;
    let refused = problem(refused, 422, "columns_do_not_match").await?;
    ensure!(detail(&refused)?.contains("`colour`"), "{refused}");

    let id = Uuid::now_v7();
    let lenient = options("articles", &[("unknown_columns", "ignore")]);
    ensure!(send(&app, id, &lenient, file).await?.status() == 202);
    let upload = expect_stored(&app, "articles", id, "completed", 1).await?;
    ensure!(
        upload["dataset_columns"] == json!({ "missing": ["note"], "ignored": ["colour"] })
            && upload["columns"] == json!(["colour", "PRICE", "sku"]),
        "{upload}"
    );
    let rows = app
        .harness
        .typed("articles", "sku, price::text, note", "sku, price, note")
        .await?;
    ensure!(rows == json!([["a", "1.50", null]]), "{rows}");

    // An upload without a dataset has no such field.
    let landed = Uuid::now_v7();
    let answer = app.put_with(landed, KNOWN_DIALECT, file).await?;
    ensure!(answer.status() == 202);
    let upload = app.expect_completed(landed, 1).await?;
    ensure!(
        upload["dataset"].is_null() && upload.get("dataset_columns").is_none(),
        "{upload}"
    );
    app.close().await
}

async fn an_added_column_is_null_in_old_rows_and_filled_from_new_files(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let id = json!({ "name": "id", "type": "integer", "required": true });
    let day = json!({ "name": "day", "type": "date" });
    declare(&app, "growing", json!([id])).await?;
    import(&app, "growing", "id\n1\n2\n", 2).await?;
    put(&app, "growing", &json!({ "columns": [id, day] }), 200).await?;
    import(&app, "growing", "day,id\n2024-05-06,3\n", 1).await?;
    let without = import(&app, "growing", "id\n4\n5\n", 2).await?;
    let rows = app.harness.typed("growing", "id, day", "id, day").await?;
    let expected = json!([
        [1, null],
        [2, null],
        [3, "2024-05-06"],
        [4, null],
        [5, null],
    ]);
    ensure!(rows == expected, "{rows}");
    let (_, upload) = app.get(&format!("/uploads/{without}")).await?;
    ensure!(
        upload["dataset_columns"] == json!({ "missing": ["day"], "ignored": [] }),
        "{upload}"
    );
    app.close().await
}

async fn a_preview_does_not_take_a_dataset(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    declare(&app, "sales", json!([{ "name": "id", "type": "integer" }])).await?;
    let preview = app
        .client
        .post(format!("{}/uploads/preview?dataset=sales", app.url))
        .header("content-type", "text/csv")
        .body("id\n1\n");
    let refused = problem(preview.send().await?, 400, "malformed_option").await?;
    ensure!(detail(&refused)?.contains("`dataset`"), "{refused}");
    app.close().await
}
