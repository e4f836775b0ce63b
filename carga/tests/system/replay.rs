//! Dead letters do not fail their upload, and are retried without a lost or a doubled row.

use anyhow::{Context, Result, ensure};
use futures::future::try_join;
use reqwest::StatusCode;
use serde_json::Value;
use uuid::Uuid;

use crate::access::run;
use crate::app::{App, TIMEOUT};
use crate::files::{self, csv};
use crate::harness::Mode;

in_both_modes! {
    dead_letters_of_three_uploads_are_retried_exactly,
    a_batch_that_fails_again_is_a_dead_letter_again,
    dead_letters_are_retried_on_the_command_line,
    a_message_that_is_gone_is_made_again_from_the_archive,
    a_retry_of_a_batch_that_does_not_exist_is_refused,
}

const BATCH_ROWS: usize = 50;

/// The table refuses the batches from row 101 to row 950.
const REFUSE: (&str, &str) = (
    "ALTER TABLE landing ADD CONSTRAINT refuse CHECK (row_number NOT BETWEEN 101 AND 950)",
    "CREATE TRIGGER refuse BEFORE INSERT ON rows
     WHEN (NEW.id & 0xfffffffff) BETWEEN 101 AND 950
     BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END",
);
const ALLOW: (&str, &str) = (
    "ALTER TABLE landing DROP CONSTRAINT refuse",
    "DROP TRIGGER refuse",
);

async fn start(mode: Mode) -> Result<App> {
    let harness = mode.harness().await?;
    let harness = harness.with("CARGA_BATCH_ROWS", &BATCH_ROWS.to_string());
    App::start(harness.with("CARGA_SWEEP_MS", "500"), 2).await
}

async fn post(app: &App, path: &str) -> Result<(StatusCode, Value)> {
    let answer = app.client.post(format!("{}{path}", app.url)).send().await?;
    Ok((answer.status(), answer.json().await?))
}

/// Sends a request twice at the same time, and once more. Each answer is an upload.
async fn post_often(app: &App, path: &str) -> Result<()> {
    let (one, two) = try_join(post(app, path), post(app, path)).await?;
    for (status, answer) in [one, two, post(app, path).await?] {
        ensure!(status == 202, "{path}: {status}: {answer}");
        ensure!(answer["error"].is_null(), "{answer}");
    }
    Ok(())
}

/// Sends a file of which this many batches become dead letters, and returns its upload.
async fn send_partial(app: &App, rows: usize, dead: usize) -> Result<Uuid> {
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(rows)).await?.status() == 202);
    let upload = app.wait_until_ended(id).await?;
    ensure!(upload["status"] == "partial", "{upload}");
    ensure!(upload["batches"]["dead"] == dead, "{upload}");
    ensure!(upload["rows"]["dead"] == dead * BATCH_ROWS, "{upload}");
    let stored = rows - dead * BATCH_ROWS;
    ensure!(upload["rows"]["inserted"] == stored, "{upload}");
    ensure!(app.harness.count_rows(id).await?.0 == stored as i64);
    Ok(id)
}

/// The dead letters of an upload, read in short pages.
async fn dead_batches(app: &App, id: Uuid) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/uploads/{id}/batches?status=dead&limit=4{cursor}");
        let (status, mut page) = app.get(&path).await?;
        ensure!(status == 200, "{page}");
        let batches = page["batches"].as_array_mut().context("no batches")?;
        found.append(batches);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
}

/// Fails unless the upload completed in its first epoch, with each cell of the file once.
async fn check_completed(app: &App, id: Uuid, rows: usize) -> Result<()> {
    let upload = app.expect_completed(id, rows as i64).await?;
    ensure!(upload["epoch"] == 1, "{upload}");
    ensure!(upload["batches"]["dead"] == 0 && upload["batches"]["retrying"] == 0);
    let (_, expected) = files::read(csv(rows).as_bytes())?;
    app.harness.check_rows(id, &expected).await?;
    let manifest = format!("uploads/{id}/manifest.json");
    let manifest: Value = serde_json::from_slice(&app.harness.object(&manifest).await?)?;
    ensure!(manifest["rows"] == rows && manifest["dead"] == 0);
    Ok(())
}

async fn dead_letters_of_three_uploads_are_retried_exactly(mode: Mode) -> Result<()> {
    let app = start(mode).await?;
    app.harness.execute(REFUSE.0, REFUSE.1).await?;
    // 50 batches of three uploads.
    let (one, two, three) = (
        send_partial(&app, 1000, 17).await?,
        send_partial(&app, 1000, 17).await?,
        send_partial(&app, 900, 16).await?,
    );
    let batches = dead_batches(&app, one).await?;
    let seqs: Vec<_> = batches.iter().map(|batch| &batch["seq"]).collect();
    ensure!(seqs == (3..=19).collect::<Vec<_>>(), "{seqs:?}");
    let first = &batches[0];
    ensure!(
        first["first_row"] == 101 && first["rows"] == BATCH_ROWS,
        "{first}"
    );
    let reason = first["reason"].as_str().context("no reason")?;
    ensure!(reason.contains("refuse"), "{reason}");
    app.harness.execute(ALLOW.0, ALLOW.1).await?;

    for seq in 3..=19 {
        post_often(&app, &format!("/uploads/{one}/batches/{seq}/retry")).await?;
    }
    for row in (101..=950).step_by(BATCH_ROWS) {
        let row = row + 17;
        post_often(&app, &format!("/uploads/{two}/retry?row={row}")).await?;
    }
    post_often(&app, &format!("/uploads/{three}/retry")).await?;
    for (id, rows) in [(one, 1000), (two, 1000), (three, 900)] {
        check_completed(&app, id, rows).await?;
        post_often(&app, &format!("/uploads/{id}/retry")).await?;
        check_completed(&app, id, rows).await?;
        ensure!(dead_batches(&app, id).await?.is_empty());
    }
    app.close().await
}

async fn a_batch_that_fails_again_is_a_dead_letter_again(mode: Mode) -> Result<()> {
    let app = start(mode).await?;
    app.harness.execute(REFUSE.0, REFUSE.1).await?;
    let id = send_partial(&app, 150, 1).await?;
    let before = dead_batches(&app, id).await?;
    let (status, _) = post(&app, &format!("/uploads/{id}/retry")).await?;
    ensure!(status == 202);
    let failed_again = async || {
        let batches = dead_batches(&app, id).await.ok()?;
        let again = batches.into_iter().next()?;
        (again["attempts"].as_u64() > before[0]["attempts"].as_u64()).then_some(again)
    };
    let again = carga_testkit::eventually(TIMEOUT, "the batch to fail again", failed_again);
    ensure!(again.await?["seq"] == 3);
    let upload = app.wait_until_ended(id).await?;
    ensure!(
        upload["status"] == "partial" && upload["rows"]["dead"] == 50,
        "{upload}"
    );

    // Its undo leaves nothing, and then it cannot be retried.
    app.harness.execute(ALLOW.0, ALLOW.1).await?;
    let (status, _) = post(&app, &format!("/uploads/{id}/undo")).await?;
    ensure!(status == 202);
    app.wait_until_cleaned(id).await?;
    let (status, problem) = post(&app, &format!("/uploads/{id}/retry")).await?;
    ensure!(
        status == 409 && problem["code"] == "wrong_state",
        "{problem}"
    );
    ensure!(dead_batches(&app, id).await?.is_empty());
    app.close().await
}

async fn dead_letters_are_retried_on_the_command_line(mode: Mode) -> Result<()> {
    let app = start(mode).await?;
    app.harness.execute(REFUSE.0, REFUSE.1).await?;
    let (one, two) = (
        send_partial(&app, 200, 2).await?,
        send_partial(&app, 150, 1).await?,
    );
    let (listed, _) = run(&app.harness, &["dead-letters", "list"])?;
    let numbers: Vec<&str> = listed
        .lines()
        .filter(|line| line.contains(&one.to_string()))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    ensure!(
        numbers.len() == 2 && listed.lines().count() == 4,
        "{listed}"
    );
    let of_batch = listed
        .lines()
        .find(|line| line.contains("101-150 (50)") && line.contains(&one.to_string()));
    let number = of_batch.and_then(|line| line.split_whitespace().next());
    let number = number.with_context(|| listed.clone())?;
    let (shown, _) = run(&app.harness, &["dead-letters", "show", number])?;
    for expected in [&one.to_string(), "refuse", "101-150 (50)", "näme 101"] {
        ensure!(
            shown.contains(expected),
            "`{expected}` is missing in:\n{shown}"
        );
    }
    app.harness.execute(ALLOW.0, ALLOW.1).await?;
    let retry = ["dead-letters", "retry", numbers[0], numbers[1]];
    let (printed, _) = run(&app.harness, &retry)?;
    ensure!(
        printed.matches("1 batch is being retried").count() == 2,
        "{printed}"
    );
    // The command only marks the dead letters. A worker publishes their messages.
    check_completed(&app, one, 200).await?;
    let of_upload = ["dead-letters", "retry", "--upload", &two.to_string()];
    run(&app.harness, &of_upload)?;
    check_completed(&app, two, 150).await?;
    let (printed, _) = run(&app.harness, &of_upload)?;
    ensure!(printed.contains("nothing to retry"), "{printed}");
    let (listed, _) = run(&app.harness, &["dead-letters", "list"])?;
    ensure!(listed.lines().count() == 1, "{listed}");
    app.close().await
}

/// A row: its number and its cells.
type NumberedRow = (i64, [Option<String>; 3]);

/// A file of 1,000 records of which every seventh is rejected, and the other records with their
/// numbers. Some lack their last cell.
fn with_rejects() -> (String, Vec<NumberedRow>) {
    let (mut file, mut rows) = ("id,name,note\n".to_owned(), Vec::new());
    for number in 1..=1000 {
        let name = format!("näme \"{number}\"\n");
        let quoted = name.replace('"', "\"\"");
        match number % 7 {
            0 => file.push_str("one,field,too,many\n"),
            1 => file.push_str(&format!("{number},\"{quoted}\"\n")),
            _ => file.push_str(&format!("{number},\"{quoted}\",x\n")),
        }
        let note = (number % 7 != 1).then(|| "x".to_owned());
        if number % 7 != 0 {
            rows.push((number, [Some(number.to_string()), Some(name), note]));
        }
    }
    (file, rows)
}

async fn a_message_that_is_gone_is_made_again_from_the_archive(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?;
    let harness = harness
        .with("CARGA_BATCH_ROWS", &BATCH_ROWS.to_string())
        .with("CARGA_ARCHIVE_COMPRESSION", "zstd");
    let app = App::start(harness, 1).await?;
    app.harness.execute(REFUSE.0, REFUSE.1).await?;
    let id = Uuid::now_v7();
    let (file, expected) = with_rejects();
    let path = format!("{}/uploads/{id}?short_rows=pad", app.url);
    let put = app.client.put(path).header("content-type", "text/csv");
    ensure!(put.body(file).send().await?.status() == 202);
    let upload = app.wait_until_ended(id).await?;
    ensure!(upload["status"] == "partial", "{upload}");
    let dead = upload["batches"]["dead"].as_u64().context("no figure")?;
    ensure!(dead > 10, "{upload}");

    // The archive has the batches, because a batch is archived before it is stored.
    let lose = ["''", "x''"].map(|body| format!("UPDATE parked_batches SET body = {body}"));
    app.harness.execute(&lose[0], &lose[1]).await?;
    app.harness.execute(ALLOW.0, ALLOW.1).await?;
    post_often(&app, &format!("/uploads/{id}/retry")).await?;
    let ended = app.wait_until_ended(id).await?;
    ensure!(
        ended["batches"]["dead"] == 0 && ended["rows"]["dead"] == 0,
        "{ended}"
    );
    ensure!(ended["rows"]["inserted"] == expected.len(), "{ended}");
    let path = format!("{}/uploads/{id}/rows?format=ndjson", app.url);
    let rows = app.client.get(path).send().await?.text().await?;
    let rows: Result<Vec<Value>, _> = rows.lines().map(serde_json::from_str).collect();
    for (row, (number, [id, name, note])) in rows?.iter().zip(&expected) {
        let cells = serde_json::json!({ "id": id, "name": name, "note": note });
        ensure!(*row == cells, "row {number} is {row}");
    }
    let (all, distinct) = app.harness.count_rows(id).await?;
    ensure!(all == expected.len() as i64 && distinct == all);
    for number in [99, 102, 519, 950, 1000] {
        let cells = &expected
            .iter()
            .find(|row| row.0 == number)
            .context("no row")?
            .1;
        let row = app.harness.view_row(id, number).await?;
        let cells = serde_json::json!({ "id": cells[0], "name": cells[1], "note": cells[2] });
        ensure!(row == cells, "row {number} is {row}");
    }
    app.close().await
}

async fn a_retry_of_a_batch_that_does_not_exist_is_refused(mode: Mode) -> Result<()> {
    let app = start(mode).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(120)).await?.status() == 202);
    app.expect_completed(id, 120).await?;
    for (path, status, code) in [
        ("batches/4/retry", 404, "batch_not_found"),
        ("batches/0/retry", 404, "batch_not_found"),
        ("batches/x/retry", 400, "malformed_id"),
        ("batches/1/retry?row=1", 400, "unknown_option"),
        ("retry?row=121", 404, "batch_not_found"),
        ("retry?row=0", 400, "malformed_option"),
        ("retry?row=1&row=1", 400, "repeated_option"),
        ("retry?seq=1", 400, "unknown_option"),
        ("retry?row=1&seq=1", 400, "unknown_option"),
    ] {
        let (found, problem) = post(&app, &format!("/uploads/{id}/{path}")).await?;
        ensure!(
            found == status && problem["code"] == code,
            "{path}: {problem}"
        );
    }
    let missing = Uuid::now_v7();
    for path in ["retry", "batches/1/retry"] {
        let (status, problem) = post(&app, &format!("/uploads/{missing}/{path}")).await?;
        ensure!(
            status == 404 && problem["code"] == "upload_not_found",
            "{problem}"
        );
    }
    check_completed(&app, id, 120).await?;
    app.close().await
}
