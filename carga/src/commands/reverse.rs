//! `carga cancel` and `carga undo`. SQLite has one writer at a time, so they ask the `carga serve`
//! that uses the data directory. If none runs, they lock the directory and change the store
//! themselves.

use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use carga_common::lifecycle::{Reversal, remove_rows, reverse};
use carga_common::local_server::Request;
use carga_common::settings::Settings;
use carga_common::store::Store;
use carga_common::upload::{UndoneRows, Upload, UploadId};
use carga_intake::refusal::Refusal;

use super::{find, server, store_to_read};
use crate::arguments::UploadRef;
use crate::data_dir::Entry;
use crate::instance;
use crate::output::{count_rows, print};

pub(crate) async fn run(
    settings: &Settings,
    upload: UploadRef,
    reversal: Reversal,
) -> anyhow::Result<ExitCode> {
    let store = store_to_read(settings).await?;
    let found = find(store.as_ref(), upload, &[]).await?;
    let id = found.public_id;
    let entry = instance::enter(&settings.ports, "carga cancel or undo").await?;
    if let Some(Entry::Server(running)) = entry {
        let server = server::trusted(running, settings)?;
        let action = match reversal {
            Reversal::Cancel => "cancel",
            Reversal::Undo => "undo",
        };
        let path = format!("/uploads/{id}/{action}");
        let request = Request {
            method: "POST",
            path: &path,
            key: settings.access.admin_key.as_ref(),
            json: None,
        };
        server::ask(&server, request).await?;
    } else {
        // `entry` holds the lock until the rows are removed.
        change(store.as_ref(), &found, reversal).await?;
    }
    let reversed = store.upload(found.id).await?;
    let reversed = reversed.with_context(|| no_longer_exists(id))?;
    store.close().await;
    let rows = match (&reversed.undone, reversed.cleanup_pending) {
        (Some(undone), _) => describe(undone),
        // A worker has started to remove them and is not done.
        (None, true) => "its rows are being removed".to_owned(),
        (None, false) => "all of its rows are removed".to_owned(),
    };
    print(format!("upload {id} is {}: {rows}\n", reversed.status).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Reverses the upload and removes its rows.
async fn change(store: &dyn Store, found: &Upload, reversal: Reversal) -> anyhow::Result<()> {
    let id = found.public_id;
    let upload = reverse(store, found.id, reversal).await?;
    let upload = upload.with_context(|| no_longer_exists(id))?;
    if reversal == Reversal::Undo && upload.status.keeps_rows() {
        bail!(Refusal::not_reversible(&upload).failure.message);
    }
    ensure!(
        upload.status == reversal.outcome(),
        "upload {id} is {}; only uploads that are {} can be {}",
        upload.status,
        reversal.applies_to(),
        reversal.outcome()
    );
    remove_rows(store, upload.id).await?;
    Ok(())
}

fn no_longer_exists(id: UploadId) -> String {
    format!("upload {id} no longer exists")
}

/// The numbers of rows that the undo of a merged upload took back and left.
fn describe(undone: &UndoneRows) -> String {
    let UndoneRows {
        reversed,
        kept,
        errored,
    } = *undone;
    let mut text = format!("{} taken back", count_rows(reversed));
    for (rows, reason) in [
        (kept, "changed or deleted since"),
        (errored, "left in the table because of a constraint"),
    ] {
        if rows > 0 {
            text.push_str(&format!("; {} {reason}", count_rows(rows)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_that_an_undo_did_not_take_back_are_named_with_the_reason() {
        let mut undone = UndoneRows {
            reversed: 2500,
            ..UndoneRows::default()
        };
        assert_eq!(describe(&undone), "2,500 rows taken back");
        undone.kept = 1;
        undone.errored = 2;
        assert_eq!(
            describe(&undone),
            "2,500 rows taken back; 1 row changed or deleted since; 2 rows left in the table because of a constraint"
        );
    }
}
