//! Enormous input is refused early, and memory stays flat.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use uuid::Uuid;

use crate::app::App;
use crate::files::csv;
use crate::harness::Mode;

in_both_modes! {
    a_gzip_bomb_of_ten_gigabytes_is_refused_early_with_flat_memory,
    a_field_of_two_gigabytes_is_refused_early_with_flat_memory,
}

/// More memory than reading needs, and far less than buffering the input would take.
const MAX_GROWTH_BYTES: u64 = 100 << 20;

/// Compresses with the real gzip program.
fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = Command::new("gzip")
        .arg("-9c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run gzip")?;
    let mut input = gzip.stdin.take().context("no standard input")?;
    let content = content.to_vec();
    let writing = std::thread::spawn(move || input.write_all(&content));
    let packed = gzip.wait_with_output()?.stdout;
    writing
        .join()
        .map_err(|_| anyhow::anyhow!("writing ended early"))??;
    Ok(packed)
}

async fn a_gzip_bomb_of_ten_gigabytes_is_refused_early_with_flat_memory(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    // A thousand gzip members of ten kilobytes, each of which decompresses to ten megabytes.
    let member = gzip("1,2\n".repeat(2_500_000).as_bytes())?;
    let file = [gzip(b"a,b\n")?, member.repeat(1000)].concat();
    ensure!((8 << 20..12 << 20).contains(&file.len()), "{}", file.len());
    let before = app.api.peak_rss_bytes()?;
    let id = Uuid::now_v7();
    let (status, refused) = app
        .curl(id, move |mut input| input.write_all(&file))
        .await?;
    ensure!(
        status == 413 && refused["code"] == "expanded_too_large",
        "{refused}"
    );
    ensure!(
        refused["actual"].as_u64() > refused["limit"].as_u64(),
        "{refused}"
    );
    let detail = refused["detail"].as_str().context("no detail")?;
    ensure!(detail.contains("CARGA_MAX_EXPANSION"), "{refused}");
    let upload = app.expect_failed(id, "expanded_too_large").await?;
    // The upload was refused early: little more was read than the size above which the ratio
    // applies.
    ensure!(
        upload["rows"]["read"].as_u64() < Some(10_000_000),
        "{upload}"
    );
    let grown = app.api.peak_rss_bytes()? - before;
    ensure!(grown < MAX_GROWTH_BYTES, "memory grew by {grown} bytes");

    let sound = Uuid::now_v7();
    ensure!(app.put(sound, gzip(csv(3000).as_bytes())?).await?.status() == 202);
    app.expect_completed(sound, 3000).await?;
    app.close().await
}

async fn a_field_of_two_gigabytes_is_refused_early_with_flat_memory(mode: Mode) -> Result<()> {
    const PIECE: usize = 1 << 20;
    let app = App::start(mode.harness().await?, 1).await?;
    let before = app.api.peak_rss_bytes()?;
    for quote in ["", "\""] {
        let id = Uuid::now_v7();
        let sent = app.curl(id, move |mut input| {
            write!(input, "a,b\n1,2\n3,{quote}")?;
            (0..2048).try_for_each(|_| input.write_all(&[b'x'; PIECE]))
        });
        let (status, refused) = sent.await?;
        ensure!(
            status == 422 && refused["code"] == "row_too_large",
            "{refused}"
        );
        ensure!(refused["row"] == 2 && refused["line"] == 3, "{refused}");
        let upload = app.expect_failed(id, "row_too_large").await?;
        ensure!(
            upload["bytes"]["received"].as_u64() < Some(100 << 20),
            "{upload}"
        );
    }
    let grown = app.api.peak_rss_bytes()? - before;
    ensure!(grown < MAX_GROWTH_BYTES, "memory grew by {grown} bytes");
    app.close().await
}
