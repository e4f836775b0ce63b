//! `carga rejected`: what was not stored and why, on standard output.

use std::io::{self, Write};
use std::process::ExitCode;

use carga_api::report::{PAGE_ROWS, RejectReport, ReportForm};
use carga_common::settings::Settings;
use carga_common::store::Store;
use carga_common::upload::{Status, UploadId};
use futures::{StreamExt, TryStreamExt};

use super::{find, store_to_read};
use crate::arguments::{Format, UploadRef};
use crate::output::is_closed_pipe;

pub(crate) async fn run(
    settings: &Settings,
    upload: UploadRef,
    format: Format,
    spreadsheet_safe: bool,
) -> anyhow::Result<ExitCode> {
    let store = store_to_read(settings).await?;
    let upload = find(store.as_ref(), upload, &[]).await?;
    anyhow::ensure!(
        upload.status != Status::Receiving,
        "upload {} is still being received, and more of its rows may be rejected",
        upload.id
    );
    let form = match (format, spreadsheet_safe) {
        (Format::Ndjson, _) => ReportForm::Ndjson,
        (Format::Csv, false) => ReportForm::Csv,
        (Format::Csv, true) => ReportForm::SpreadsheetCsv,
    };
    let report = RejectReport::new(form, upload.columns);
    match print(store.as_ref(), upload.id, &report).await {
        // `| head` has seen enough.
        Err(error) if is_closed_pipe(&error) => {}
        printed => printed?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn print(store: &dyn Store, id: UploadId, report: &RejectReport) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(&report.head()?)?;
    let mut pages = store.rejected(id).try_chunks(PAGE_ROWS).boxed();
    while let Some(rows) = pages.try_next().await? {
        output.write_all(&report.page(&rows)?)?;
    }
    Ok(output.flush()?)
}
