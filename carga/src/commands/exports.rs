//! `carga rows` and `carga rejected`: what was stored and what was not, on standard output.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use bytes::Bytes;
use carga_common::settings::Settings;
use carga_common::store::{Store, rejected_rows, stored_rows};
use carga_common::upload::{Status, Upload};
use carga_intake::csv::export::{ExportError, Format, RowForm, export};
use carga_intake::csv::rejected_rows::{Formulas, RejectForm};
use carga_intake::refusal::Refusal;
use futures::{Stream, StreamExt, TryStreamExt};

use super::{find, store_to_read};
use crate::arguments::UploadRef;
use crate::output::is_closed_pipe;

/// Prints the rows of an upload that has ended well, or the first `limit` of them.
pub(crate) async fn rows(
    settings: &Settings,
    upload: UploadRef,
    format: Format,
    limit: Option<usize>,
) -> anyhow::Result<ExitCode> {
    let store = store_to_read(settings).await?;
    let keeping_rows = [Status::Completed, Status::Partial];
    let upload = find(store.as_ref(), upload, &keeping_rows).await?;
    if !upload.status.keeps_rows() {
        let id = upload.public_id;
        match &upload.failure {
            Some(failure) => bail!("upload {id} failed and has no rows: {}", failure.message),
            None if upload.status.is_terminal() => {
                bail!("upload {id} is {} and has no rows", upload.status)
            }
            None => bail!(
                "upload {id} is {}; its rows can be printed when it has ended",
                upload.status
            ),
        }
    }
    if let Some(table) = upload.user_table() {
        let refusal = Refusal::rows_in_user_table(&upload, table);
        bail!(refusal.failure.message);
    }
    if let Some(expired_at) = upload.expired_at {
        bail!(
            "the rows of upload {} expired at {expired_at} (CARGA_RETENTION_DAYS); import the file again",
            upload.public_id
        );
    }
    write_rows(store, &upload, format, limit, io::stdout().lock()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the rejected rows of an upload.
pub(crate) async fn rejected(
    settings: &Settings,
    upload: UploadRef,
    format: Format,
    formulas: Formulas,
) -> anyhow::Result<ExitCode> {
    let store = store_to_read(settings).await?;
    let upload = find(store.as_ref(), upload, &[]).await?;
    // Workers may still reject rows that violate a constraint of the dataset's table.
    let doing = match upload.status {
        Status::Receiving => Some("received"),
        Status::Processing if upload.dataset.is_some() => Some("stored"),
        _ => None,
    };
    if let Some(doing) = doing {
        eprintln!(
            "upload {} is still being {doing}, and more of its rows may be rejected",
            upload.public_id
        );
    }
    let rows = rejected_rows(store, upload.id);
    let form = RejectForm::new(upload.columns, upload.dataset.is_some(), formulas);
    write(export(rows, form, format), io::stdout().lock()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the rows of an upload, or the first `limit` of them.
pub(crate) async fn write_rows(
    store: Arc<dyn Store>,
    upload: &Upload,
    format: Format,
    limit: Option<usize>,
    output: impl Write,
) -> anyhow::Result<()> {
    let rows = stored_rows(store, upload.id);
    let rows = rows.take(limit.unwrap_or(usize::MAX)).boxed();
    let form = RowForm::new(upload.stored_columns());
    write(export(rows, form, format), output).await
}

/// Writes the pages until they end or the reader of a pipe closes it, as `head` does.
async fn write(
    pages: impl Stream<Item = Result<Bytes, ExportError>>,
    mut output: impl Write,
) -> anyhow::Result<()> {
    let mut pages = std::pin::pin!(pages);
    while let Some(page) = pages.try_next().await? {
        match output.write_all(&page).and_then(|()| output.flush()) {
            Err(error) if is_closed_pipe(&error) => return Ok(()),
            written => written?,
        }
    }
    Ok(())
}
