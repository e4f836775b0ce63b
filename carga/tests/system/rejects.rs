//! Rejected rows are reported, and the corrected report can be sent as a second upload.

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use csv::StringRecord;
use serde_json::Value;
use uuid::Uuid;

use crate::answers::{problem, sha256_hex};
use crate::app::{App, KNOWN_DIALECT, TIMEOUT};
use crate::files;
use crate::harness::Mode;

in_both_modes! {
    a_file_with_bad_rows_and_its_corrected_report_store_every_row,
    an_uncorrected_report_stores_nothing_however_often_it_is_sent,
    of_simultaneous_uploads_of_one_file_a_single_one_is_accepted_if_duplicates_are_refused,
    the_reject_report_is_csv_or_ndjson_and_escapes_formulas_on_request,
    too_many_rejected_rows_fail_the_upload_at_once_and_stay_readable,
    a_duplicate_file_is_linked_to_the_earlier_upload_or_refused,
    a_stray_quote_costs_its_own_line_and_no_row_below,
    a_cell_with_lines_that_look_like_rows_is_stored_and_logged,
    rejected_rows_can_be_read_while_the_file_is_received,
}

const ROWS: usize = 100_000;

/// A good row, whose cells follow from its number.
fn good(number: usize) -> [String; 3] {
    [
        number.to_string(),
        format!("näme {number}"),
        format!("a, \"note\" {number}"),
    ]
}

fn encode(row: &[String; 3]) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(row)?;
    Ok(writer.into_inner()?)
}

/// A file in which one row in a hundred has one of five faults, in turn.
fn with_bad_rows() -> Result<Vec<u8>> {
    let mut file = b"id,name,note\n".to_vec();
    for number in 1..=ROWS {
        let row = match number {
            bad if bad % 100 != 50 => encode(&good(number))?,
            bad => match bad / 100 % 5 {
                0 => format!("{number},only\n").into_bytes(),
                1 => format!("{number},one,two,three\n").into_bytes(),
                2 => [number.to_string().as_bytes(), b",n\xe4me,x\n"].concat(),
                3 => format!("{number},\"x\"y,z\n").into_bytes(),
                _ => format!("{number},\0,x\n").into_bytes(),
            },
        };
        file.extend(row);
    }
    Ok(file)
}

async fn a_file_with_bad_rows_and_its_corrected_report_store_every_row(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let first = Uuid::now_v7();
    ensure!(app.put(first, with_bad_rows()?).await?.status() == 202);
    let upload = app.wait_until_ended(first).await?;
    let bad = ROWS / 100;
    ensure!(upload["status"] == "partial", "{upload}");
    ensure!(
        upload["rows"]["read"] == ROWS
            && upload["rows"]["rejected"] == bad
            && upload["rows"]["inserted"] == ROWS - bad,
        "{upload}"
    );
    let report = app
        .client
        .get(format!("{}/uploads/{first}/rejected", app.url));
    let report = report.send().await?.bytes().await?;
    let (columns, rejected) = files::read(&report)?;
    ensure!(rejected.len() == bad, "{}", rejected.len());
    let column = |name: &str| columns.iter().position(|column| column == name);
    let (row, code) = (
        column("_carga_row").context("no row")?,
        column("_carga_code"),
    );
    let mut counts = std::collections::BTreeMap::new();
    for rejected in &rejected {
        *counts
            .entry(
                code.and_then(|code| rejected.get(code))
                    .context("no code")?,
            )
            .or_insert(0) += 1;
    }
    ensure!(
        counts.len() == 5 && counts.values().all(|count| *count == bad / 5),
        "{counts:?}"
    );

    // Correct the cells as a user's script would, and keep the `_carga_` columns as they are.
    let mut mended = csv::Writer::from_writer(Vec::new());
    mended.write_record(&columns)?;
    let mut second_rows = Vec::new();
    for rejected in &rejected {
        let number: usize = rejected[row].parse()?;
        let cells = good(number);
        let ours = rejected.iter().skip(cells.len());
        mended.write_record(cells.iter().map(String::as_str).chain(ours))?;
        second_rows.push(StringRecord::from(cells.to_vec()));
    }
    let second = Uuid::now_v7();
    ensure!(app.put(second, mended.into_inner()?).await?.status() == 202);
    let upload = app.expect_completed(second, bad as i64).await?;
    ensure!(
        upload["columns"] == serde_json::json!(["id", "name", "note"]),
        "{upload}"
    );
    app.harness.check_rows(second, &second_rows).await?;
    let first_rows: Vec<(i64, StringRecord)> = (1..=ROWS)
        .filter(|number| number % 100 != 50)
        .map(|number| (number as i64, StringRecord::from(good(number).to_vec())))
        .collect();
    let first_rows = first_rows.iter().map(|(number, row)| (*number, row));
    app.harness.check_numbered_rows(first, first_rows).await?;
    app.close().await
}

async fn an_uncorrected_report_stores_nothing_however_often_it_is_sent(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let file = b"id,name\n1,Ada\n2,Bob,extra\n3,\"x\"y\n4\n5,Zo\xe9\n6,a\0b\n7,Eve\n";
    let report_of = async |id: Uuid| -> Result<String> {
        let url = format!("{}/uploads/{id}/rejected", app.url);
        Ok(app.client.get(url).send().await?.text().await?)
    };
    let first = Uuid::now_v7();
    let sent = app.put_with(first, KNOWN_DIALECT, file.to_vec()).await?;
    ensure!(sent.status() == 202);
    let upload = app.wait_until_ended(first).await?;
    ensure!(upload["rows"]["rejected"] == 5, "{upload}");
    let mut report = report_of(first).await?;
    for _ in 0..2 {
        let id = Uuid::now_v7();
        let sent = app.put_with(id, KNOWN_DIALECT, report.clone()).await?;
        problem(sent, 422, "no_row_fits").await?;
        let upload = app.wait_until_ended(id).await?;
        ensure!(
            upload["rows"]["inserted"] == 0 && upload["rows"]["rejected"] == 5,
            "{upload}"
        );
        report = report_of(id).await?;
        ensure!(report.matches(",not_corrected,").count() == 5, "{report}");
        // The original text and the escaped bytes are still there to be corrected.
        for kept in ["2,Bob,extra", "Zo\\xE9", "a\\x00b"] {
            ensure!(report.contains(kept), "{report}");
        }
    }
    let corrected = report.replace("Zo\\xE9", "Zoé").replace("a\\x00b", "ab");
    let id = Uuid::now_v7();
    ensure!(app.put_with(id, KNOWN_DIALECT, corrected).await?.status() == 202);
    let upload = app.wait_until_ended(id).await?;
    ensure!(
        upload["rows"]["inserted"] == 2 && upload["rows"]["rejected"] == 3,
        "{upload}"
    );
    app.close().await
}

async fn of_simultaneous_uploads_of_one_file_a_single_one_is_accepted_if_duplicates_are_refused(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let sending = (0..6).map(|_| {
        let query = format!("{KNOWN_DIALECT}&on_duplicate=reject");
        let app = &app;
        async move { app.put_with(Uuid::now_v7(), &query, files::csv(3000)).await }
    });
    let answers = futures::future::try_join_all(sending).await?;
    let statuses: Vec<u16> = answers
        .iter()
        .map(|answer| answer.status().as_u16())
        .collect();
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    ensure!(count(202) == 1 && count(409) == 5, "{statuses:?}");
    app.close().await
}

async fn the_reject_report_is_csv_or_ndjson_and_escapes_formulas_on_request(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let id = Uuid::now_v7();
    ensure!(app.put(id, "a,b\n=1+1,\0\n@x\n1,2\n").await?.status() == 202);
    app.wait_until_ended(id).await?;
    let report = async |query: &str, accept: &str| {
        let get = app
            .client
            .get(format!("{}/uploads/{id}/rejected{query}", app.url));
        let answer = get.header("accept", accept).send().await?;
        let kind = answer.headers()["content-type"].to_str()?.to_owned();
        anyhow::Ok((kind, answer.text().await?))
    };
    let (kind, plain) = report("", "*/*").await?;
    ensure!(kind == "text/csv; charset=utf-8", "{kind}");
    let lines: Vec<&str> = plain.lines().collect();
    ensure!(lines[0].starts_with("a,b,_carga_row,_carga_line,_carga_offset,_carga_column,"));
    ensure!(
        lines[1].starts_with("=1+1,\\x00,1,2,4,b,nul_character,"),
        "{plain}"
    );
    ensure!(
        lines[2].starts_with(",,2,3,11,,too_few_fields,") && lines[2].ends_with(",@x"),
        "{plain}"
    );
    let (_, safe) = report("?safe=spreadsheet", "*/*").await?;
    ensure!(
        safe.contains("\n'=1+1,") && safe.contains(",'@x\n"),
        "{safe}"
    );
    let (kind, ndjson) = report("", "application/x-ndjson").await?;
    ensure!(kind == "application/x-ndjson", "{kind}");
    let first: Value = serde_json::from_str(ndjson.lines().next().context("no line")?)?;
    ensure!(
        first["fields"] == serde_json::json!(["=1+1", "\\x00"]),
        "{first}"
    );
    ensure!(first["offset"] == 4 && first["raw"].is_null(), "{first}");

    let missing = format!("{}/uploads/{}/rejected", app.url, Uuid::now_v7());
    problem(
        app.client.get(missing).send().await?,
        404,
        "upload_not_found",
    )
    .await?;
    let wrong = format!("{}/uploads/{id}/rejected?safe=yes", app.url);
    problem(app.client.get(wrong).send().await?, 400, "malformed_option").await?;
    app.close().await
}

async fn too_many_rejected_rows_fail_the_upload_at_once_and_stay_readable(
    mode: Mode,
) -> Result<()> {
    let harness = mode.harness().await?.with("CARGA_MAX_REJECTS", "2000");
    let app = App::start(harness, 1).await?;
    // Enough good rows for several batches, then more bad rows than Carga will read.
    let good = files::csv(5000);
    let file = [
        good.as_str(),
        &"bad\n".repeat(3000),
        &"bad\n".repeat(100_000),
    ]
    .concat();
    for (query, kept) in [("max_rejects=1500", 1501), ("", 2001)] {
        let id = Uuid::now_v7();
        let answer = app.put_with(id, query, file.clone()).await?;
        let refused = problem(answer, 422, "too_many_rejects").await?;
        ensure!(
            refused["limit"] == kept - 1 && refused["actual"] == kept,
            "{refused}"
        );
        let upload = app.expect_failed(id, "too_many_rejects").await?;
        ensure!(upload["rows"]["rejected"] == kept, "{upload}");
        ensure!(upload["rows"]["discarded"] == 5000, "{upload}");
        let report = app.client.get(format!("{}/uploads/{id}/rejected", app.url));
        let report = report.send().await?.text().await?;
        ensure!(
            report.lines().count() == kept + 1,
            "{}",
            report.lines().count()
        );
    }
    app.close().await
}

async fn a_duplicate_file_is_linked_to_the_earlier_upload_or_refused(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let (first, second, third) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let file = files::csv(1200);
    let digest = sha256_hex(&file);
    ensure!(app.put(first, file.clone()).await?.status() == 202);
    let upload = app.expect_completed(first, 1200).await?;
    ensure!(
        upload["duplicate_of"].is_null() && upload["sha256"] == digest,
        "{upload}"
    );

    ensure!(app.put(second, file.clone()).await?.status() == 202);
    let upload = app.expect_completed(second, 1200).await?;
    ensure!(upload["duplicate_of"] == first.to_string(), "{upload}");

    let answer = app
        .put_with(third, "on_duplicate=reject", file.clone())
        .await?;
    let refused = problem(answer, 409, "duplicate_file").await?;
    let detail = refused["detail"].as_str().context("no detail")?;
    ensure!(detail.contains(&second.to_string()), "{refused}");
    app.expect_failed(third, "duplicate_file").await?;

    let other = Uuid::now_v7();
    let answer = app
        .put_with(other, "on_duplicate=reject", files::csv(1201))
        .await?;
    ensure!(answer.status() == 202);
    app.expect_completed(other, 1201).await?;
    app.close().await
}

async fn a_stray_quote_costs_its_own_line_and_no_row_below(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let mut file = "id,name,price\n".to_owned();
    for number in 0..5000 {
        let name = match number {
            10 => "\"5 inch nail",
            4000 => "\"Doe, John\"",
            _ => "nail",
        };
        file.push_str(&format!("{number},{name},{number}\n"));
    }
    let id = Uuid::now_v7();
    ensure!(app.put(id, file).await?.status() == 202);
    let upload = app.wait_until_ended(id).await?;
    ensure!(
        upload["rows"]["read"] == 5000
            && upload["rows"]["inserted"] == 4999
            && upload["rows"]["rejected"] == 1,
        "{upload}"
    );
    let report = app
        .client
        .get(format!("{}/uploads/{id}/rejected", app.url))
        .header("accept", "application/x-ndjson");
    let report = report.send().await?.text().await?;
    let rejected: Value = serde_json::from_str(&report)?;
    let found = serde_json::json!([
        rejected["row"],
        rejected["line"],
        rejected["column"],
        rejected["code"],
        rejected["raw"]
    ]);
    let expected = serde_json::json!([11, 12, "name", "bad_quote", "10,\"5 inch nail,10"]);
    ensure!(found == expected, "{report}");
    app.close().await
}

/// A cell may contain rows on purpose, so the row is stored as it is.
async fn a_cell_with_lines_that_look_like_rows_is_stored_and_logged(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let id = Uuid::now_v7();
    let rows = "2,nail,2\n".repeat(5);
    let file = format!("id,name,price\n1,\"5 inch nail,1\n{rows}3,nail 14\",3\n");
    ensure!(app.put(id, file).await?.status() == 202);
    let upload = app.expect_completed(id, 1).await?;
    let evidence = upload["dialect"]["evidence"]["delimiter"].to_string();
    ensure!(
        evidence.contains("row 1 has a quoted field with 5 lines"),
        "{evidence}"
    );
    let log = app.api.log();
    let warning = log.lines().find(|line| line.contains("suspicious_quote"));
    let warning = warning.context("no warning")?;
    for part in ["row=1", "line=2", &id.to_string()] {
        ensure!(warning.contains(part), "{warning}");
    }
    app.close().await
}

async fn rejected_rows_can_be_read_while_the_file_is_received(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let id = Uuid::now_v7();
    // One row in a hundred has a fault. The whole file takes ten seconds.
    let file = with_bad_rows()?;
    let rate = file.len() / 10;
    let sending = app.start_sending(id, files::paced(file, rate));
    let url = format!("{}/uploads/{id}/rejected", app.url);
    let has_rows = async || {
        let answer = app.client.get(&url).send().await.ok()?;
        let status = answer.headers().get("carga-upload-status")?.clone();
        let report = answer.text().await.ok()?;
        (report.lines().count() > 10).then_some((status, report))
    };
    let (status, report) = eventually(TIMEOUT, "rejected rows", has_rows).await?;
    ensure!(status == "receiving", "{status:?}");
    ensure!(
        report
            .lines()
            .nth(1)
            .is_some_and(|row| row.contains(",50,")),
        "{report}"
    );
    ensure!(sending.await??.status() == 202);
    app.close().await
}
