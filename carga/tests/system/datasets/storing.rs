//! Rows are stored with the declared types, and wrong cells are rejected.

use anyhow::{Context, Result, ensure};
use csv::StringRecord;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    FLIGHTS_COLUMNS, declare, expect_stored, flights_definition, import, options, put, send,
};
use crate::app::App;
use crate::files::{self, FLIGHTS_ROWS, flights};
use crate::harness::{Harness, Mode, quoted};

in_both_modes! {
    rows_have_the_declared_types_in_the_table_and_canonical_text_in_downloads,
    wrong_cells_are_rejected_and_the_corrected_report_completes_the_rows,
    a_row_that_is_too_wide_for_the_table_is_rejected_alone,
    every_column_of_the_flights_equals_an_independent_reading_of_the_file,
}

const EVERY_TYPE: &str = "\
Código;Quantity;PRICE;weight;Active;Sold On;seen_at;token;details
007;1.234;1.234,50;2.5e-3;sim;24/12/2024;2024-12-24T18:30:00+02:00;6F9619FF-8B86-D011-B42D-00CF4FC964FF;\"{\"\"a\"\": 1}\"
008;-5;-0,10;;não;;;;
009;;;;;;;;
";

const TYPED_IN_POSTGRES: &str = r#"[
    ["007", 1234, 1234.50, 0.0025, true, "2024-12-24", "2024-12-24T16:30:00", "6f9619ff-8b86-d011-b42d-00cf4fc964ff", 1],
    ["008", -5, -0.10, null, false, null, null, null, null],
    ["009", null, null, null, null, null, null, null, null]
]"#;

/// SQLite has neither decimals nor booleans nor times.
const TYPED_IN_SQLITE: &str = r#"[
    ["007", 1234, "1234.50", 0.0025, 1, "2024-12-24", "2024-12-24T16:30:00.000000Z", "6f9619ff-8b86-d011-b42d-00cf4fc964ff", 1],
    ["008", -5, "-0.10", null, 0, null, null, null, null],
    ["009", null, null, null, null, null, null, null, null]
]"#;

const DOWNLOADED: &str = "\
sku,quantity,price,weight,active,sold_on,seen_at,token,details
007,1234,1234.50,0.0025,true,2024-12-24,2024-12-24T16:30:00.000000Z,6f9619ff-8b86-d011-b42d-00cf4fc964ff,\"{\"\"a\"\": 1}\"
008,-5,-0.10,,false,,,,
009,,,,,,,,
";

async fn rows_have_the_declared_types_in_the_table_and_canonical_text_in_downloads(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let columns = json!([
        { "name": "sku", "type": "text", "required": true, "from": ["código"] },
        { "name": "quantity", "type": "integer", "thousands": "." },
        { "name": "price", "type": "numeric", "decimal": ",", "thousands": "." },
        { "name": "weight", "type": "float" },
        { "name": "active", "type": "boolean", "true": ["sim"], "false": ["não"] },
        { "name": "sold_on", "type": "date", "format": "%d/%m/%Y" },
        { "name": "seen_at", "type": "timestamp" },
        { "name": "token", "type": "uuid" },
        { "name": "details", "type": "json" },
    ]);
    declare(&app, "typed", columns).await?;
    let id = Uuid::now_v7();
    let sent = send(&app, id, &[("dataset", "typed")], EVERY_TYPE).await?;
    ensure!(sent.status() == 202, "{}", sent.text().await?);
    expect_stored(&app, "typed", id, "completed", 3).await?;

    // `->` needs JSON, so it proves the type of the last column.
    let first = "sku, quantity, price, weight, active, sold_on";
    let postgres = format!("{first}, seen_at AT TIME ZONE 'UTC', token, details -> 'a'");
    let sqlite = format!("{first}, seen_at, token, details -> 'a'");
    let rows = app.harness.typed("typed", &postgres, &sqlite).await?;
    let expected = match app.harness {
        Harness::Distributed(_) => TYPED_IN_POSTGRES,
        Harness::Embedded(_) => TYPED_IN_SQLITE,
    };
    let expected: Value = serde_json::from_str(expected)?;
    ensure!(rows == expected, "{rows} instead of {expected}");

    let url = format!("{}/uploads/{id}/rows", app.url);
    let csv = app.client.get(&url).send().await?.text().await?;
    ensure!(csv == DOWNLOADED, "{csv}");
    let ndjson = app.client.get(url + "?format=ndjson").send().await?;
    let ndjson = ndjson.text().await?;
    let second: Value = serde_json::from_str(ndjson.lines().nth(1).context("no second row")?)?;
    ensure!(
        second["price"] == "-0.10" && second["weight"].is_null(),
        "{second}"
    );
    app.close().await
}

const WITH_WRONG_CELLS: &str = "\
id,price,day,name
1,\"9,50\",2024-01-01,Ada
zwei,\"9,50\",2024-01-02,Bob
3,9.50.1,2024-01-03,Cy
4,\"1,5\",soon,Dee
99999999999999999999,\"1,5\",2024-01-05,Eve
,\"1,5\",2024-01-06,Fay
7,1,2024-01-07,Gus
";

/// The rejected rows of the file above: row, line, column, code.
const REJECTED: [(u64, u64, &str, &str); 5] = [
    (2, 3, "id", "wrong_type"),
    (3, 4, "price", "wrong_type"),
    (4, 5, "day", "wrong_type"),
    (5, 6, "id", "out_of_range"),
    (6, 7, "id", "missing_value"),
];

async fn wrong_cells_are_rejected_and_the_corrected_report_completes_the_rows(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let columns = json!([
        { "name": "id", "type": "integer", "required": true },
        { "name": "price", "type": "numeric", "decimal": "," },
        { "name": "day", "type": "date" },
        { "name": "name", "type": "text" },
    ]);
    declare(&app, "prices", columns).await?;
    let first = Uuid::now_v7();
    let sent = send(&app, first, &options("prices", &[]), WITH_WRONG_CELLS).await?;
    ensure!(sent.status() == 202, "{}", sent.text().await?);
    let upload = expect_stored(&app, "prices", first, "partial", 2).await?;
    ensure!(
        upload["rows"]["read"] == 7 && upload["rows"]["rejected"] == 5,
        "{upload}"
    );

    let url = format!("{}/uploads/{first}/rejected", app.url);
    let ndjson = app
        .client
        .get(&url)
        .header("accept", "application/x-ndjson");
    check_report(&ndjson.send().await?.text().await?)?;
    let report = app.client.get(&url).send().await?.bytes().await?;
    let corrected = correct(&report)?;
    import(&app, "prices", corrected, 5).await?;
    let postgres = "id, price::text, day, name";
    let sqlite = "id, price, day, name";
    let rows = app.harness.typed("prices", postgres, sqlite).await?;
    let expected = json!([
        [1, "9.50", "2024-01-01", "Ada"],
        [7, "1", "2024-01-07", "Gus"],
        [2, "9.50", "2024-01-02", "Bob"],
        [3, "9.50", "2024-01-03", "Cy"],
        [4, "1.5", "2024-01-04", "Dee"],
        [5, "1.5", "2024-01-05", "Eve"],
        [6, "1.5", "2024-01-06", "Fay"],
    ]);
    ensure!(rows == expected, "{rows}");
    app.close().await
}

/// Fails unless the report has the wrong rows of the file above, with their cells.
fn check_report(ndjson: &str) -> Result<()> {
    let (_, rows) = files::read(WITH_WRONG_CELLS.as_bytes())?;
    ensure!(ndjson.lines().count() == REJECTED.len(), "{ndjson}");
    for (line, expected) in ndjson.lines().zip(REJECTED) {
        let rejected: Value = serde_json::from_str(line)?;
        let found = ["row", "line", "column", "code"].map(|field| rejected[field].clone());
        ensure!(json!(found) == json!(expected), "{line}");
        let cells: Vec<&str> = rows[expected.0 as usize - 1].iter().collect();
        ensure!(rejected["fields"] == json!(cells), "{line}");
        // The log may have the messages, so they do not repeat cells.
        let message = rejected["message"].as_str().context("no message")?;
        for cell in ["zwei", "9.50.1", "soon", "99999999999999999999"] {
            ensure!(!message.contains(cell), "{message}");
        }
    }
    Ok(())
}

/// Writes the right cells into the report, and keeps the columns of Carga as they are.
fn correct(report: &[u8]) -> Result<Vec<u8>> {
    let (columns, rejected) = files::read(report)?;
    let position = |name: &str| columns.iter().position(|column| column == name);
    let row = position("_carga_row").context("no column `_carga_row`")?;
    let mut corrected = csv::Writer::from_writer(Vec::new());
    corrected.write_record(&columns)?;
    for record in &rejected {
        let number = &record[row];
        let right = |column: usize, cell: &str| match (column, number) {
            (0, _) => number.to_owned(),
            (1, "3") => "9,50".to_owned(),
            (2, "4") => "2024-01-04".to_owned(),
            _ => cell.to_owned(),
        };
        let cells = record.iter().enumerate();
        corrected.write_record(cells.map(|(column, cell)| right(column, cell)))?;
    }
    Ok(corrected.into_inner()?)
}

async fn a_row_that_is_too_wide_for_the_table_is_rejected_alone(mode: Mode) -> Result<()> {
    const COLUMNS: usize = 600;
    let app = App::start(mode.harness().await?, 1).await?;
    let names = (0..COLUMNS).map(|number| format!("c{number}"));
    let names: Vec<String> = names.collect();
    let column = |name: &String| json!({ "name": name, "type": "text" });
    let columns: Vec<Value> = names.iter().map(column).collect();
    declare(&app, "wide", json!(columns)).await?;
    let row = |cell: &str| [cell; COLUMNS].join(",");
    let (narrow, wide) = (row("short"), row("seventeen letters"));
    let file = format!("{}\n{narrow}\n{wide}\n{narrow}\n", names.join(","));
    let id = Uuid::now_v7();
    let sent = send(&app, id, &options("wide", &[]), file).await?;
    ensure!(sent.status() == 202, "{}", sent.text().await?);
    match mode {
        Mode::Embedded => {
            expect_stored(&app, "wide", id, "completed", 3).await?;
        }
        // A row of Postgres must fit into a page.
        Mode::Distributed => {
            expect_stored(&app, "wide", id, "partial", 2).await?;
            let rejected = app
                .client
                .get(format!("{}/uploads/{id}/rejected", app.url))
                .header("accept", "application/x-ndjson");
            let rejected = rejected.send().await?.text().await?;
            let rejected: Value = serde_json::from_str(&rejected)?;
            ensure!(rejected["row"] == 2, "{rejected}");
            ensure!(rejected["code"] == "row_too_large", "{rejected}");
        }
    }
    app.close().await
}

async fn every_column_of_the_flights_equals_an_independent_reading_of_the_file(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 2).await?;
    put(&app, "flights", &flights_definition(), 201).await?;
    let file = flights().await?;
    import(&app, "flights", file.clone(), FLIGHTS_ROWS).await?;

    let (columns, rows) = files::read(&file)?;
    let aggregates = "sum(distance), count(dep_time)";
    let postgres = format!(
        "{aggregates}, {}, {}",
        postgres_text("min(time_hour)", "timestamp"),
        postgres_text("max(time_hour)", "timestamp")
    );
    let sqlite = format!(
        "{aggregates}, {}, {}",
        sqlite_text("min(time_hour)", "timestamp"),
        sqlite_text("max(time_hour)", "timestamp")
    );
    let found = app.harness.typed("flights", &postgres, &sqlite).await?;
    let expected = json!([expected_aggregates(&columns, &rows)?]);
    ensure!(found == expected, "{found} instead of {expected}");

    let mut found = Checksums::default();
    let text_of = |text: fn(&str, &str) -> String| {
        let columns = FLIGHTS_COLUMNS.map(|(name, kind)| text(&quoted(name), kind));
        columns.join(", ")
    };
    let (postgres, sqlite) = (text_of(postgres_text), text_of(sqlite_text));
    let each = |row: Vec<Value>| {
        let cells = row.iter().map(|cell| cell.as_str().context("no text"));
        found.add(cells.collect::<Result<Vec<_>>>()?);
        anyhow::Ok(())
    };
    app.harness
        .each_typed("flights", &postgres, &sqlite, each)
        .await?;
    let mut expected = Checksums::default();
    for row in &rows {
        expected.add(row);
    }
    let (found, expected) = (found.finish(), expected.finish());
    ensure!(expected.len() == columns.len() && found.len() == columns.len());
    for ((column, found), expected) in columns.iter().zip(found).zip(expected) {
        ensure!(found == expected, "column {column} differs from the file");
    }
    app.close().await
}

/// An expression for a value as the file has it.
pub(super) fn postgres_text(value: &str, kind: &str) -> String {
    match kind {
        "timestamp" => {
            format!(r#"to_char({value} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#)
        }
        _ => format!("coalesce({value}::text, 'NA')"),
    }
}

/// The same for SQLite.
fn sqlite_text(value: &str, kind: &str) -> String {
    match kind {
        "timestamp" => format!("replace({value}, '.000000Z', 'Z')"),
        _ => format!("coalesce(CAST({value} AS text), 'NA')"),
    }
}

pub(super) fn expected_aggregates(columns: &[String], rows: &[StringRecord]) -> Result<Value> {
    let cells = |name: &str| {
        let position = columns.iter().position(|column| column == name);
        let position = position.with_context(|| format!("no column `{name}`"))?;
        let cells = rows.iter().map(move |row| &row[position]);
        anyhow::Ok(cells.filter(|cell| *cell != "NA"))
    };
    let distances: Vec<i64> = cells("distance")?
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // The notation of the file sorts its times.
    Ok(json!([
        distances.iter().sum::<i64>(),
        cells("dep_time")?.count(),
        cells("time_hour")?.min(),
        cells("time_hour")?.max(),
    ]))
}

/// A checksum for each column, over its cells in the order of the rows.
#[derive(Default)]
pub(super) struct Checksums(Vec<crc32fast::Hasher>);

impl Checksums {
    pub(super) fn add<'a>(&mut self, row: impl IntoIterator<Item = &'a str>) {
        for (column, cell) in row.into_iter().enumerate() {
            if column == self.0.len() {
                self.0.push(crc32fast::Hasher::new());
            }
            self.0[column].update(cell.as_bytes());
            self.0[column].update(b"\n");
        }
    }

    pub(super) fn finish(self) -> Vec<u32> {
        let columns = self.0.into_iter();
        columns.map(crc32fast::Hasher::finalize).collect()
    }
}
