//! The outcome that a validation announces is that of the upload of the same file.

use anyhow::{Context, Result, anyhow, ensure};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use reqwest::multipart::{Form, Part};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::state::State;
use super::{expect_same_outcome, figures, read, validate, validate_then_send, validating};
use crate::app::App;
use crate::datasets::merging::{BASE, Outcome, PRODUCTS, declare_products, merge, products};
use crate::datasets::merging_violations::{IN_POSTGRES, IN_SQLITE};
use crate::datasets::{options, send};
use crate::files::csv;
use crate::harness::Mode;

in_both_modes! {
    a_validation_says_what_an_update_would_insert_and_change,
    an_upload_in_any_mode_ends_as_its_validation_says,
    uploads_of_random_files_end_as_their_validations_say,
    a_file_without_a_dataset_is_validated_as_it_would_be_read,
    a_form_is_validated_like_a_raw_body,
}

/// Starts Carga with three rows in the table.
async fn start(mode: Mode) -> Result<App> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare_products(&app).await?;
    let outcome = Outcome {
        inserted: 3,
        ..Outcome::default()
    };
    merge(&app, &[], BASE, outcome).await?;
    Ok(app)
}

/// How many of the rows in both lists of products differ in each column.
fn changed_columns(before: &Value, after: &Value) -> Result<Value> {
    let before = before.as_array().context("no rows")?;
    let mut changed = Map::new();
    for row in after.as_array().context("no rows")? {
        let Some(old) = before.iter().find(|old| old[0] == row[0]) else {
            continue;
        };
        for (index, name) in [(1, "price"), (2, "note")] {
            if old[index] != row[index] {
                let rows = changed.get(name).and_then(Value::as_u64);
                changed.insert(name.to_owned(), json!(rows.unwrap_or_default() + 1));
            }
        }
    }
    Ok(Value::Object(changed))
}

/// Validates a file for `products`, and then sends it. Fails unless the upload ends as the
/// validation says, and changes as many values.
async fn check(app: &App, further: &[(&str, &str)], file: &str) -> Result<Value> {
    let before = products(app).await?;
    let file = file.to_owned();
    let (validation, _) = validate_then_send(app, PRODUCTS, further, file, &[]).await?;
    let changed = changed_columns(&before, &products(app).await?)?;
    ensure!(
        validation["changed_columns"] == changed,
        "{changed} instead of {validation}"
    );
    Ok(validation)
}

async fn a_validation_says_what_an_update_would_insert_and_change(mode: Mode) -> Result<()> {
    let app = start(mode).await?;
    // In order: an equal row, an empty text instead of NULL, a new row, two rows with one key, of
    // which the last wins, and a row that is rejected before the merge.
    let file = "sku,price,note\na,1.50,x\nb,2.50,\nd,9.00,y\nc,7.00,z\nc,8.00,z\ne,cheap,z\n";
    let validation = check(&app, &[], file).await?;
    ensure!(
        validation["rows"] == figures([6, 1, 2, 2, 1])
            && validation["changed_columns"] == json!({ "note": 1, "price": 1 })
            && validation["columns"] == json!(["sku", "price", "note"])
            && validation["dialect"]["delimiter"] == ","
            && validation["warnings"] == json!([]),
        "{validation}"
    );
    let rejected = &validation["rejected"][0];
    let fields = ["row", "line", "code", "column", "fields"];
    ensure!(
        json!(fields.map(|field| &rejected[field]))
            == json!([6, 7, "wrong_type", "price", ["e", "cheap", "z"]]),
        "{validation}"
    );

    // After the upload, the same file would change nothing.
    let validation = check(&app, &[], file).await?;
    ensure!(
        validation["rows"] == figures([6, 0, 0, 5, 1])
            && validation["changed_columns"] == json!({}),
        "{validation}"
    );
    app.close().await
}

/// Options, and the figures of a validation with them.
type Case<'a> = (&'a [(&'a str, &'a str)], [usize; 5]);

/// Cases for the file in the next test.
const MODES: [Case<'_>; 5] = [
    (&[("mode", "ignore")], [5, 2, 0, 2, 1]),
    (&[("mode", "append"), ("atomic", "true")], [5, 2, 0, 0, 3]),
    (&[("mode", "append"), ("atomic", "false")], [5, 2, 0, 0, 3]),
    (&[("mode", "update")], [5, 2, 1, 1, 1]),
    (&[("max_rejects", "1")], [5, 2, 1, 1, 1]),
];

async fn an_upload_in_any_mode_ends_as_its_validation_says(mode: Mode) -> Result<()> {
    let app = start(mode).await?;
    for (round, (further, expected)) in MODES.into_iter().enumerate() {
        // In order: another value for a row of the table, two rows with one new key, another new
        // row, and a row that is rejected before the merge.
        let new = format!("d{round},1.00,p\nd{round},2.00,q\ne{round},3.00,NA\n");
        let file = format!("sku,price,note\nc,7.5{round},y\n{new}f,cheap,z\n");
        let validation = check(&app, further, &file).await?;
        ensure!(
            validation["rows"] == figures(expected),
            "{further:?}: {validation}"
        );
    }
    // Columns that the file lacks keep their values. Others of the file are not stored.
    let file = "price,colour,sku\n1.50,red,a\n8.00,red,c\n9.00,red,g\n";
    let validation = check(&app, &[("unknown_columns", "ignore")], file).await?;
    ensure!(
        validation["rows"] == figures([3, 1, 1, 1, 0])
            && validation["changed_columns"] == json!({ "price": 1 }),
        "{validation}"
    );
    app.close().await
}

/// A file of rows that are made of a key, a kind and a price. No row has two faults, and the first
/// row has none.
fn random_file(round: usize, rows: &[(u32, u32, u32)]) -> String {
    let mut file = format!("sku,price,note\nfirst {round},1.50,NA\n");
    for (row, (key, kind, price)) in rows.iter().enumerate() {
        file.push_str(&match kind {
            0 => format!("k{key},-1.00,NA\n"),
            1 => format!("k{key},cheap,NA\n"),
            2 => "NA,1.50,x\n".to_owned(),
            3 => format!("k{key},{price}.50,{}\n", ["x", "z"][row % 2]),
            4 => format!("k{key},{price}.50,note {round} {row}\n"),
            _ => format!("k{key},{price}.50,NA\n"),
        });
    }
    file
}

async fn uploads_of_random_files_end_as_their_validations_say(mode: Mode) -> Result<()> {
    const ROUNDS: usize = 12;
    let app = start(mode).await?;
    app.harness.execute(IN_POSTGRES, IN_SQLITE).await?;
    // The files are the same in every run.
    let mut runner = TestRunner::deterministic();
    let rows = proptest::collection::vec((0..40_u32, 0..12_u32, 0..4_u32), 0..120);
    for round in 0..ROUNDS {
        let rows = rows.new_tree(&mut runner);
        let rows = rows.map_err(|reason| anyhow!("{reason}"))?.current();
        let file = random_file(round, &rows);
        let further: &[(&str, &str)] = match round % 3 {
            0 => &[("mode", "update")],
            1 => &[("mode", "ignore")],
            _ => &[("mode", "append"), ("atomic", "true")],
        };
        let checked = check(&app, further, &file).await;
        checked.with_context(|| format!("{further:?} of {file}"))?;
    }
    app.close().await
}

async fn a_file_without_a_dataset_is_validated_as_it_would_be_read(mode: Mode) -> Result<()> {
    const ROWS: usize = 600;
    let app = App::start(mode.harness().await?, 1).await?;
    let row = |row: usize| match row % 4 {
        0 => format!("{row},x,y\n"),
        _ => format!("{row},x\n"),
    };
    let file = "id,name\n".to_owned() + &(1..=ROWS).map(row).collect::<String>();
    let dialect = &options(PRODUCTS, &[])[1..];
    let state = State::read(&app).await?;
    let validation = read(validating(&app, dialect, file.clone())?.send().await?).await?;
    state.expect_unchanged(&app).await?;
    ensure!(
        validation["rows"] == figures([ROWS, ROWS / 4 * 3, 0, 0, ROWS / 4])
            && validation["changed_columns"] == json!({})
            && validation["warnings"] == json!([]),
        "{validation}"
    );
    // The answer has the first hundred rejects only.
    let rejected = validation["rejected"].as_array().context("no rejects")?;
    ensure!(
        rejected.len() == 100 && rejected[99]["row"] == 400,
        "{} rejects",
        rejected.len()
    );
    let id = Uuid::now_v7();
    ensure!(send(&app, id, dialect, file).await?.status() == 202);
    expect_same_outcome(&app, &validation, id).await?;

    let validation = read(validating(&app, &[], csv(20))?.send().await?).await?;
    ensure!(
        validation["rows"] == figures([20, 20, 0, 0, 0]),
        "{validation}"
    );
    app.close().await
}

async fn a_form_is_validated_like_a_raw_body(mode: Mode) -> Result<()> {
    let app = start(mode).await?;
    let file = "sku,price,note\na,2.50,x\nd,9.00,y\ne,cheap,z\n";
    let raw = validate(&app, PRODUCTS, &[], file).await?;
    let mut form = Form::new();
    for (name, value) in options(PRODUCTS, &[]) {
        form = form.text(name.to_owned(), value.to_owned());
    }
    let form = form.part("file", Part::text(file).file_name("x.csv"));
    let post = app.client.post(format!("{}/uploads/validate", app.url));
    let found = read(post.multipart(form).send().await?).await?;
    ensure!(found == raw, "{found} instead of {raw}");
    app.close().await
}
