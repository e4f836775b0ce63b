//! Rows that violate a constraint of the dataset's table are rejected one by one.

mod between_workers;
pub(super) mod prices;
mod receiving;

use anyhow::{Context, Result, ensure};
use reqwest::Response;
use serde_json::{Value, json};
use uuid::Uuid;

use self::prices::File;
use super::{declare, expect_stored, import, options, send, undo};
use crate::app::App;
use crate::files;
use crate::harness::Mode;
use crate::random::random_runner;

in_both_modes! {
    violating_rows_are_rejected_one_by_one_and_the_corrected_report_stores_them,
    of_rows_with_the_same_unique_value_the_first_is_stored,
    violations_count_for_on_error_and_max_rejects,
    rows_for_which_a_trigger_raises_an_exception_are_rejected_with_its_message,
}

/// The rows of each file.
const ROWS: usize = 1000;

/// How many rows of each file have a fault.
const FAULTY: [usize; 5] = [0, 1, 7, 500, ROWS];

async fn violating_rows_are_rejected_one_by_one_and_the_corrected_report_stores_them(
    mode: Mode,
) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_BATCH_ROWS", "300");
    let app = App::start(harness, 4).await?;
    prices::create(&app).await?;
    // Every run has other files.
    let mut runner = random_runner();
    for (round, faulty) in FAULTY.into_iter().enumerate() {
        let first = round * ROWS;
        let file = File::new(mode, first, ROWS, faulty, &mut runner)?;
        let id = send_prices(&app, file.text.clone()).await?;
        match faulty {
            ROWS => expect_no_row(&app, id).await?,
            _ => expect_the_others(&app, id, &file).await?,
        }
        let rejected = rejected_rows(&app, id).await?;
        ensure!(rejected.len() == faulty, "{} rejected", rejected.len());
        for (found, expected) in rejected.iter().zip(&file.rejects) {
            expected.check(found)?;
        }
        let report = csv_report(&app, id).await?;
        let corrected = check_and_correct(&report, &file, first)?;
        if faulty > 0 {
            let id = send_prices(&app, corrected).await?;
            expect_stored(&app, prices::NAME, id, "completed", faulty as i64).await?;
        }
        let visible = app.harness.typed(prices::NAME, "count(*)", "count(*)");
        let visible = visible.await?;
        ensure!(visible == json!([[1 + first + ROWS]]), "{visible} rows");
    }
    let postgres = "sku, price::text, day, shop, barcode, note";
    let sqlite = "sku, price, day, shop, barcode, note";
    let found = app.harness.typed(prices::NAME, postgres, sqlite).await?;
    let found = found.as_array().context("no rows")?;
    let sorted = |rows: &[Value]| {
        let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
        rows.sort();
        rows
    };
    let expected = prices::stored_rows(FAULTY.len() * ROWS);
    ensure!(sorted(found) == sorted(&expected), "other rows are stored");
    app.close().await
}

/// Sends a file. One of its columns is not stored.
async fn send_prices(app: &App, file: Vec<u8>) -> Result<Uuid> {
    let id = Uuid::now_v7();
    let options = options(prices::NAME, &[("unknown_columns", "ignore")]);
    let answer = send(app, id, &options, file).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    Ok(id)
}

/// Fails unless every row without a fault is stored, and the counts of the upload and of its
/// manifest are right.
async fn expect_the_others(app: &App, id: Uuid, file: &File) -> Result<()> {
    let faulty = file.rejects.len();
    let status = match faulty {
        0 => "completed",
        _ => "partial",
    };
    let stored = (ROWS - faulty) as i64;
    let upload = expect_stored(app, prices::NAME, id, status, stored).await?;
    let rows = &upload["rows"];
    ensure!(
        rows["read"] == ROWS && rows["rejected"] == faulty && rows["pending"] == 0,
        "{upload}"
    );
    ensure!(
        upload["percent"] == 100.0 && upload["batches"]["dead"] == 0 && upload["error"].is_null(),
        "{upload}"
    );
    let keys = app.harness.objects().await?;
    let is_manifest =
        |key: &&String| key.contains(&id.to_string()) && key.ends_with("manifest.json");
    let key = keys.iter().find(is_manifest).context("no manifest")?;
    let manifest: Value = serde_json::from_slice(&app.harness.object(key).await?)?;
    let wrong_types = file.wrong_types();
    let batches = manifest["batches"].as_array().context("no batches")?;
    let archived: u64 = batches
        .iter()
        .filter_map(|batch| batch["rows"].as_u64())
        .sum();
    ensure!(
        manifest["rows"] == ROWS - wrong_types
            && manifest["rejected"] == wrong_types
            && manifest["violating"] == faulty - wrong_types
            && archived == (ROWS - wrong_types) as u64,
        "{manifest}"
    );
    Ok(())
}

/// Fails unless the upload failed because all of its rows are rejected.
async fn expect_no_row(app: &App, id: Uuid) -> Result<()> {
    let upload = app.expect_failed(id, "no_row_fits").await?;
    ensure!(
        upload["rows"]["read"] == ROWS && upload["rows"]["inserted"] == 0,
        "{upload}"
    );
    ensure!(app.harness.count_typed(prices::NAME, id).await? == (0, 0));
    Ok(())
}

async fn report(app: &App, id: Uuid, accept: &str) -> Result<Response> {
    let url = format!("{}/uploads/{id}/rejected", app.url);
    let answer = app.client.get(url).header("accept", accept).send().await?;
    Ok(answer.error_for_status()?)
}

/// The rejected rows of an upload, as NDJSON has them.
pub(super) async fn rejected_rows(app: &App, id: Uuid) -> Result<Vec<Value>> {
    let ndjson = report(app, id, "application/x-ndjson")
        .await?
        .text()
        .await?;
    let rows = ndjson.lines().map(serde_json::from_str);
    Ok(rows.collect::<Result<_, _>>()?)
}

async fn csv_report(app: &App, id: Uuid) -> Result<Vec<u8>> {
    let csv = report(app, id, "text/csv").await?;
    Ok(csv.bytes().await?.to_vec())
}

/// Fails unless the CSV has the rejected rows of the file. Writes the good cells into it, and keeps
/// the columns of Carga as they are.
fn check_and_correct(report: &[u8], file: &File, first: usize) -> Result<Vec<u8>> {
    const OURS: [&str; 8] = [
        "_carga_row",
        "_carga_line",
        "_carga_offset",
        "_carga_column",
        "_carga_code",
        "_carga_constraint",
        "_carga_message",
        "_carga_raw",
    ];
    let (columns, rejected) = files::read(report)?;
    ensure!(
        columns == [&prices::HEADER[..], &OURS].concat(),
        "{columns:?}"
    );
    ensure!(rejected.len() == file.rejects.len(), "{}", rejected.len());
    let mut corrected = csv::Writer::from_writer(Vec::new());
    corrected.write_record(&columns)?;
    for (record, expected) in rejected.iter().zip(&file.rejects) {
        let expected = expected.csv();
        let same = record.iter().take(expected.len()).eq(&expected);
        ensure!(same, "{record:?} instead of {expected:?}");
        let row: usize = record[prices::HEADER.len()].parse()?;
        let good = prices::good(first + row);
        let ours = record.iter().skip(good.len());
        corrected.write_record(good.iter().map(String::as_str).chain(ours))?;
    }
    Ok(corrected.into_inner()?)
}

pub(super) const CODES: &str = "codes";

/// Declares a dataset whose table has each code once.
pub(super) async fn create_codes(app: &App) -> Result<()> {
    let columns = json!([
        { "name": "code", "type": "text" },
        { "name": "number", "type": "integer" },
    ]);
    declare(app, CODES, columns).await?;
    let postgres = "ALTER TABLE datasets.codes ADD CONSTRAINT code_once UNIQUE (code)";
    let sqlite = "CREATE UNIQUE INDEX code_once ON datasets_codes (code)";
    app.harness.execute(postgres, sqlite).await
}

/// Fails unless each of these rows is rejected because its code is taken.
pub(super) fn check_taken(mode: Mode, rejected: &[Value]) -> Result<()> {
    let constraint = match mode {
        Mode::Distributed => "code_once",
        Mode::Embedded => "datasets_codes.code",
    };
    for row in rejected {
        ensure!(
            row["code"] == "unique_violation"
                && row["column"] == "code"
                && row["constraint"] == constraint,
            "{row}"
        );
    }
    Ok(())
}

async fn of_rows_with_the_same_unique_value_the_first_is_stored(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    create_codes(&app).await?;
    // All rows of a file are in one batch. The first file has few duplicates,
    // and the second one has many.
    for (rows, codes) in [(10_i64, 8), (900, 300)] {
        let mut file = "code,number\n".to_owned();
        for number in 0..rows {
            file.push_str(&format!("c{},{number}\n", number % codes));
        }
        // A NULL equals no other value.
        file.push_str(&format!(",{rows}\n,{}\n", rows + 1));
        let id = Uuid::now_v7();
        let sent = send(&app, id, &options(CODES, &[]), file).await?;
        ensure!(sent.status() == 202, "{}", sent.text().await?);
        let upload = expect_stored(&app, CODES, id, "partial", codes + 2).await?;
        ensure!(upload["rows"]["rejected"] == rows - codes, "{upload}");
        let rejected = rejected_rows(&app, id).await?;
        check_taken(mode, &rejected)?;
        let numbers = rejected.iter().map(|row| row["row"].as_i64());
        ensure!(numbers.eq((codes + 1..=rows).map(Some)), "{rejected:?}");
        let stored = app.harness.typed(CODES, "number", "number").await?;
        let first = (0..codes).chain([rows, rows + 1]);
        let first: Vec<Value> = first.map(|number| json!([number])).collect();
        ensure!(stored == json!(first), "{stored}");
        // The codes of a removed upload are free again.
        undo(&app, id).await?;
        ensure!(app.harness.count_typed(CODES, id).await? == (0, 0));
    }
    app.close().await
}

/// A file of this many codes. If the number of a row is a multiple of `every`, its code is `taken`.
fn codes(rows: usize, every: usize) -> String {
    let line = |row: usize| match row % every {
        0 => "taken\n".to_owned(),
        _ => format!("c{row}\n"),
    };
    "code\n".to_owned() + &(1..=rows).map(line).collect::<String>()
}

/// Sends a file. A worker may find that it has too many rejected rows before it is accepted.
async fn send_codes(app: &App, option: (&str, &str), file: &str) -> Result<Uuid> {
    let id = Uuid::now_v7();
    let sent = send(app, id, &options(CODES, &[option]), file.to_owned()).await?;
    let status = sent.status().as_u16();
    ensure!([202, 422].contains(&status), "{}", sent.text().await?);
    Ok(id)
}

async fn violations_count_for_on_error_and_max_rejects(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_MAX_REJECTS", "20");
    let app = App::start(harness, 1).await?;
    create_codes(&app).await?;
    import(&app, CODES, "code\ntaken\n", 1).await?;
    // Of 100 rows, 5 and 25 violate the constraint.
    let (few, many) = (codes(100, 20), codes(100, 4));
    let too_many = "too_many_rejects";
    for (file, option, code, text) in [
        (&few, ("on_error", "abort"), "unique_violation", ""),
        (&few, ("max_rejects", "3"), too_many, "more than 3 rows"),
        (&few, ("max_rejects", "1%"), too_many, "5 of 100 rows"),
        (&many, ("on_error", "reject"), too_many, "CARGA_MAX_REJECTS"),
    ] {
        let id = send_codes(&app, option, file).await?;
        let upload = app.expect_failed(id, code).await?;
        let error = &upload["error"];
        let message = error["message"].as_str().context("no message")?;
        ensure!(message.contains(text), "{message}");
        if code == "unique_violation" {
            ensure!(error["row"] == 20 && error["line"] == 21, "{error}");
            ensure!(error["column"] == "code", "{error}");
        }
        ensure!(app.harness.count_typed(CODES, id).await? == (0, 0));
        let rejected = rejected_rows(&app, id).await?;
        ensure!(rejected.len() == file.matches("taken").count());
        check_taken(mode, &rejected)?;
    }
    for max in ["5", "5%"] {
        let id = send_codes(&app, ("max_rejects", max), &few).await?;
        expect_stored(&app, CODES, id, "partial", 95).await?;
        undo(&app, id).await?;
    }
    app.close().await
}

async fn rows_for_which_a_trigger_raises_an_exception_are_rejected_with_its_message(
    mode: Mode,
) -> Result<()> {
    const IN_POSTGRES: &str = "
        CREATE FUNCTION check_word() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.word = 'no' THEN RAISE EXCEPTION 'the word is forbidden'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER check_word BEFORE INSERT ON datasets.words
            FOR EACH ROW EXECUTE FUNCTION check_word();
    ";
    const IN_SQLITE: &str = "
        CREATE TRIGGER check_word BEFORE INSERT ON datasets_words WHEN NEW.word = 'no'
            BEGIN SELECT RAISE(ABORT, 'the word is forbidden'); END;
    ";
    let app = App::start(mode.harness().await?, 1).await?;
    declare(&app, "words", json!([{ "name": "word", "type": "text" }])).await?;
    app.harness.execute(IN_POSTGRES, IN_SQLITE).await?;
    // On Postgres, up to three rows are taken out of the COPY. More rows are found by dividing it.
    let id = Uuid::now_v7();
    let file = "word\n".to_owned() + &"yes\nno\n".repeat(10);
    let sent = send(&app, id, &options("words", &[]), file).await?;
    ensure!(sent.status() == 202, "{}", sent.text().await?);
    expect_stored(&app, "words", id, "partial", 10).await?;
    let rejected = rejected_rows(&app, id).await?;
    let expected = (1..=10).map(|number| json!([2 * number, "trigger_exception", null, ["no"]]));
    let found = rejected.iter().map(|row| {
        let fields = ["row", "code", "constraint", "fields"];
        json!(fields.map(|field| row[field].clone()))
    });
    ensure!(found.eq(expected), "{rejected:?}");
    let message = "the word is forbidden";
    ensure!(rejected.iter().all(|row| row["message"] == message));
    app.close().await
}
