//! Rows that violate a constraint while the rest of their file is still being received.

use anyhow::{Result, ensure};
use carga_testkit::eventually;
use uuid::Uuid;

use super::{CODES, check_taken, create_codes, rejected_rows};
use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::datasets::{detail, expect_stored, import, start_sending};
use crate::files::paced;
use crate::harness::Mode;

in_both_modes! {
    violating_rows_are_reported_while_the_file_is_received,
    too_many_violating_rows_fail_the_upload_before_its_file_ends,
}

/// Starts Carga with small batches, and stores the code `taken`.
async fn start(mode: Mode, settings: &[(&str, &str)]) -> Result<App> {
    let mut harness = mode.harness().await?.with("CARGA_BATCH_ROWS", "250");
    for (key, value) in settings {
        harness = harness.with(key, value);
    }
    let app = App::start(harness, 1).await?;
    create_codes(&app).await?;
    import(&app, CODES, "code,number\ntaken,0\n", 1).await?;
    Ok(app)
}

async fn violating_rows_are_reported_while_the_file_is_received(mode: Mode) -> Result<()> {
    const ROWS: usize = 10_000;
    let app = start(mode, &[]).await?;
    let mut file = "code,number\n".to_owned();
    for row in 1..=ROWS {
        match row % 10 {
            0 => file.push_str(&format!("taken,{row}\n")),
            _ => file.push_str(&format!("c{row},{row}\n")),
        }
    }
    // The whole file takes ten seconds.
    let rate = file.len() / 10;
    let id = Uuid::now_v7();
    let sent = start_sending(&app, id, CODES, paced(file, rate))?;
    let with_rejects = async || {
        let upload = app.upload(id).await.ok()??;
        (upload["rows"]["rejected"].as_u64()? > 0).then_some(upload)
    };
    let upload = eventually(TIMEOUT, "a rejected row", with_rejects).await?;
    ensure!(upload["status"] == "receiving", "{upload}");
    let rejected = rejected_rows(&app, id).await?;
    // More rows may have been rejected since then.
    ensure!(
        Some(rejected.len() as u64) >= upload["rows"]["rejected"].as_u64(),
        "{} rows in the report of {upload}",
        rejected.len()
    );
    check_taken(mode, &rejected)?;
    for row in &rejected {
        let number = row["row"].as_u64();
        ensure!(number.is_some_and(|number| number % 10 == 0), "{row}");
    }
    ensure!(sent.await??.status() == 202);
    let stored = ROWS / 10 * 9;
    let upload = expect_stored(&app, CODES, id, "partial", stored as i64).await?;
    ensure!(upload["rows"]["rejected"] == ROWS / 10, "{upload}");
    app.close().await
}

async fn too_many_violating_rows_fail_the_upload_before_its_file_ends(mode: Mode) -> Result<()> {
    const ROWS: u64 = 60_000;
    let app = start(mode, &[("CARGA_MAX_REJECTS", "500")]).await?;
    // The whole file takes a minute.
    let file = "code,number\n".to_owned() + &"taken,1\n".repeat(ROWS as usize);
    let rate = file.len() / 60;
    let id = Uuid::now_v7();
    let sent = start_sending(&app, id, CODES, paced(file, rate))?;
    let refused = problem(sent.await??, 422, "too_many_rejects").await?;
    ensure!(
        detail(&refused)?.contains("more than 500 rows"),
        "{refused}"
    );
    let upload = app.expect_failed(id, "too_many_rejects").await?;
    let rows = &upload["rows"];
    let read = rows["read"].as_u64();
    ensure!(
        read.is_some_and(|read| read < ROWS),
        "the whole file was read: {upload}"
    );
    let rejected = rows["rejected"].as_u64();
    ensure!(rejected > Some(500) && rows["inserted"] == 0, "{upload}");
    // The other rows that were read are discarded, since the counts add up in every answer.
    let report = rejected_rows(&app, id).await?;
    ensure!(Some(report.len() as u64) == rejected, "{upload}");
    check_taken(mode, &report)?;
    ensure!(app.harness.count_typed(CODES, id).await? == (0, 0));
    app.close().await
}
