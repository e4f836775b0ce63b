//! A name that is a byte too long is never taken for the longest name with which it begins.
//! Postgres would cut it to that name.

use anyhow::{Context, Result, ensure};
use proptest::prelude::*;
use reqwest::Response;
use serde_json::{Value, json};
use uuid::Uuid;

use super::before::Before;
use super::random::{MAX_BYTES, MAX_DATASET_BYTES, are_distinct, dataset, draw, filled, name};
use super::{NO_ESCAPE, READING, ROUNDS, file_of};
use crate::answers::problem;
use crate::app::App;
use crate::datasets::{
    declare, delete, detail, expect_stored, options, put, putting, send, undo, url,
};
use crate::harness::{Mode, quoted};
use crate::random::random_runner;

in_both_modes! {
    a_name_of_64_bytes_is_not_taken_for_its_first_63_bytes,
}

/// The names of a dataset and of its columns.
#[derive(Debug)]
struct Names {
    dataset: String,
    key: String,
    /// A name of 63 bytes.
    longest: String,
    /// The same name with another byte behind it.
    twin: String,
}

fn names() -> impl Strategy<Value = Names> {
    let names = (dataset(), name(MAX_BYTES), name(MAX_BYTES));
    let names = names.prop_map(|(dataset, key, text)| {
        let longest = filled(&text, MAX_BYTES);
        // The last byte is a letter, because a header may have other punctuation than the name.
        let twin = format!("{longest}x");
        Names {
            dataset,
            key,
            longest,
            twin,
        }
    });
    names.prop_filter("the same names", |names| {
        are_distinct([&names.key, &names.longest, &names.twin])
    })
}

async fn a_name_of_64_bytes_is_not_taken_for_its_first_63_bytes(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let before = Before::read(&app).await?;
    let mut runner = random_runner();
    for _ in 0..ROUNDS {
        let names = draw(names(), &mut runner)?;
        let checked = async {
            check_definitions(&app, &names).await?;
            before.expect_unchanged(&app).await?;
            check_header(&app, &names).await?;
            before.expect_unchanged(&app).await
        };
        checked.await.with_context(|| format!("{names:#?}"))?;
    }
    app.close().await
}

fn column(name: &str) -> Value {
    json!({ "name": name, "type": "text" })
}

/// Fails if a definition with a name that is too long is accepted.
async fn check_definitions(app: &App, names: &Names) -> Result<()> {
    let Names {
        dataset,
        key,
        longest,
        twin,
    } = names;
    let table = format!("schema.{}", twin.replace('.', "x"));
    for definition in [
        json!({ "columns": [column(key), column(longest), column(twin)] }),
        json!({ "columns": [column(twin), column(longest)] }),
        json!({ "columns": [column(twin)], "key": [twin] }),
        json!({ "columns": [column(key)], "table": table }),
    ] {
        let answer = putting(app, dataset, &definition)?.send().await?;
        let refused = problem(answer, 422, "malformed_definition").await?;
        let rule = "at most 63 bytes, and this one has 64";
        ensure!(detail(&refused)?.contains(rule), "{definition}: {refused}");
        expect_missing(app, get(app, dataset).await?).await?;
    }
    let longest = filled(dataset, MAX_DATASET_BYTES);
    let definition = json!({ "columns": [column(key)] });
    put(app, &longest, &definition, 201).await?;
    let twin = format!("{longest}x");
    for answer in [
        putting(app, &twin, &definition)?.send().await?,
        get(app, &twin).await?,
        delete(app, &twin).await?,
    ] {
        let refused = problem(answer, 400, "malformed_name").await?;
        ensure!(detail(&refused)?.contains("at most 58 bytes"), "{refused}");
    }
    put(app, &longest, &definition, 200).await?;
    ensure!(delete(app, &longest).await?.status() == 204);
    Ok(())
}

async fn get(app: &App, dataset: &str) -> Result<Response> {
    let get = app.client.get(url(app, &["datasets", dataset])?);
    Ok(get.send().await?)
}

/// Fails if any dataset exists.
async fn expect_missing(app: &App, shown: Response) -> Result<()> {
    problem(shown, 404, "dataset_not_found").await?;
    let (_, list) = app.get("/datasets").await?;
    ensure!(list["datasets"] == json!([]), "{list}");
    Ok(())
}

/// Fails unless a column of a file with the name that is too long is an unknown column.
async fn check_header(app: &App, names: &Names) -> Result<()> {
    let Names {
        dataset,
        key,
        longest,
        twin,
    } = names;
    declare(app, dataset, json!([column(key), column(longest)])).await?;
    let row = ["1", "2"].map(str::to_owned).to_vec();
    let file = file_of(&[key, twin], &[row])?;
    let strict = options(dataset, &[NO_ESCAPE]);
    let answer = send(app, Uuid::now_v7(), &strict, file.clone()).await?;
    problem(answer, 422, "columns_do_not_match").await?;

    let id = Uuid::now_v7();
    let answer = send(app, id, &options(dataset, &READING), file).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    let upload = expect_stored(app, dataset, id, "completed", 1).await?;
    let matched = json!({ "missing": [longest], "ignored": [twin] });
    ensure!(upload["dataset_columns"] == matched, "{upload}");
    let selected = [key, longest].map(|name| quoted(name)).join(", ");
    let rows = app.harness.typed(dataset, &selected, &selected).await?;
    ensure!(rows == json!([["1", null]]), "{rows}");
    undo(app, id).await?;
    ensure!(delete(app, dataset).await?.status() == 204);
    Ok(())
}
