//! Memory is bounded in bytes, whatever a file looks like.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use crate::answers::problem;
use crate::app::App;
use crate::harness::Mode;

in_both_modes! {
    a_survey_with_1500_long_column_names_is_stored_with_little_memory,
    a_row_of_four_million_commas_takes_little_memory,
    a_column_name_of_900_kilobytes_is_refused_and_other_uploads_go_on,
    a_report_of_long_rejected_rows_takes_little_memory,
}

const MIB: u64 = 1 << 20;

async fn a_survey_with_1500_long_column_names_is_stored_with_little_memory(
    mode: Mode,
) -> Result<()> {
    const COLUMNS: usize = 1500;
    const ROWS: i64 = 2000;
    let mut app = App::start(mode.harness().await?, 1).await?;
    let before = app.storing_process().peak_rss_bytes()?;
    let mut file = String::new();
    for column in 0..COLUMNS {
        let separator = if column == 0 { "" } else { "," };
        write!(file, "{separator}{column:04}{}", " and why?".repeat(9))?;
    }
    file.push('\n');
    for _ in 0..ROWS {
        file.push('1');
        file.push_str(&",5".repeat(COLUMNS - 1));
        file.push('\n');
    }
    let id = Uuid::now_v7();
    ensure!(app.put(id, file).await?.status() == 202);
    app.expect_completed(id, ROWS).await?;
    let growth = app.storing_process().peak_rss_bytes()? - before;
    ensure!(growth < 128 * MIB, "memory grew by {} MiB", growth / MIB);
    app.close().await
}

async fn a_row_of_four_million_commas_takes_little_memory(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let before = app.api.peak_rss_bytes()?;
    let commas = ",".repeat(4 * MIB as usize - 1);
    let file = format!("a,b\n1,2\n{commas}\n3,4\n");
    let id = Uuid::now_v7();
    ensure!(app.put(id, file).await?.status() == 202);
    let upload = app.wait_until_ended(id).await?;
    ensure!(
        upload["rows"]["inserted"] == 2 && upload["rows"]["rejected"] == 1,
        "{upload}"
    );
    let growth = app.api.peak_rss_bytes()? - before;
    ensure!(growth < 64 * MIB, "memory grew by {} MiB", growth / MIB);
    app.close().await
}

async fn a_column_name_of_900_kilobytes_is_refused_and_other_uploads_go_on(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let file = format!("id,{}\n{}", "q".repeat(900_000), "1,x\n".repeat(5000));
    let answer = app.put(Uuid::now_v7(), file).await?;
    let problem = problem(answer, 422, "column_name_too_long").await?;
    ensure!(
        problem["limit"] == 4096 && problem["actual"] == 900_000,
        "{problem}"
    );
    let length = problem.to_string().len();
    ensure!(length < 2000, "the answer has {length} bytes");
    let sound = Uuid::now_v7();
    ensure!(app.put(sound, "a,b\n1,2\n").await?.status() == 202);
    app.expect_completed(sound, 1).await?;
    app.close().await
}

async fn a_report_of_long_rejected_rows_takes_little_memory(mode: Mode) -> Result<()> {
    const LONG_ROWS: usize = 40;
    let app = App::start(mode.harness().await?, 1).await?;
    let long = "x".repeat(3_900_000) + "\n";
    let file = "a,b\n1,2\n".to_owned() + &long.repeat(LONG_ROWS);
    let id = Uuid::now_v7();
    ensure!(app.put(id, file).await?.status() == 202);
    let upload = app.wait_until_ended(id).await?;
    ensure!(upload["rows"]["rejected"] == LONG_ROWS, "{upload}");

    let before = app.api.peak_rss_bytes()?;
    let path = format!("/uploads/{id}/rejected");
    let report = app.client.get(app.url.clone() + &path).send().await?;
    ensure!(report.bytes().await?.len() > LONG_ROWS * long.len());
    // A client that reads nothing for a while must not make the server collect the report.
    let mut slow = app.connect().await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    slow.write_all(request.as_bytes()).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await?;
    ensure!(answer.len() > LONG_ROWS * long.len());
    let growth = app.api.peak_rss_bytes()?.saturating_sub(before);
    ensure!(growth < 64 * MIB, "memory grew by {} MiB", growth / MIB);
    app.close().await
}
