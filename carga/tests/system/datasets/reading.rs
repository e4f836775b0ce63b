//! The options `null`, `decimal` and `date_format`: how the cells of one file are read.

use anyhow::{Result, ensure};
use reqwest::Response;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{declare, detail, expect_stored, options, send, url};
use crate::answers::problem;
use crate::app::{App, KNOWN_DIALECT};
use crate::harness::Mode;

in_both_modes! {
    one_file_is_read_with_its_options_and_the_definition_stays,
    an_option_that_contradicts_a_column_is_refused_before_the_file_is_read,
    an_option_for_cells_is_refused_if_it_is_not_valid_by_itself,
}

/// Columns with rules of their own stand beside columns without.
fn articles() -> Value {
    json!([
        { "name": "sku", "type": "text", "null": ["-"] },
        { "name": "price", "type": "numeric" },
        { "name": "weight", "type": "float", "decimal": "." },
        { "name": "sold_on", "type": "date" },
        { "name": "packed_on", "type": "date", "format": "%d.%m.%Y" },
        { "name": "seen_at", "type": "timestamp" },
    ])
}

/// No row has the forms of the definition alone.
const FILE: &str = "\
sku,price,weight,sold_on,packed_on,seen_at
-,\"9,50\",0.25,31/12/2026,30.12.2026,2026-12-31
NA,NA,,NA,,
";

/// The options with which the columns without rules of their own read the file.
const READING: [(&str, &str); 4] = [
    ("null", "NA"),
    ("null", ""),
    ("decimal", ","),
    ("date_format", "%d/%m/%Y"),
];

/// Sends a file as a form, with the options as fields.
async fn send_form(
    app: &App,
    id: Uuid,
    options: &[(&'static str, &'static str)],
    file: &'static str,
) -> Result<Response> {
    let form = options
        .iter()
        .fold(Form::new(), |form, (name, value)| form.text(*name, *value));
    let form = form.part("file", Part::text(file).file_name("articles.csv"));
    let put = app.client.put(url(app, &["uploads", &id.to_string()])?);
    Ok(put.multipart(form).send().await?)
}

async fn one_file_is_read_with_its_options_and_the_definition_stays(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare(&app, "articles", articles()).await?;
    let (_, declared) = app.get("/datasets/articles").await?;

    let (query, form) = (Uuid::now_v7(), Uuid::now_v7());
    let with_options = options("articles", &READING);
    let answer = send(&app, query, &with_options, FILE).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    expect_stored(&app, "articles", query, "completed", 2).await?;
    let answer = send_form(&app, form, &with_options, FILE).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    expect_stored(&app, "articles", form, "completed", 2).await?;

    let dates = "sold_on, packed_on";
    let day = "to_char(seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')";
    let postgres = format!("sku, price::text, weight, {dates}, {day}");
    let sqlite = format!("sku, price, weight, {dates}, substr(seen_at, 1, 10)");
    let rows = app.harness.typed("articles", &postgres, &sqlite).await?;
    let first = json!([null, "9.50", 0.25, "2026-12-31", "2026-12-30", "2026-12-31"]);
    let second = json!(["NA", null, null, null, null, null]);
    ensure!(rows == json!([first, second, first, second]), "{rows}");

    let (_, found) = app.get("/datasets/articles").await?;
    ensure!(found == declared, "{found} instead of {declared}");
    let plain = Uuid::now_v7();
    let refused = send(&app, plain, &options("articles", &[]), FILE).await?;
    problem(refused, 422, "no_row_fits").await?;
    app.close().await
}

async fn an_option_that_contradicts_a_column_is_refused_before_the_file_is_read(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    let columns = json!([
        { "name": "price", "type": "numeric", "thousands": "," },
        { "name": "paid", "type": "boolean", "true": ["S"], "false": ["N"] },
    ]);
    declare(&app, "orders", columns).await?;
    for (option, value, column) in [("decimal", ",", "price"), ("null", "N", "paid")] {
        let with_option = options("orders", &[(option, value)]);
        // The header lacks the columns of the dataset, which only its reader could report.
        let file = "other\n1\n";
        for is_form in [false, true] {
            let id = Uuid::now_v7();
            let refused = match is_form {
                true => send_form(&app, id, &with_option, file).await?,
                false => send(&app, id, &with_option, file).await?,
            };
            let refused = problem(refused, 422, "malformed_option").await?;
            let text = detail(&refused)?;
            let (option, column) = (format!("`{option}`"), format!("`{column}`"));
            ensure!(text.contains(&option) && text.contains(&column), "{text}");
            ensure!(app.upload(id).await?.is_none(), "the file left an upload");
        }
    }
    app.close().await
}

async fn an_option_for_cells_is_refused_if_it_is_not_valid_by_itself(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    declare(&app, "articles", articles()).await?;
    for (name, value) in [
        ("decimal", "5"),
        ("decimal", ",,"),
        ("date_format", "%d/%m"),
        ("date_format", "%F %T"),
    ] {
        expect_refused(&app, &[(name, value)], "malformed_option").await?;
    }
    for option in [("decimal", ","), ("date_format", "%F")] {
        expect_refused(&app, &[option, option], "repeated_option").await?;
    }
    for (name, value) in READING {
        let query = format!("{KNOWN_DIALECT}&{name}={}", value.replace('%', "%25"));
        let refused = app.put_with(Uuid::now_v7(), &query, FILE).await?;
        let refused = problem(refused, 400, "malformed_option").await?;
        ensure!(detail(&refused)?.contains("`dataset`"), "{refused}");
    }
    app.close().await
}

/// Fails unless the options are refused in a query and in a form, with a message that names them.
async fn expect_refused(
    app: &App,
    given: &[(&'static str, &'static str)],
    code: &str,
) -> Result<()> {
    let with_options = options("articles", given);
    let query = send(app, Uuid::now_v7(), &with_options, FILE).await?;
    let form = send_form(app, Uuid::now_v7(), &with_options, FILE).await?;
    for refused in [query, form] {
        let refused = problem(refused, 400, code).await?;
        for (name, _) in given {
            let name = format!("`{name}`");
            ensure!(detail(&refused)?.contains(&name), "{refused}");
        }
    }
    Ok(())
}
