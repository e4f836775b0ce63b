//! Files without faults are stored completely.

use anyhow::{Context, Result, ensure};
use carga_common::archive::Manifest;
use serde_json::Value;
use tokio::process::Command;
use uuid::Uuid;

use crate::answers::sha256_hex;
use crate::app::App;
use crate::files::{self, FLIGHTS_BATCHES, FLIGHTS_ROWS, csv, flights, paced};
use crate::harness::Mode;

in_both_modes! {
    a_file_sent_by_curl_is_stored_and_archived_cell_by_cell,
    concurrent_uploads_are_both_stored_exactly,
    quotes_line_breaks_empty_cells_and_leading_zeros_are_preserved,
    a_file_with_only_a_header_completes_with_a_manifest,
}

async fn a_file_sent_by_curl_is_stored_and_archived_cell_by_cell(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 2).await?;
    let path = carga_testkit::fixtures::flights()?;
    let sent = Command::new("curl")
        .args(["--silent", "--fail-with-body", "-F"])
        .arg(format!("file=@{}", path.display()))
        .arg(format!("{}/uploads", app.url))
        .output()
        .await
        .context("running curl")?;
    ensure!(
        sent.status.success(),
        "curl failed: {}",
        String::from_utf8_lossy(&sent.stdout)
    );
    let accepted: Value = serde_json::from_slice(&sent.stdout)?;
    ensure!(accepted["filename"] == "flights.csv", "{accepted}");
    ensure!(accepted["rows"]["read"] == FLIGHTS_ROWS, "{accepted}");
    let id: Uuid = accepted["id"].as_str().context("no id")?.parse()?;
    let upload = app.expect_completed(id, FLIGHTS_ROWS).await?;

    let file = flights().await?;
    let (columns, rows) = files::read(&file)?;
    ensure!(rows.len() as i64 == FLIGHTS_ROWS);
    let digest = sha256_hex(&file);
    ensure!(upload["sha256"] == digest.as_str() && upload["bytes"]["received"] == file.len());
    app.harness.check_rows(id, &rows).await?;

    let objects = app.harness.objects().await?;
    ensure!(
        objects.len() as i64 == FLIGHTS_BATCHES + 1,
        "{} objects instead of the batches and a manifest",
        objects.len()
    );
    let manifest = app
        .harness
        .object(&format!("uploads/{id}/manifest.json"))
        .await?;
    let manifest: Manifest = serde_json::from_slice(&manifest)?;
    ensure!(manifest.batches.len() as i64 == FLIGHTS_BATCHES);
    ensure!(manifest.rows as i64 == FLIGHTS_ROWS);
    ensure!(manifest.columns == columns && manifest.source_sha256 == Some(digest.parse()?));
    let mut rows = rows.iter();
    for (batch, number) in manifest.batches.iter().zip(1..) {
        ensure!(
            batch.key == format!("uploads/{id}/batch-{number:06}.json"),
            "{}",
            batch.key
        );
        let object = app.harness.object(&batch.key).await?;
        ensure!(
            batch.bytes == object.len() as u64
                && batch.crc32 == format!("{:08x}", crc32fast::hash(&object))
        );
        let archived: Vec<serde_json::Map<String, Value>> = serde_json::from_slice(&object)?;
        ensure!(archived.len() == batch.rows as usize);
        // One row per line, and one line for each bracket.
        ensure!(object.iter().filter(|byte| **byte == b'\n').count() == archived.len() + 2);
        for archived in archived {
            let row = rows.next().context("more rows than the file has")?;
            let same = columns
                .iter()
                .zip(row)
                .all(|(column, cell)| archived[column] == cell);
            ensure!(
                same && archived.len() == columns.len(),
                "{archived:?} instead of {row:?}"
            );
        }
    }
    ensure!(rows.next().is_none());
    app.close().await
}

async fn concurrent_uploads_are_both_stored_exactly(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 2).await?;
    let file = flights().await?;
    let other = csv(40_000);
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    let (first, second) = tokio::join!(
        app.put(ids[0], file),
        app.put(ids[1], paced(other, 1_500_000))
    );
    ensure!(first?.status() == 202 && second?.status() == 202);
    app.expect_completed(ids[0], FLIGHTS_ROWS).await?;
    app.expect_completed(ids[1], 40_000).await?;
    app.close().await
}

async fn quotes_line_breaks_empty_cells_and_leading_zeros_are_preserved(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let id = Uuid::now_v7();
    // With a byte order mark and CRLF line ends.
    let file = format!("\u{feff}{}", csv(2500)).replace('\n', "\r\n");
    ensure!(app.put(id, file).await?.status() == 202);
    let upload = app.expect_completed(id, 2500).await?;
    ensure!(
        upload["columns"] == serde_json::json!(["id", "name", "note", "empty"]),
        "{upload}"
    );
    ensure!(upload["dialect"]["bom"] == true);
    let data = app.harness.view_row(id, 2042).await?;
    let expected = serde_json::json!({
        "id": "0002042", "name": "näme 2042", "note": "a \"quoted\",\r\nnote", "empty": ""
    });
    ensure!(data == expected, "{data}");
    app.close().await
}

async fn a_file_with_only_a_header_completes_with_a_manifest(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    for header in ["a,b,c", "a,b,c\n", "\"a\",b,c\r\n\r\n"] {
        let id = Uuid::now_v7();
        let answer = app.put(id, header).await?;
        ensure!(answer.status() == 202, "{header:?}");
        app.expect_completed(id, 0).await?;
        let objects = app.harness.objects().await?;
        let of_upload = objects.iter().filter(|key| key.contains(&id.to_string()));
        ensure!(of_upload.eq([&format!("uploads/{id}/manifest.json")]));
    }
    app.close().await
}
