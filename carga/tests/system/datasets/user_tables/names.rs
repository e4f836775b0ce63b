//! The names of a table of the user and of its columns may contain anything that Postgres permits.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use super::catalog::Catalog;
use super::{definition_of, execute, expect_merged, rows_of, texts};
use crate::answers::problem;
use crate::app::App;
use crate::datasets::merging::{Outcome, send_accepted};
use crate::datasets::undoing_merges::undo_merge;
use crate::datasets::violations::rejected_rows;
use crate::datasets::{delete, detail, options, put, putting, send};
use crate::harness::{Mode, quoted};

/// Names of datasets, schemas and tables.
fn tables() -> [[String; 3]; 5] {
    let longest = [format!("s{}", "é".repeat(31)), "x".repeat(63)];
    let [long_schema, long_table] = longest;
    [
        [
            "d\"; DROP TABLE uploads; --",
            "s\"; DROP TABLE uploads; --",
            "t'); DELETE FROM batches; --",
        ]
        .map(str::to_owned),
        ["com espaço", "Ação com espaço", "表 Ünïcode/'x'"].map(str::to_owned),
        ["select", "select", "$1 ?1 %s \\ {} :a"].map(str::to_owned),
        ["long".to_owned(), long_schema, long_table],
        ["quotes", "\"", "\"\"'\"; --"].map(str::to_owned),
    ]
}

/// The names of the columns. The first one is the key.
fn columns() -> [String; 8] {
    let short = [
        "k\"); DROP TABLE uploads; --",
        "'; DELETE FROM datasets; --",
        "select",
        "$1 ?1",
        "100 %s \\ {}",
        "línea a/b.c",
    ];
    let [a, b, c, d, e, f] = short.map(str::to_owned);
    let (long, wide) = ("y".repeat(63), format!("ü{}!", "ß".repeat(30)));
    [a, b, c, d, e, f, long, wide]
}

/// The name of a column that is in no definition, and of a constraint on the second column.
const OWN: &str = "own \"; --";
const CONSTRAINT: &str = "no '\"bad\"'; --";

/// The statements that make a table.
fn create(schema: &str, table: &str) -> String {
    let columns = columns();
    let declared = columns.each_ref().map(|name| quoted(name) + " text");
    let (schema, table) = (quoted(schema), quoted(table));
    format!(
        "CREATE SCHEMA {schema};
         CREATE TABLE {schema}.{table} (
             {}, {} text NOT NULL DEFAULT 'own', PRIMARY KEY ({}),
             CONSTRAINT {} CHECK ({} <> 'bad')
         );
         INSERT INTO {schema}.{table} ({key}) VALUES ('kept');",
        declared.join(", "),
        quoted(OWN),
        quoted(&columns[0]),
        quoted(CONSTRAINT),
        quoted(&columns[1]),
        key = quoted(&columns[0]),
    )
}

/// A file with a row for each key. The other cells contain SQL, or are `second` in the second
/// column.
fn file(keys: &[&str], second: &str) -> Result<Vec<u8>> {
    let columns = columns();
    let mut file = csv::Writer::from_writer(Vec::new());
    file.write_record(&columns)?;
    for key in keys {
        let mut cells = columns.each_ref().map(|name| format!("'); {name}"));
        cells[0] = (*key).to_owned();
        cells[1] = second.to_owned();
        file.write_record(&cells)?;
    }
    Ok(file.into_inner()?)
}

/// A definition for a table whose columns have the names.
fn definition(schema: &str, table: &str) -> Value {
    let columns = columns();
    let typed = columns.each_ref().map(|name| (name.as_str(), "text"));
    definition_of(&format!("{schema}.{table}"), &typed, &[&columns[0]])
}

#[tokio::test]
async fn names_of_the_user_that_contain_sql_are_only_names() -> Result<()> {
    let app = App::start(Mode::Distributed.harness().await?, 1).await?;
    for [dataset, schema, table] in tables() {
        execute(&app, &create(&schema, &table)).await?;
        let catalog = Catalog::read(&app, &schema).await?;
        let created = put(&app, &dataset, &definition(&schema, &table), 201).await?;
        ensure!(created["table"] == format!("{schema}.{table}"), "{created}");
        fill(&app, &dataset, &schema, &table).await?;
        catalog.expect_unaltered(&app, &dataset).await?;
        ensure!(delete(&app, &dataset).await?.status() == 204);
        catalog.expect_unaltered(&app, &dataset).await?;
    }
    let (_, list) = app.get("/datasets").await?;
    ensure!(list["datasets"] == json!([]), "{list}");
    let (_, list) = app.get("/uploads").await?;
    let uploads = list["uploads"].as_array().map(Vec::len);
    ensure!(uploads == Some(tables().len() * 2), "{list}");
    app.close().await
}

/// Merges two files, and undoes the second one.
async fn fill(app: &App, dataset: &str, schema: &str, table: &str) -> Result<()> {
    let table = format!("{}.{}", quoted(schema), quoted(table));
    let outcome = Outcome {
        inserted: 2,
        ..Outcome::default()
    };
    let given = file(&["'); --", "two"], "good")?;
    let id = send_accepted(app, dataset, &[], given).await?;
    expect_merged(app, id, outcome).await?;
    let before = rows_of(app, &table).await?;
    ensure!(before.len() == 3, "{before:?}");
    let last = quoted(&columns()[7]);
    let cells = format!("SELECT {last} FROM {table} WHERE {last} IS NOT NULL");
    let cell = format!("'); {}", columns()[7]);
    ensure!(texts(app, &cells).await? == [cell.clone(), cell]);

    // One row is replaced, one is new, and one violates the constraint.
    let mut given = file(&["two", "three"], "other")?;
    let violating = file(&["four"], "bad")?;
    let header = file(&[], "")?.len();
    given.extend_from_slice(&violating[header..]);
    let outcome = Outcome {
        inserted: 1,
        updated: 1,
        rejected: 1,
        ..Outcome::default()
    };
    let id = send_accepted(app, dataset, &[], given).await?;
    expect_merged(app, id, outcome).await?;
    let rejected = rejected_rows(app, id).await?;
    let reason = ["row", "code", "column", "constraint"].map(|field| rejected[0][field].clone());
    let expected = json!([3, "check_violation", columns()[1], CONSTRAINT]);
    ensure!(json!(reason) == expected, "{rejected:?}");
    undo_merge(app, id, [2, 0, 0]).await?;
    let after = rows_of(app, &table).await?;
    ensure!(after == before, "{after:?} instead of {before:?}");
    Ok(())
}

#[tokio::test]
async fn faults_name_the_table_and_its_columns_as_they_are() -> Result<()> {
    let app = App::start(Mode::Distributed.harness().await?, 0).await?;
    let [_, [_, schema, table], ..] = tables();
    let missing = definition(&schema, &table);
    let answer = putting(&app, "odd", &missing)?.send().await?;
    let refused = problem(answer, 422, "table_not_found").await?;
    let name = format!("{schema}.{table}");
    ensure!(detail(&refused)?.contains(&name), "{refused}");

    let [_, dropped, ..] = columns();
    execute(&app, &create(&schema, &table)).await?;
    put(&app, "odd", &missing, 201).await?;
    let alter = format!(
        "ALTER TABLE {}.{} DROP COLUMN {}",
        quoted(&schema),
        quoted(&table),
        quoted(&dropped)
    );
    execute(&app, &alter).await?;
    let given = file(&["one"], "good")?;
    let answer = send(&app, Uuid::now_v7(), &options("odd", &[]), given).await?;
    let refused = problem(answer, 422, "column_not_found").await?;
    ensure!(detail(&refused)?.contains(&dropped), "{refused}");
    app.close().await
}
