//! `carga cancel` and `carga undo`. Both work beside a running `carga serve`, because the
//! store decides whether an upload may be reversed.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use carga_common::lifecycle::{Reversal, remove_rows, reverse};
use carga_common::settings::Settings;

use super::{find, store_to_read};
use crate::arguments::UploadRef;
use crate::output::print;

pub(crate) async fn run(
    settings: &Settings,
    upload: UploadRef,
    reversal: Reversal,
) -> anyhow::Result<ExitCode> {
    let store = store_to_read(settings).await?;
    let id = find(store.as_ref(), upload, &[]).await?.id;
    let upload = reverse(store.as_ref(), id, reversal).await?;
    let upload = upload.with_context(|| format!("upload {id} no longer exists"))?;
    ensure!(
        upload.status == reversal.outcome(),
        "upload {id} is {}; only uploads that are {} can be {}",
        upload.status,
        reversal.applies_to(),
        reversal.outcome()
    );
    remove_rows(store.as_ref(), id).await?;
    let now = store.upload(id).await?;
    let now = now.with_context(|| format!("upload {id} no longer exists"))?;
    store.close().await;
    let rows = match now.cleanup_pending {
        // A worker has started to remove them and is not done.
        true => "its rows are being removed",
        false => "all of its rows are removed",
    };
    print(format!("upload {id} is {}: {rows}\n", upload.status).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
