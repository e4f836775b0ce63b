//! A validation warns of properties of a table because of which an upload is slow or cannot be
//! undone.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{validate, validate_then_send};
use crate::app::App;
use crate::datasets::put;
use crate::datasets::user_tables::{
    HEADER, IMPORTS, declare_imports, definition_of, execute, start,
};

/// Validates a new row. Returns the warnings with this code.
async fn warnings(app: &App, mode: &str, code: &str) -> Result<Vec<String>> {
    let file = format!("{HEADER}d,1.50,1,x\n");
    let validation = validate(app, IMPORTS, &[("mode", mode)], file).await?;
    messages(&validation, code)
}

fn messages(validation: &Value, code: &str) -> Result<Vec<String>> {
    let warnings = validation["warnings"].as_array().context("no warnings")?;
    let warnings = warnings.iter().filter(|warning| warning["code"] == code);
    let messages = warnings.map(|warning| {
        let message = warning["message"].as_str();
        message.map(str::to_owned).context("no message")
    });
    messages.collect()
}

/// Fails unless there is one warning, which has all of these texts and none of the others.
fn expect_one(warnings: &[String], texts: &[&str], others: &[&str]) -> Result<()> {
    let [message] = warnings else {
        anyhow::bail!("{warnings:?}");
    };
    for text in texts {
        ensure!(message.contains(text), "no {text:?}: {message}");
    }
    for other in others {
        ensure!(!message.contains(other), "{other:?} in: {message}");
    }
    Ok(())
}

#[tokio::test]
async fn a_validation_warns_of_row_triggers_that_its_mode_runs() -> Result<()> {
    let app = start(0).await?;
    declare_imports(&app).await?;
    for mode in ["update", "ignore", "append"] {
        // The table has a trigger that runs after each row.
        let found = warnings(&app, mode, "row_triggers").await?;
        ensure!(found.is_empty(), "{mode}: {found:?}");
    }
    execute(
        &app,
        "CREATE FUNCTION shop.pass() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             RETURN NEW;
         END $$;
         CREATE TRIGGER early_insert BEFORE INSERT ON shop.products
             FOR EACH ROW EXECUTE FUNCTION shop.pass();
         CREATE TRIGGER early_update BEFORE UPDATE ON shop.products
             FOR EACH ROW EXECUTE FUNCTION shop.pass();
         CREATE TRIGGER early_delete BEFORE DELETE ON shop.products
             FOR EACH ROW EXECUTE FUNCTION shop.pass();
         CREATE TRIGGER early_statement BEFORE INSERT ON shop.products
             FOR EACH STATEMENT EXECUTE FUNCTION shop.pass();",
    )
    .await?;
    let never = ["early_delete", "early_statement", "remember"];
    for mode in ["ignore", "append"] {
        let found = warnings(&app, mode, "row_triggers").await?;
        let texts = ["shop.products", "early_insert"];
        expect_one(&found, &texts, &[&never[..], &["early_update"]].concat())?;
    }
    let found = warnings(&app, "update", "row_triggers").await?;
    let texts = ["shop.products", "early_insert", "early_update"];
    expect_one(&found, &texts, &never)?;
    app.close().await
}

#[tokio::test]
async fn a_validation_warns_of_volatile_defaults_of_columns_that_the_file_lacks() -> Result<()> {
    let app = start(0).await?;
    declare_imports(&app).await?;
    // Postgres makes an exception for the numbers of a sequence.
    let code = "volatile_defaults";
    let found = warnings(&app, "update", code).await?;
    ensure!(found.is_empty(), "{found:?}");
    execute(
        &app,
        "CREATE SEQUENCE shop.numbers;
         ALTER TABLE shop.products
             ADD COLUMN token uuid DEFAULT gen_random_uuid(),
             ADD COLUMN seen_at timestamptz DEFAULT clock_timestamp(),
             ADD COLUMN made_at timestamptz DEFAULT now(),
             ADD COLUMN number bigint DEFAULT nextval('shop.numbers'),
             ALTER COLUMN note SET DEFAULT random()::text;",
    )
    .await?;
    for mode in ["update", "ignore", "append"] {
        let found = warnings(&app, mode, code).await?;
        let others = ["made_at", "`number`", "`note`", "`id`"];
        expect_one(&found, &["shop.products", "token", "seen_at"], &others)?;
    }
    let validation = validate(&app, IMPORTS, &[], "sku\nd\n").await?;
    let found = messages(&validation, code)?;
    expect_one(&found, &["token", "seen_at", "note"], &["made_at"])?;
    app.close().await
}

#[tokio::test]
async fn a_validation_warns_of_a_table_without_a_primary_key() -> Result<()> {
    let app = start(1).await?;
    execute(
        &app,
        "CREATE TABLE shop.prices (sku text UNIQUE, price numeric(8, 2), own text DEFAULT 'x');
         INSERT INTO shop.prices VALUES ('a', 1.50), ('z', 9.50);",
    )
    .await?;
    let columns = [("sku", "text"), ("price", "numeric")];
    let definition = definition_of("shop.prices", &columns, &["sku"]);
    put(&app, IMPORTS, &definition, 201).await?;
    let add = "ALTER TABLE shop.prices ADD PRIMARY KEY (sku)";
    for (statement, is_reversible) in [("ANALYZE shop.prices", false), (add, true)] {
        execute(&app, statement).await?;
        let file = format!("sku,price\na,2.50\nb {is_reversible},3.50\n");
        let (validation, id) = validate_then_send(&app, IMPORTS, &[], file, &[]).await?;
        let found = messages(&validation, "not_reversible")?;
        match is_reversible {
            true => ensure!(found.is_empty(), "{found:?}"),
            false => expect_one(&found, &["shop.prices", "primary key"], &[])?,
        }
        let upload = app.upload(id).await?.context("no upload")?;
        ensure!(upload["reversible"] == is_reversible, "{upload}");
    }
    app.close().await
}
