//! `carga rows`: what was stored, on standard output.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::bail;
use carga_common::settings::Settings;
use carga_common::store::{Store, StoredRow};
use carga_common::upload::{Status, Upload};
use futures::TryStreamExt;

use super::{find, store_to_read};
use crate::arguments::{Format, UploadRef};
use crate::output::is_closed_pipe;

pub(crate) async fn run(
    settings: &Settings,
    upload: UploadRef,
    format: Format,
    limit: Option<usize>,
) -> anyhow::Result<ExitCode> {
    let store = store_to_read(settings).await?;
    let upload = find(
        store.as_ref(),
        upload,
        &[Status::Completed, Status::Partial],
    )
    .await?;
    if !upload.status.keeps_rows() {
        let id = upload.id;
        match &upload.failure {
            Some(failure) => bail!("upload {id} failed and has no rows: {}", failure.message),
            None => bail!(
                "upload {id} is {}: its rows are shown when it has ended",
                upload.status
            ),
        }
    }
    let output = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match print(store.as_ref(), &upload, format, limit, output).await {
        // `| head` has seen enough.
        Err(error) if is_closed_pipe(&error) => {}
        printed => printed?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes rows one by one, however many there are.
pub(crate) async fn print(
    store: &dyn Store,
    upload: &Upload,
    format: Format,
    limit: Option<usize>,
    output: impl Write,
) -> anyhow::Result<()> {
    let mut writer = RowWriter::new(&upload.columns, format, output)?;
    let mut rows = store.rows(upload.id);
    let mut left = limit.unwrap_or(usize::MAX);
    while left > 0
        && let Some(row) = rows.try_next().await?
    {
        writer.write(&row)?;
        left -= 1;
    }
    writer.finish()
}

enum RowWriter<W: Write> {
    Csv(Box<csv::Writer<W>>),
    Ndjson {
        /// `"name":` of every column.
        names: Vec<String>,
        output: W,
    },
}

impl<W: Write> RowWriter<W> {
    fn new(columns: &[String], format: Format, output: W) -> anyhow::Result<Self> {
        match format {
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(output);
                writer.write_record(columns)?;
                Ok(Self::Csv(Box::new(writer)))
            }
            Format::Ndjson => {
                let name = |column| Ok(format!("{}:", serde_json::to_string(column)?));
                let names = columns.iter().map(name).collect::<anyhow::Result<_>>()?;
                Ok(Self::Ndjson { names, output })
            }
        }
    }

    fn write(&mut self, row: &StoredRow) -> anyhow::Result<()> {
        match self {
            Self::Csv(writer) => {
                let cells = row.fields.iter().map(|cell| cell.as_deref().unwrap_or(""));
                writer.write_record(cells)?;
            }
            // In the order of the columns, which a map would not keep.
            Self::Ndjson { names, output } => {
                for (index, (name, cell)) in names.iter().zip(&row.fields).enumerate() {
                    output.write_all(if index == 0 { b"{" } else { b"," })?;
                    output.write_all(name.as_bytes())?;
                    serde_json::to_writer(&mut *output, cell)?;
                }
                output.write_all(b"}\n")?;
            }
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Csv(mut writer) => writer.flush()?,
            Self::Ndjson { mut output, .. } => output.flush()?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format) -> String {
        let columns = ["b", "a\"", "c"].map(String::from);
        let row = StoredRow {
            row_number: 1,
            fields: vec![Some("x,\n\"y\"".into()), None, Some("007".into())],
        };
        let mut output = Vec::new();
        let mut writer = RowWriter::new(&columns, format, &mut output).unwrap();
        writer.write(&row).unwrap();
        writer.finish().unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn rows_are_printed_in_the_order_of_their_columns_with_every_cell_as_it_is() {
        assert_eq!(
            written(Format::Csv),
            "b,\"a\"\"\",c\n\"x,\n\"\"y\"\"\",,007\n"
        );
        assert_eq!(
            written(Format::Ndjson),
            "{\"b\":\"x,\\n\\\"y\\\"\",\"a\\\"\":null,\"c\":\"007\"}\n"
        );
    }
}
