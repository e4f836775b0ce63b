//! A validation publishes nothing, leaves no file, and takes the slot of an upload while it lasts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use carga_testkit::eventually;
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::state::State;
use super::{figures, read, validate, validating};
use crate::answers::problem;
use crate::app::{App, Sending, TIMEOUT};
use crate::datasets::merging::{BASE, PRODUCTS, declare_products};
use crate::datasets::options;
use crate::files::{csv, paced};
use crate::harness::{Harness, Mode};

in_both_modes! {
    a_validation_publishes_nothing_and_lists_no_upload,
    the_temporary_file_of_a_validation_has_no_name_and_ends_with_it,
    a_client_that_goes_away_leaves_no_file_and_no_slot,
    a_killed_process_leaves_no_file,
    a_validation_takes_the_slot_of_an_upload,
}

/// Carga, with its own directory for temporary files.
struct Started {
    app: App,
    temporary: TempDir,
}

/// Starts Carga for one upload at a time.
async fn start(mode: Mode) -> Result<Started> {
    let temporary = TempDir::new()?;
    let path = temporary.path().display().to_string();
    let harness = mode.harness().await?.with("TMPDIR", &path);
    let app = App::start(harness.with("CARGA_MAX_UPLOADS", "1"), 0).await?;
    declare_products(&app).await?;
    Ok(Started { app, temporary })
}

impl Started {
    /// Starts to send a file for 20 s, and waits until a temporary file has some of its rows.
    async fn start_validating(&self) -> Result<Sending> {
        let rows: String = (0..40_000).map(|row| format!("s{row},1.50,x\n")).collect();
        let file = format!("sku,price,note\n{rows}");
        let rate = file.len() / 20;
        let request = validating(&self.app, &options(PRODUCTS, &[]), paced(file, rate))?;
        let sent = tokio::spawn(request.send());
        eventually(TIMEOUT, "rows in a temporary file", async || {
            self.open_files().is_ok_and(|files| files == [true])
        })
        .await?;
        Ok(sent)
    }

    /// The directories that may have temporary files.
    fn directories(&self) -> Vec<&Path> {
        let mut directories = vec![self.temporary.path()];
        if let Harness::Embedded(directory) = &self.app.harness {
            directories.push(directory.path());
        }
        directories
    }

    /// Whether each temporary file that the process has open has content. Such files are not in
    /// their directory any more. Files with the prefix of SQLite are left out.
    fn open_files(&self) -> Result<Vec<bool>> {
        let mut found = Vec::new();
        let directory = format!("/proc/{}/fd", self.app.api.pid());
        for entry in fs::read_dir(directory)? {
            let descriptor = entry?.path();
            // A file may be closed meanwhile.
            let Ok(target) = fs::read_link(&descriptor) else {
                continue;
            };
            let is_here = self
                .directories()
                .iter()
                .any(|path| target.starts_with(path));
            let target = target.display().to_string();
            if is_here && target.ends_with(" (deleted)") && !target.contains("etilqs_") {
                found.push(fs::metadata(&descriptor).is_ok_and(|file| file.len() > 0));
            }
        }
        Ok(found)
    }

    /// The files with a name, without the databases.
    fn named_files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut directories: Vec<PathBuf> = Vec::new();
        directories.extend(self.directories().into_iter().map(Path::to_owned));
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                match path.is_dir() {
                    true => directories.push(path),
                    false => files.push(path),
                }
            }
        }
        files.retain(|file| !file.display().to_string().contains(".db"));
        files.sort_unstable();
        Ok(files)
    }

    /// Polls until no temporary file is open.
    async fn wait_until_closed(&self) -> Result<()> {
        eventually(TIMEOUT, "the temporary file to be closed", async || {
            self.open_files().is_ok_and(|files| files.is_empty())
        })
        .await
    }

    async fn close(self) -> Result<()> {
        self.app.close().await
    }
}

async fn a_validation_publishes_nothing_and_lists_no_upload(mode: Mode) -> Result<()> {
    // Without a worker, a message would stay in the queue.
    let app = App::start(mode.harness().await?, 0).await?;
    declare_products(&app).await?;
    let state = State::read(&app).await?;
    let validation = validate(&app, PRODUCTS, &[], BASE).await?;
    ensure!(
        validation["rows"] == figures([3, 3, 0, 0, 0]),
        "{validation}"
    );
    let validation = read(validating(&app, &[], csv(2500))?.send().await?).await?;
    ensure!(
        validation["rows"] == figures([2500, 2500, 0, 0, 0]),
        "{validation}"
    );
    state.expect_unchanged(&app).await?;
    let (_, list) = app.get("/uploads").await?;
    ensure!(list["uploads"] == json!([]), "{list}");
    app.close().await
}

async fn the_temporary_file_of_a_validation_has_no_name_and_ends_with_it(mode: Mode) -> Result<()> {
    let started = start(mode).await?;
    let named = started.named_files()?;
    let sent = started.start_validating().await?;
    let found = started.named_files()?;
    ensure!(found == named, "{found:?} instead of {named:?}");
    read(sent.await??).await?;
    started.wait_until_closed().await?;
    let found = started.named_files()?;
    ensure!(found == named, "{found:?} instead of {named:?}");
    started.close().await
}

async fn a_client_that_goes_away_leaves_no_file_and_no_slot(mode: Mode) -> Result<()> {
    let started = start(mode).await?;
    let state = State::read(&started.app).await?;
    let sent = started.start_validating().await?;
    sent.abort();
    started.wait_until_closed().await?;
    state.expect_unchanged(&started.app).await?;
    // There is only one slot.
    validate(&started.app, PRODUCTS, &[], BASE).await?;
    state.expect_unchanged(&started.app).await?;
    started.close().await
}

async fn a_killed_process_leaves_no_file(mode: Mode) -> Result<()> {
    let mut started = start(mode).await?;
    let named = started.named_files()?;
    let sent = started.start_validating().await?;
    started.app.api.kill9()?;
    ensure!(sent.await?.is_err(), "the killed process has answered");
    let found = started.named_files()?;
    ensure!(found == named, "{found:?} instead of {named:?}");
    started.app.restart().await?;
    validate(&started.app, PRODUCTS, &[], BASE).await?;
    let (_, list) = started.app.get("/uploads").await?;
    ensure!(list["uploads"] == json!([]), "{list}");
    started.close().await
}

async fn a_validation_takes_the_slot_of_an_upload(mode: Mode) -> Result<()> {
    let started = start(mode).await?;
    let app = &started.app;
    let sent = started.start_validating().await?;
    // An upload or a validation waits for a slot for three seconds.
    let (upload, validation) = tokio::try_join!(app.put(Uuid::now_v7(), csv(10)), async {
        anyhow::Ok(
            validating(app, &options(PRODUCTS, &[]), BASE)?
                .send()
                .await?,
        )
    },)?;
    for answer in [upload, validation] {
        ensure!(answer.headers().contains_key("retry-after"));
        let refused = problem(answer, 429, "too_many_uploads").await?;
        ensure!(refused["limit"] == 1, "{refused}");
    }
    ensure!(
        !sent.is_finished(),
        "the file was sent too fast, so the test proved nothing"
    );
    read(sent.await??).await?;
    let answer = app.put(Uuid::now_v7(), csv(10)).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    started.close().await
}
