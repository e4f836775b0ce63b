//! Events: what happened to uploads, as clients list it and as other programs get it from the
//! broker.

mod broker;
mod listing;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::app::App;

/// All events behind a cursor, in their order, and the cursor behind them.
async fn read_on(app: &App, after: &str, limit: usize) -> Result<(Vec<Value>, String)> {
    let (mut all, mut after) = (Vec::new(), after.to_owned());
    loop {
        let (status, page) = app
            .get(&format!("/events?limit={limit}&after={after}"))
            .await?;
        ensure!(status == 200, "{page}");
        let events = page["events"].as_array().context("no events")?;
        let next = page["next"].as_str().context("no `next`")?;
        if events.is_empty() {
            ensure!(next == after, "an empty page moves on: {page}");
            return Ok((all, after));
        }
        ensure!(events.len() <= limit, "{page}");
        all.extend(events.iter().cloned());
        after = next.to_owned();
    }
}

/// The types of the events of each upload, without `upload.`, in their order. A repeated event
/// counts once.
fn histories(events: &[Value]) -> Result<BTreeMap<String, Vec<String>>> {
    let text = |event: &Value, field: &str| {
        let text = event[field].as_str().map(str::to_owned);
        text.with_context(|| format!("no `{field}` in {event}"))
    };
    let mut seen = BTreeMap::new();
    let mut histories: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events {
        let first = seen.entry(text(event, "id")?).or_insert(event);
        ensure!(*first == event, "{first} and {event}");
        if std::ptr::eq(*first, event) {
            let kind = text(event, "type")?;
            let kind = kind.strip_prefix("upload.").context("another type")?;
            let history = histories.entry(text(event, "upload")?).or_default();
            history.push(kind.to_owned());
        }
    }
    Ok(histories)
}
