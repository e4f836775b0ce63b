//! The memory of long uploads, long rows and twenty concurrent uploads.

use anyhow::{Context, Result};
use bytes::Bytes;
use carga_testkit::Usage;
use futures::future::try_join_all;
use futures::stream;
use serde_json::Value;

use crate::compare::list;
use crate::data::DataFile;
use crate::results::{Memory, Results};
use crate::rig::{Carga, POLL, Rig, mib};

const MIB: u64 = 1 << 20;
const CONCURRENT: u32 = 20;
const LONG_ROWS: &str = "one upload of 256 MiB, 6 kB per row";

pub(crate) async fn run(rig: &Rig, results: &mut Results) -> Result<()> {
    results.memory.clear();
    println!("\n| | API growth, MiB | peak MiB |");
    println!("|---|---|---|");
    let file = DataFile::flights_once()?;
    for what in ["one upload of 1 GiB", LONG_ROWS, "twenty uploads at once"] {
        rig.clear().await?;
        let carga = rig.carga(1, &[]).await?;
        let Usage {
            peak_rss_bytes: before,
            ..
        } = carga.api.id().usage();
        let bytes = match what {
            "one upload of 1 GiB" => send(&carga, Block::flights(&file)?, 1024 * MIB).await?,
            LONG_ROWS => send(&carga, Block::long_rows(), 256 * MIB).await?,
            _ => {
                try_join_all((0..CONCURRENT).map(|_| carga.import(&file, CONCURRENT))).await?;
                u64::from(CONCURRENT) * file.bytes
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
            list(&memory.peak_mib, 0)
        );
        results.memory.push(memory);
        results.save()?;
    }
    rig.clean().await
}

/// A header, and a block of rows that is sent repeatedly.
struct Block {
    header: Bytes,
    rows: Bytes,
    row_count: u64,
}

impl Block {
    fn flights(file: &DataFile) -> Result<Self> {
        let flights = Bytes::from(std::fs::read(&file.path)?);
        let end = flights.iter().position(|byte| *byte == b'\n');
        let header = flights.slice(..end.map_or(0, |at| at + 1));
        Ok(Self {
            rows: flights.slice(header.len()..),
            header,
            row_count: file.rows,
        })
    }

    /// A thousand of these rows exceed the byte limit of a batch.
    fn long_rows() -> Self {
        const ROWS: usize = 1_000;
        const COLUMNS: usize = 12;
        let line = |cell: &dyn Fn(usize) -> String| {
            let cells: Vec<String> = (0..COLUMNS).map(cell).collect();
            cells.join(",") + "\n"
        };
        let letters = |from: usize| {
            let letters = ('a'..='z').cycle().skip(from % 26);
            letters.take(500).collect::<String>()
        };
        let rows = (0..ROWS).map(|row| line(&|column| letters(31 * row + 7 * column)));
        Self {
            header: line(&|column| format!("column_{column}")).into(),
            rows: rows.collect::<String>().into(),
            row_count: ROWS as u64,
        }
    }
}

/// Sends the header once, and then the rows repeatedly until they exceed `bytes`. Nothing is
/// written to disk. Returns the size of the upload.
async fn send(carga: &Carga, block: Block, bytes: u64) -> Result<u64> {
    let Block {
        header,
        rows,
        row_count,
    } = block;
    let times = bytes / rows.len() as u64 + 1;
    let pieces = (0..times).flat_map(move |_| {
        let rows = rows.clone();
        let cuts = (0..rows.len()).step_by(256 << 10);
        cuts.map(move |cut| rows.slice(cut..rows.len().min(cut + (256 << 10))))
    });
    let pieces = std::iter::once(header).chain(pieces);
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
        .with_context(|| format!("the upload was refused: {upload}"))?;
    carga
        .wait_until_completed(id, times * row_count, POLL)
        .await?;
    upload["bytes"]["received"]
        .as_u64()
        .context("the upload has no size")
}
