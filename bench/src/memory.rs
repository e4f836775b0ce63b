//! What an upload of 1 GiB and twenty uploads at once cost in memory.

use anyhow::{Context, Result};
use bytes::Bytes;
use carga_testkit::Usage;
use futures::future::try_join_all;
use futures::stream;
use serde_json::Value;

use crate::compare::listed;
use crate::data::DataFile;
use crate::results::{Memory, Results};
use crate::rig::{Carga, POLL, Rig, mib};

const GIBIBYTE: u64 = 1 << 30;
const AT_ONCE: u32 = 20;

pub(crate) async fn run(rig: &Rig, results: &mut Results) -> Result<()> {
    results.memory.clear();
    println!("\n| | API growth, MiB | peak MiB |");
    println!("|---|---|---|");
    let file = DataFile::flights_once()?;
    for what in ["one upload of 1 GiB", "twenty uploads at once"] {
        rig.clear().await?;
        let carga = rig.carga(1, &[]).await?;
        let Usage {
            peak_rss_bytes: before,
            ..
        } = carga.api.id().usage();
        let bytes = match what {
            "one upload of 1 GiB" => gibibyte(&carga, &file).await?,
            _ => {
                try_join_all((0..AT_ONCE).map(|_| carga.import(&file, AT_ONCE))).await?;
                u64::from(AT_ONCE) * file.bytes
            }
        };
        let Usage {
            peak_rss_bytes: after,
            ..
        } = carga.api.id().usage();
        let memory = Memory {
            what: what.to_owned(),
            bytes,
            api_growth_mib: mib(after - before),
            peak_mib: carga.peak_mib(),
        };
        println!(
            "| {what} | {:.0} | {} |",
            memory.api_growth_mib,
            listed(&memory.peak_mib, 0)
        );
        results.memory.push(memory);
        results.save()?;
    }
    rig.clean().await
}

/// The header once, then the same rows over and over, never on disk.
async fn gibibyte(carga: &Carga, file: &DataFile) -> Result<u64> {
    let flights = Bytes::from(std::fs::read(&file.path)?);
    let header = flights
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let rows = flights.slice(header..);
    let times = GIBIBYTE / rows.len() as u64 + 1;
    let pieces = (0..times).flat_map(move |_| {
        let rows = rows.clone();
        let cuts = (0..rows.len()).step_by(256 << 10);
        cuts.map(move |cut| rows.slice(cut..rows.len().min(cut + (256 << 10))))
    });
    let pieces = std::iter::once(flights.slice(..header)).chain(pieces);
    let body = reqwest::Body::wrap_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)));
    let answer = carga
        .client
        .post(format!("{}/uploads", carga.url))
        .header("content-type", "text/csv")
        .body(body)
        .send()
        .await?;
    let upload: Value = serde_json::from_slice(&answer.bytes().await?)?;
    let id = upload["id"]
        .as_str()
        .with_context(|| format!("refused: {upload}"))?;
    carga.completed(id, times * file.rows, POLL).await?;
    upload["bytes"]["received"]
        .as_u64()
        .context("the upload has no size")
}
