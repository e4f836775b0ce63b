//! Uploads whose rows are made while they are sent.

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::stream;
use serde_json::Value;

use crate::data::DataFile;
use crate::rig::{Carga, POLL};

/// A header, and a block of rows that is sent repeatedly.
pub(crate) struct Block {
    header: Bytes,
    rows: Bytes,
    row_count: u64,
}

impl Block {
    pub(crate) fn flights(file: &DataFile) -> Result<Self> {
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
    pub(crate) fn long_rows() -> Self {
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

/// A completed upload.
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Sends the header once, and then the rows repeatedly until they exceed `bytes`. The client writes
/// nothing to disk.
pub(crate) async fn send(carga: &Carga, block: Block, bytes: u64) -> Result<Sent> {
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
    let rows = times * row_count;
    carga.wait_until_completed(id, rows, POLL).await?;
    Ok(Sent {
        id: id.to_owned(),
        rows,
        bytes: upload["bytes"]["received"]
            .as_u64()
            .context("the upload has no size")?,
    })
}
