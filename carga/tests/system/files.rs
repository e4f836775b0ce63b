//! The files that tests send, and the bodies that carry them.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use csv::StringRecord;
use futures::{Stream, StreamExt, stream};
use reqwest::Body;

/// A file with `rows` rows of four columns. One column is quoted and contains quotes, a comma
/// and a line break.
pub(crate) fn csv(rows: usize) -> String {
    let mut file = String::from("id,name,note,empty\n");
    for row in 1..=rows {
        file.push_str(&format!(
            "{row:07},näme {row},\"a \"\"quoted\"\",\nnote\",\n"
        ));
    }
    file
}

pub(crate) const FLIGHTS_ROWS: i64 = 336_776;
/// The last batch is not full.
pub(crate) const FLIGHTS_BATCHES: i64 = 337;

/// The flights file with all its rows.
pub(crate) async fn flights() -> Result<Bytes> {
    let path = carga_testkit::fixtures::flights()?;
    let file = tokio::fs::read(path).await.context("reading the flights")?;
    Ok(file.into())
}

/// The columns and rows of a file as the `csv` crate reads them, to compare Carga's with.
pub(crate) fn read(file: &[u8]) -> Result<(Vec<String>, Vec<StringRecord>)> {
    let mut reader = csv::Reader::from_reader(file);
    let columns = reader.headers()?.iter().map(str::to_owned).collect();
    Ok((columns, reader.records().collect::<Result<_, _>>()?))
}

/// A body that is sent at about this rate, so that the test can act meanwhile.
pub(crate) fn paced(bytes: impl Into<Bytes>, bytes_per_second: usize) -> Body {
    Body::wrap_stream(paced_pieces(bytes.into(), bytes_per_second))
}

pub(crate) fn paced_pieces(
    bytes: Bytes,
    bytes_per_second: usize,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    const TICK: Duration = Duration::from_millis(20);
    let step = (bytes_per_second / 50).max(1);
    let ticks = tokio::time::interval(TICK);
    stream::unfold((bytes, ticks), move |(mut bytes, mut ticks)| async move {
        if bytes.is_empty() {
            return None;
        }
        ticks.tick().await;
        let piece = bytes.split_to(step.min(bytes.len()));
        Some((Ok(piece), (bytes, ticks)))
    })
}

/// A body that sends one stream after the other.
pub(crate) fn concatenated(
    first: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    second: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Body {
    Body::wrap_stream(first.chain(second))
}
