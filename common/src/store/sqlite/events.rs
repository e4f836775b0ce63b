//! The events of uploads.
//!
//! Triggers write them (migration 19). SQLite has one writer, so events become visible in the order
//! of their numbers, which are also their positions.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::types::Json;

use super::{SqliteStore, ago, now, time_text};
use crate::error::PortResult;
use crate::events::{ClaimedEvent, Event, EventRows};
use crate::sqlite::call;
use crate::store::sql::{self, FORGOTTEN_AT_ONCE, signed};
use crate::store::{EventQuery, EventStore, ForgottenEvents, ListedEvent};

/// Claims the first event of each upload that is not sent. `$1`: the most events, `$2`: now, `$3`:
/// the end of the claims, `$4`: a time after the end of every claim. A claim that ends later is
/// older than a clock that was set back.
const CLAIM: &str = "UPDATE upload_events SET claimed_until = $3
    WHERE number IN (
        SELECT e.number FROM upload_events e
        WHERE e.sent_at IS NULL
          AND (e.claimed_until IS NULL OR e.claimed_until <= $2 OR e.claimed_until > $4)
          AND NOT EXISTS (
              SELECT 1 FROM upload_events earlier
              WHERE earlier.upload_id = e.upload_id AND earlier.sent_at IS NULL
                AND earlier.number < e.number)
        ORDER BY e.number LIMIT $1)
    RETURNING number, tenant, id, type, public_id, at, rows";

/// The columns `number`, `tenant`, `id`, `type`, `public_id`, `at` and `rows`.
type Record = (i64, String, String, String, String, String, Json<EventRows>);

#[async_trait]
impl EventStore for SqliteStore {
    async fn events(&self, query: &EventQuery) -> PortResult<Vec<ListedEvent>> {
        call("store.events", async {
            let found: Vec<Record> = sqlx::query_as(
                "SELECT number, tenant, id, type, public_id, at, rows FROM upload_events
                 WHERE tenant = $1 AND number > $2
                   AND ($3 IS NULL OR created_by = $3 OR substr(created_by, 1, length($3) + 1) = $3 || '.')
                 ORDER BY number LIMIT $4",
            )
            .bind(query.tenant.as_str())
            .bind(signed(query.after))
            .bind(query.created_by.as_deref())
            .bind(i64::from(query.limit))
            .fetch_all(&self.database.readers)
            .await?;
            let listed = |record| {
                let ClaimedEvent { number, event, .. } = claimed(record)?;
                let position = number;
                Ok(ListedEvent { position, event })
            };
            found.into_iter().map(listed).collect()
        })
        .await
    }

    async fn claim_events(&self, limit: u32, lease: Duration) -> PortResult<Vec<ClaimedEvent>> {
        call("store.claim_events", async {
            // A worker asks every second, so it writes only if there is something to claim.
            let is_waiting: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM upload_events WHERE sent_at IS NULL)",
            )
            .fetch_one(&self.database.readers)
            .await?;
            if !is_waiting {
                return Ok(Vec::new());
            }
            let mut transaction = self.database.begin().await?;
            let found: Vec<Record> = sqlx::query_as(CLAIM)
                .bind(i64::from(limit))
                .bind(now())
                .bind(in_future(lease))
                .bind(in_future(2 * lease))
                .fetch_all(&mut *transaction)
                .await?;
            transaction.commit().await?;
            let found = found.into_iter().map(claimed);
            let mut found = found.collect::<sqlx::Result<Vec<ClaimedEvent>>>()?;
            found.sort_unstable_by_key(|claimed| claimed.number);
            Ok(found)
        })
        .await
    }

    async fn events_sent(&self, numbers: &[u64]) -> PortResult<()> {
        call("store.events_sent", async {
            let mut transaction = self.database.begin().await?;
            for number in numbers {
                set(&mut transaction, *number, Some(now())).await?;
            }
            transaction.commit().await
        })
        .await
    }

    async fn release_events(&self, numbers: &[u64]) -> PortResult<()> {
        call("store.release_events", async {
            let mut transaction = self.database.begin().await?;
            for number in numbers {
                set(&mut transaction, *number, None).await?;
            }
            transaction.commit().await
        })
        .await
    }

    async fn forget_events(&self, older_than: Duration) -> PortResult<ForgottenEvents> {
        call("store.forget_events", async {
            let mut transaction = self.database.begin().await?;
            let deleted: Vec<bool> = sqlx::query_scalar(
                "DELETE FROM upload_events WHERE number IN
                     (SELECT number FROM upload_events WHERE at < $1 ORDER BY at LIMIT $2)
                 RETURNING sent_at IS NULL",
            )
            .bind(ago(older_than))
            .bind(FORGOTTEN_AT_ONCE)
            .fetch_all(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(ForgottenEvents {
                events: deleted.len() as u64,
                unsent: deleted.iter().filter(|is_unsent| **is_unsent).count() as u64,
            })
        })
        .await
    }
}

/// Ends the claim of an event, which is sent at `sent_at` or not at all.
async fn set(
    connection: &mut SqliteConnection,
    number: u64,
    sent_at: Option<String>,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE upload_events SET sent_at = $2, claimed_until = NULL
         WHERE number = $1 AND sent_at IS NULL",
    )
    .bind(signed(number))
    .bind(sent_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// The time after this duration, or the present if there is no such time.
fn in_future(duration: Duration) -> String {
    let now = jiff::Timestamp::now();
    time_text(now.checked_add(duration).unwrap_or(now))
}

fn claimed(record: Record) -> sqlx::Result<ClaimedEvent> {
    let (number, tenant, id, kind, upload, at, Json(rows)) = record;
    Ok(ClaimedEvent {
        number: sql::count("number", number)?,
        tenant: sql::parsed("tenant", &tenant)?,
        event: Event {
            id: sql::parsed("id", &id)?,
            kind,
            upload: sql::parsed("public_id", &upload)?,
            at: sql::parsed("at", &at)?,
            rows,
        },
    })
}
