//! The memory of downloads of ten million rows, from an API on servers and from `carga serve`.

use std::time::Instant;

use anyhow::{Result, ensure};
use futures::TryStreamExt;

use crate::compare::list;
use crate::data::DataFile;
use crate::results::{Export, Results, rounded};
use crate::rig::{Carga, Rig, new_data_directory};
use crate::upload::{Block, send};

const COPIES: u64 = 30;
const FORMATS: [&str; 2] = ["csv", "ndjson"];

pub(crate) async fn run(rig: &Rig, results: &mut Results) -> Result<()> {
    results.exports.clear();
    println!("\n| | rows | MB | MB per second | peak MiB |");
    println!("|---|---|---|---|---|");
    let file = DataFile::flights_once()?;
    rig.clear().await?;
    let carga = rig.carga(1, &[]).await?;
    let upload = send(&carga, Block::flights(&file)?, COPIES * file.bytes).await?;
    // New processes, because the upload's peak memory is not that of the download.
    drop(carga);
    let carga = rig.carga(0, &[]).await?;
    measure(&carga, &upload.id, upload.rows, results).await?;
    rig.clean().await?;

    let data = new_data_directory()?;
    let carga = Rig::embedded(&data).await?;
    let upload = send(&carga, Block::flights(&file)?, COPIES * file.bytes).await?;
    drop(carga);
    let carga = Rig::embedded(&data).await?;
    measure(&carga, &upload.id, upload.rows, results).await?;
    rig.clean().await
}

async fn measure(carga: &Carga, id: &str, rows: u64, results: &mut Results) -> Result<()> {
    for format in FORMATS {
        carga.reset_peaks()?;
        let start = Instant::now();
        let (bytes, lines) = download(carga, id, format).await?;
        let seconds = start.elapsed().as_secs_f64();
        let header = u64::from(format == "csv");
        ensure!(
            lines == rows + header,
            "expected {rows} rows as {format}, found {}",
            lines - header
        );
        let export = Export {
            format: format.to_owned(),
            rows,
            bytes,
            megabytes_per_second: rounded(bytes as f64 / 1e6 / seconds),
            peak_mib: carga.peak_mib(),
        };
        println!(
            "| {format} | {rows} | {:.0} | {:.1} | {} |",
            bytes as f64 / 1e6,
            export.megabytes_per_second,
            list(&export.peak_mib, 0)
        );
        results.exports.push(export);
        results.save()?;
    }
    Ok(())
}

/// Reads all rows of an upload and returns how many bytes and lines they are.
async fn download(carga: &Carga, id: &str, format: &str) -> Result<(u64, u64)> {
    let url = format!("{}/uploads/{id}/rows?format={format}", carga.url);
    let answer = carga.client.get(url).send().await?.error_for_status()?;
    let mut chunks = answer.bytes_stream();
    let (mut bytes, mut lines) = (0, 0);
    while let Some(chunk) = chunks.try_next().await? {
        bytes += chunk.len() as u64;
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    Ok((bytes, lines))
}
