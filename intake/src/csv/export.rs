//! Everything that leaves Carga as CSV or NDJSON: stored rows and rejected rows.
//!
//! An export is a stream of pages of bytes. A page is made when it is asked for, so a client that
//! reads slowly slows down the queries, one that disconnects ends them, and no more than a page
//! is in memory. csv-async writes the CSV, each page into memory: its writer flushes when it is
//! dropped, and a flush into memory never waits.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use carga_common::error::PortError;
use carga_common::store::StoredRow;
use csv_async::{AsyncWriter, AsyncWriterBuilder};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};

/// A page is closed when it has this many bytes.
const PAGE_BYTES: usize = 64 << 10;

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A header, then a line per record. An empty cell and NULL look alike.
    Csv,
    /// A JSON object per line.
    Ndjson,
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store did not yield the next records.
    #[error("the store did not yield the records")]
    Store(#[from] PortError),
    /// A record could not be written.
    #[error("a record could not be written")]
    Write(#[from] io::Error),
}

/// How records of one kind are written.
pub trait RecordForm<R> {
    /// The header of the CSV form.
    fn header(&self) -> impl Iterator<Item = Cow<'_, str>> + Send;

    /// The cells of a record in the CSV form.
    fn cells<'r>(&'r self, record: &'r R) -> impl Iterator<Item = Cow<'r, str>> + Send;

    /// Appends a record as a JSON object, without a line end.
    fn append_json(&self, record: &R, page: &mut Vec<u8>) -> io::Result<()>;
}

/// The records as pages of bytes. An error ends the pages.
pub fn export<'a, R, F>(
    records: BoxStream<'a, Result<R, PortError>>,
    form: F,
    format: Format,
) -> impl Stream<Item = Result<Bytes, ExportError>> + Send + 'a
where
    R: Send + Sync + 'a,
    F: RecordForm<R> + Send + Sync + 'a,
{
    let state = Some((records, form, Position::Header));
    let pages = stream::try_unfold(state, move |state| async move {
        let Some((mut records, form, position)) = state else {
            return Ok::<_, ExportError>(None);
        };
        let (page, is_last) = match format {
            Format::Csv => csv_page(&mut records, &form, position).await?,
            Format::Ndjson => ndjson_page(&mut records, &form).await?,
        };
        let next = (!is_last).then_some((records, form, Position::Records));
        Ok(Some((Bytes::from(page), next)))
    });
    pages.try_filter(|page| std::future::ready(!page.is_empty()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Header,
    Records,
}

/// The next page, and whether it is the last one.
async fn csv_page<R: Sync>(
    records: &mut BoxStream<'_, Result<R, PortError>>,
    form: &(impl RecordForm<R> + Sync),
    position: Position,
) -> Result<(Vec<u8>, bool), ExportError> {
    let mut writer = AsyncWriterBuilder::new()
        .buffer_capacity(PAGE_BYTES)
        .create_writer(Vec::new());
    if position == Position::Header {
        write_record(&mut writer, form.header()).await?;
    }
    let mut bytes = 0;
    while bytes < PAGE_BYTES {
        let Some(record) = records.next().await.transpose()? else {
            break;
        };
        bytes += write_record(&mut writer, form.cells(&record)).await?;
    }
    let is_last = bytes < PAGE_BYTES;
    let page = writer.into_inner().await;
    let page = page.map_err(|error| io::Error::other(error.to_string()))?;
    Ok((page, is_last))
}

/// The next page, and whether it is the last one.
async fn ndjson_page<R>(
    records: &mut BoxStream<'_, Result<R, PortError>>,
    form: &impl RecordForm<R>,
) -> Result<(Vec<u8>, bool), ExportError> {
    let mut page = Vec::with_capacity(PAGE_BYTES);
    while page.len() < PAGE_BYTES {
        let Some(record) = records.next().await.transpose()? else {
            return Ok((page, true));
        };
        form.append_json(&record, &mut page)?;
        page.push(b'\n');
    }
    Ok((page, false))
}

/// Writes one record, and returns about how many bytes it takes.
async fn write_record<'r>(
    writer: &mut AsyncWriter<Vec<u8>>,
    cells: impl Iterator<Item = Cow<'r, str>>,
) -> io::Result<usize> {
    let mut bytes = 0;
    for cell in cells {
        bytes += cell.len() + 1;
        writer.write_field(cell.as_bytes()).await?;
    }
    writer.write_record(None::<&[u8]>).await?;
    Ok(bytes)
}

/// Stored rows: their cells under the names of the stored columns.
#[derive(Debug)]
pub struct RowForm {
    columns: Vec<String>,
    /// `"name":` of every column, for NDJSON.
    json_names: Vec<String>,
}

impl RowForm {
    /// The form of rows with these columns.
    pub fn new(columns: Vec<String>) -> Self {
        let json_name = |name: &String| format!("{}:", serde_json::Value::from(name.as_str()));
        let json_names = columns.iter().map(json_name).collect();
        Self {
            columns,
            json_names,
        }
    }
}

impl RecordForm<StoredRow> for RowForm {
    fn header(&self) -> impl Iterator<Item = Cow<'_, str>> + Send {
        self.columns.iter().map(Cow::from)
    }

    fn cells<'r>(&'r self, row: &'r StoredRow) -> impl Iterator<Item = Cow<'r, str>> + Send {
        let cells = row.fields.iter();
        cells.map(|cell| Cow::from(cell.as_deref().unwrap_or("")))
    }

    /// In the order of the columns, which a map would not keep.
    fn append_json(&self, row: &StoredRow, page: &mut Vec<u8>) -> io::Result<()> {
        for (index, (name, cell)) in self.json_names.iter().zip(&row.fields).enumerate() {
            page.push(if index == 0 { b'{' } else { b',' });
            page.extend_from_slice(name.as_bytes());
            serde_json::to_writer(&mut *page, cell)?;
        }
        page.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn exported(rows: Vec<StoredRow>, format: Format) -> Vec<Bytes> {
        let columns = ["b", "a\"", "c"].map(String::from).to_vec();
        let rows = stream::iter(rows.into_iter().map(Ok)).boxed();
        let pages = export(rows, RowForm::new(columns), format);
        // Nothing here waits, so the future is ready at once.
        let pages = pages.try_collect().now_or_never();
        pages.unwrap().unwrap()
    }

    fn row(cell: &str) -> StoredRow {
        StoredRow {
            row_number: 1,
            fields: vec![Some(cell.to_owned()), None, Some("007".into())],
        }
    }

    #[test]
    fn rows_are_written_in_the_order_of_their_columns_with_every_cell_as_it_is() {
        let csv = exported(vec![row("x,\n\"y\"")], Format::Csv).concat();
        assert_eq!(csv, b"b,\"a\"\"\",c\n\"x,\n\"\"y\"\"\",,007\n");
        let ndjson = exported(vec![row("x,\n\"y\"")], Format::Ndjson).concat();
        assert_eq!(
            ndjson,
            b"{\"b\":\"x,\\n\\\"y\\\"\",\"a\\\"\":null,\"c\":\"007\"}\n"
        );
    }

    #[test]
    fn pages_are_bounded_in_bytes_and_together_hold_every_row_once() {
        let cell = "x".repeat(1000);
        for format in [Format::Csv, Format::Ndjson] {
            let pages = exported(vec![row(&cell); 500], format);
            assert!(pages.len() > 5, "{} pages", pages.len());
            assert!(pages.iter().all(|page| page.len() < PAGE_BYTES + 2000));
            let lines = pages.concat().split(|byte| *byte == b'\n').count() - 1;
            assert_eq!(lines, 500 + usize::from(format == Format::Csv));
        }
    }

    #[test]
    fn without_rows_a_csv_has_its_header_and_an_ndjson_nothing() {
        assert_eq!(exported(vec![], Format::Csv).concat(), b"b,\"a\"\"\",c\n");
        assert!(exported(vec![], Format::Ndjson).is_empty());
    }

    #[test]
    fn an_error_of_the_store_ends_the_export_with_an_error() {
        let away = PortError::unavailable("store.rows", "away");
        let rows = stream::iter([Ok(row("x")), Err(away)]).boxed();
        let form = RowForm::new(["a", "b", "c"].map(String::from).to_vec());
        let pages = export(rows, form, Format::Csv).collect::<Vec<_>>();
        let pages = pages.now_or_never().unwrap();
        assert!(matches!(pages.last(), Some(Err(ExportError::Store(_)))));
    }
}
