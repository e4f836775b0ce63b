//! `carga cancel` and `carga undo`. SQLite has one writer at a time, so they ask the `carga serve`
//! that uses the data directory. If none runs, they lock the directory and change the store
//! themselves.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use carga_common::lifecycle::{Reversal, remove_rows, reverse};
use carga_common::settings::Settings;
use carga_common::store::Store;
use carga_common::upload::{Upload, UploadId};

use super::{find, server, store_to_read};
use crate::arguments::UploadRef;
use crate::data_dir::DataDir;
use crate::instance;
use crate::output::print;

pub(crate) async fn run(
    settings: &Settings,
    upload: UploadRef,
    reversal: Reversal,
) -> anyhow::Result<ExitCode> {
    let store = store_to_read(settings).await?;
    let id = find(store.as_ref(), upload, &[]).await?.id;
    let directory = instance::directory_of_store(&settings.ports);
    if let Some(server) = directory.and_then(DataDir::server) {
        let action = match reversal {
            Reversal::Cancel => "cancel",
            Reversal::Undo => "undo",
        };
        let path = format!("/uploads/{id}/{action}");
        server::ask(server, "POST", &path, None).await?;
    } else {
        // Held until the rows are removed.
        let _locked = directory
            .map(|path| DataDir::lock(path, "carga cancel or undo"))
            .transpose()?;
        change(store.as_ref(), id, reversal).await?;
    }
    let reversed = existing(store.as_ref(), id).await?;
    store.close().await;
    let rows = match reversed.cleanup_pending {
        // A worker has started to remove them and is not done.
        true => "its rows are being removed",
        false => "all of its rows are removed",
    };
    print(format!("upload {id} is {}: {rows}\n", reversed.status).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Reverses the upload and removes its rows.
async fn change(store: &dyn Store, id: UploadId, reversal: Reversal) -> anyhow::Result<()> {
    let upload = reverse(store, id, reversal).await?;
    let upload = upload.with_context(|| format!("upload {id} no longer exists"))?;
    ensure!(
        upload.status == reversal.outcome(),
        "upload {id} is {}; only uploads that are {} can be {}",
        upload.status,
        reversal.applies_to(),
        reversal.outcome()
    );
    remove_rows(store, id).await?;
    Ok(())
}

async fn existing(store: &dyn Store, id: UploadId) -> anyhow::Result<Upload> {
    let found = store.upload(id).await?;
    found.with_context(|| format!("upload {id} no longer exists"))
}
