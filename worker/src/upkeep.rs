//! Maintains the tables that grow: creates the partitions of the next weeks of the landing table,
//! lets rows, previous values, the audit log and events expire, and drops partitions whose uploads
//! keep no rows. The sweeper removes the expired rows. Also deletes the keys of old requests and
//! the usage of old days.

use std::sync::Arc;
use std::time::Duration;

use carga_common::error::PortResult;
use carga_common::store::{ForgottenEvents, Store};

use crate::context::Context;
use crate::metrics::MaintenanceCounters;
use crate::panics::survive;

/// The pause after a success. Partitions are created a week ahead, and retention is counted in
/// days.
const PAUSE: Duration = Duration::from_secs(3600);

/// The pause after a failure. Each attempt may hold up storing for a moment.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(300);

/// The most steps in which keys of old requests are deleted before the next pause: a million keys.
const FORGETTING_STEPS: usize = 1000;

const EXTEND_REMEDY: &str = "cannot make the partitions of the landing table. A worker tries again in 5 minutes; until then, rows of a week without a partition are stored in `landing_rest`. If the worker's role may not create tables, run `SELECT add_landing_week(upload_week(now()) + 1)` as the owner of `landing` every week";

const EXPIRE_REMEDY: &str = "cannot mark the uploads that are older than CARGA_RETENTION_DAYS. A worker tries again in 5 minutes";

const FORGET_REMEDY: &str = "cannot delete the previous values of rows whose uploads ended more than CARGA_UNDO_DAYS ago. A worker tries again in 5 minutes";

const REQUESTS_REMEDY: &str = "cannot delete the `Idempotency-Key`s of requests that are older than 24 hours. A worker tries again in 5 minutes; the keys are free meanwhile";
const AUDIT_REMEDY: &str = "cannot delete the entries of the audit log that are older than CARGA_AUDIT_DAYS. A worker tries again in 5 minutes";

const EVENTS_REMEDY: &str = "cannot delete the events that are older than CARGA_EVENTS_DAYS. A worker tries again in 5 minutes";

const USAGE_REMEDY: &str = "cannot delete what tenants have uploaded on days that are more than 400 days ago. A worker tries again in 5 minutes";

const SHRINK_REMEDY: &str = "cannot drop a partition of the landing table whose uploads keep no rows. A worker tries again in 5 minutes. If a long query reads the table, let it end; if the worker's role may not drop tables, drop the partition as the owner of `landing`";

/// Maintains these tables until the worker stops. Every worker does this, because each step
/// may safely run twice.
pub(crate) async fn run(context: Arc<Context>) {
    loop {
        let upkeep = async {
            let is_done = survive("maintaining the tables", keep_up(&context)).await;
            let pause = match is_done {
                Some(true) => PAUSE,
                Some(false) | None => PAUSE_AFTER_FAILURE,
            };
            tokio::time::sleep(pause).await;
        };
        tokio::select! {
            () = upkeep => {}
            () = context.stop.cancelled() => break,
        }
    }
}

/// Returns whether every step succeeded.
async fn keep_up(context: &Context) -> bool {
    let store = context.backends.store.as_ref();
    let counters = &context.metrics.maintenance;
    let is_extended = succeeded(store.extend_landing().await, EXTEND_REMEDY);
    let is_expired = match context.settings.retention {
        Some(retention) => {
            let expired = expire(store, retention, counters).await;
            succeeded(expired, EXPIRE_REMEDY)
        }
        None => true,
    };
    let undo = context.settings.undo;
    let forgotten = forget(store, undo, counters).await;
    let is_forgotten = succeeded(forgotten, FORGET_REMEDY);
    let are_requests_forgotten = succeeded(forget_requests(store).await, REQUESTS_REMEDY);
    let is_usage_forgotten = succeeded(forget_usage(store).await, USAGE_REMEDY);
    let audit = context.settings.audit;
    let is_audit_forgotten = succeeded(forget_audit(store, audit).await, AUDIT_REMEDY);
    let are_events_forgotten = succeeded(forget_events(context).await, EVENTS_REMEDY);
    // This comes after the expiry, since dropping a partition is faster than deleting its rows.
    let is_shrunk = succeeded(shrink(store).await, SHRINK_REMEDY);
    let are_forgotten = is_forgotten
        && are_requests_forgotten
        && is_usage_forgotten
        && is_audit_forgotten
        && are_events_forgotten;
    is_extended && is_expired && are_forgotten && is_shrunk
}

async fn expire(
    store: &dyn Store,
    retention: Duration,
    counters: &MaintenanceCounters,
) -> PortResult<()> {
    loop {
        let uploads = store.expire_rows(retention).await?;
        if uploads == 0 {
            return Ok(());
        }
        counters.expired.increment(uploads);
        tracing::info!(
            uploads,
            "uploads are older than CARGA_RETENTION_DAYS; their rows and archives are being removed"
        );
    }
}

async fn forget(
    store: &dyn Store,
    undo: Duration,
    counters: &MaintenanceCounters,
) -> PortResult<()> {
    loop {
        let uploads = store.forget_previous(undo).await?;
        if uploads == 0 {
            return Ok(());
        }
        counters.forgotten.increment(uploads);
        tracing::info!(
            "some uploads ended more than CARGA_UNDO_DAYS ago; they can no longer be undone"
        );
    }
}

async fn forget_requests(store: &dyn Store) -> PortResult<()> {
    for _ in 0..FORGETTING_STEPS {
        if store.forget_requests().await? == 0 {
            break;
        }
    }
    Ok(())
}

async fn forget_usage(store: &dyn Store) -> PortResult<()> {
    while store.forget_usage().await? > 0 {}
    Ok(())
}

async fn forget_audit(store: &dyn Store, older_than: Duration) -> PortResult<()> {
    while store.forget_audit(older_than).await? > 0 {}
    Ok(())
}

async fn forget_events(context: &Context) -> PortResult<()> {
    let mut unsent = 0;
    let forgotten = loop {
        let forgotten = context
            .backends
            .store
            .forget_events(context.settings.events);
        match forgotten.await {
            Ok(ForgottenEvents { events: 0, .. }) => break Ok(()),
            Ok(forgotten) => unsent += forgotten.unsent,
            Err(error) => break Err(error),
        }
    };
    // Without a broker, no event is ever sent.
    if unsent > 0 && context.backends.queue.event_publisher().is_some() {
        tracing::warn!(
            events = unsent,
            "events older than CARGA_EVENTS_DAYS were deleted although the broker had not taken them"
        );
    }
    forgotten
}

async fn shrink(store: &dyn Store) -> PortResult<()> {
    while store.shrink_landing().await? {}
    Ok(())
}

fn succeeded(outcome: PortResult<()>, remedy: &'static str) -> bool {
    if let Err(error) = &outcome {
        tracing::warn!(error = error.chain(), "{remedy}");
    }
    outcome.is_ok()
}
