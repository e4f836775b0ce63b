//! `carga dead-letters`. A retry is one short write, so the command makes it itself, even while a
//! `carga serve` uses the data directory.

use std::process::ExitCode;

use anyhow::{Context, bail};
use carga_common::settings::Settings;
use carga_common::store::{BatchRows, DeadLetter, Retried, RetryScope, Store};
use carga_common::upload::{Status, UploadId, UploadKey};
use carga_intake::refusal::Refusal;

use super::{find, store_to_change, store_to_read};
use crate::arguments::{DeadLetterCommand, RetryArguments};
use crate::output::{one_line, print, printable};
use crate::table::table;

/// How many dead letters are read at once.
const PAGE: u32 = 100;

/// The widest reason in the list. `show` prints all of it.
const REASON_CHARS: usize = 60;

pub(crate) async fn run(
    settings: &Settings,
    command: DeadLetterCommand,
) -> anyhow::Result<ExitCode> {
    match command {
        DeadLetterCommand::List => list(settings).await?,
        DeadLetterCommand::Show { number } => show(settings, number).await?,
        DeadLetterCommand::Retry(which) => retry(settings, which).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(settings: &Settings) -> anyhow::Result<()> {
    let store = store_to_read(settings).await?;
    let listed = all(store.as_ref()).await;
    store.close().await;
    let heading = [
        "NUMBER", "UPLOAD", "BATCH", "ROWS", "STATE", "ATTEMPTS", "SINCE", "REASON",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(listed?.iter().map(line));
    print(table(&rows, REASON_CHARS).as_bytes())
}

async fn all(store: &dyn Store) -> anyhow::Result<Vec<DeadLetter>> {
    let mut letters: Vec<DeadLetter> = Vec::new();
    loop {
        let after = letters.last().map_or(0, |last| last.number);
        let page = store.dead_letters(after, PAGE).await?;
        if page.is_empty() {
            return Ok(letters);
        }
        letters.extend(page);
    }
}

fn line(letter: &DeadLetter) -> Vec<String> {
    let upload = letter.upload.or(letter.id.map(|id| id.upload.id));
    let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        letter.number.to_string(),
        text(upload.map(|id| id.to_string())),
        text(letter.id.map(|id| id.seq.to_string())),
        text(letter.rows.map(rows)),
        state(letter).to_owned(),
        letter.attempts.to_string(),
        format!("{:.0}", letter.parked_at),
        one_line(&letter.reason),
    ]
}

/// `1001-2000 (997)`: the first and the last number, and how many there are.
fn rows(rows: BatchRows) -> String {
    format!("{}-{} ({})", rows.first, rows.last, rows.count)
}

fn state(letter: &DeadLetter) -> &'static str {
    match letter.retried_at {
        None => "dead",
        Some(_) => "retrying",
    }
}

async fn show(settings: &Settings, number: u64) -> anyhow::Result<()> {
    let store = store_to_read(settings).await?;
    let letter = dead_letter(store.as_ref(), number).await?;
    let body = match letter.id {
        Some(id) => store.dead_message(id).await?,
        None => None,
    };
    store.close().await;
    let mut text = format!("number    {number}\nstate     {}\n", state(&letter));
    if let Some(id) = letter.id {
        let upload = letter.upload.unwrap_or(id.upload.id);
        text.push_str(&format!("upload    {upload}\nbatch     {}\n", id.seq));
    }
    if let Some(found) = letter.rows {
        text.push_str(&format!("rows      {}\n", rows(found)));
    }
    text.push_str(&format!(
        "attempts  {}\nsince     {:.0}\nreason    {}\n",
        letter.attempts, letter.parked_at, letter.reason
    ));
    match body {
        Some(body) => text.push_str(&format!("\n{}\n", String::from_utf8_lossy(&body))),
        None => text.push_str("\nThe message has no valid id, so it belongs to no upload.\n"),
    }
    print(printable(&text).as_bytes())
}

async fn dead_letter(store: &dyn Store, number: u64) -> anyhow::Result<DeadLetter> {
    let found = store.dead_letters(number.saturating_sub(1), 1).await?;
    let found = found.into_iter().find(|letter| letter.number == number);
    found.with_context(|| {
        format!("there is no dead letter {number}; `carga dead-letters list` lists them")
    })
}

async fn retry(settings: &Settings, which: RetryArguments) -> anyhow::Result<()> {
    // Without a store there is nothing to retry, and this command should not create it.
    store_to_read(settings).await?.close().await;
    let (store, _entry) = store_to_change(settings, "carga dead-letters").await?;
    let retried = retry_in(store.as_ref(), which).await;
    store.close().await;
    print(retried?.as_bytes())
}

/// Returns a line for each upload or batch that was retried.
async fn retry_in(store: &dyn Store, which: RetryArguments) -> anyhow::Result<String> {
    let mut text = String::new();
    if let Some(upload) = which.upload {
        let upload = find(store, upload, &[Status::Partial]).await?;
        let count = retry_batches(store, upload.key(), RetryScope::Upload).await?;
        text.push_str(&outcome(count, upload.public_id));
    }
    for number in which.numbers {
        let letter = dead_letter(store, number).await?;
        let id = letter
            .id
            .with_context(|| format!("dead letter {number} belongs to no upload"))?;
        let count = retry_batches(store, id.upload, RetryScope::Batch(id.seq)).await?;
        text.push_str(&outcome(count, letter.upload.unwrap_or(id.upload.id)));
    }
    Ok(text)
}

/// Returns how many batches will be published again.
async fn retry_batches(
    store: &dyn Store,
    key: UploadKey,
    scope: RetryScope,
) -> anyhow::Result<u64> {
    match store.retry(key, scope).await? {
        Retried::Batches(count) => Ok(count),
        Retried::Ended => match store.upload(key.id).await? {
            Some(upload) => bail!(Refusal::not_retryable(&upload).failure.message),
            None => bail!("upload {} does not exist", key.id),
        },
    }
}

fn outcome(count: u64, upload: UploadId) -> String {
    match count {
        0 => format!(
            "upload {upload}: nothing to retry; its batches are stored or are being retried\n"
        ),
        1 => format!("upload {upload}: 1 batch is being retried\n"),
        _ => format!("upload {upload}: {count} batches are being retried\n"),
    }
}
