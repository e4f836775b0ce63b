//! The events of uploads.
//!
//! Triggers write them (migration 19). Each change of a status updates the row of its upload, and
//! holds the lock of this row until its commit. The trigger runs behind that lock, so the next
//! change of the same upload gets its number after this one has committed. This holds for every
//! statement, also of merges, undos and older versions, and without the fence. So the numbers of an
//! upload's events ascend in the order of its changes, and a statement that sees one of them sees
//! the earlier ones too.
//!
//! The numbers of different uploads become visible in any order. Readers therefore follow
//! positions, which committed events get later: one transaction at a time locks the last position,
//! and then numbers what has committed. Positions thus become visible in their order.

use std::time::Duration;

use async_trait::async_trait;
use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::PostgresStore;
use super::connections::{LONG, SHORT};
use crate::error::PortResult;
use crate::events::{ClaimedEvent, Event, EventRows};
use crate::store::sql::{self, FORGOTTEN_AT_ONCE, signed};
use crate::store::{EventQuery, EventStore, ForgottenEvents, ListedEvent};

/// How many events one transaction places. The others wait for the next one, so that no list waits
/// long for its turn.
const PLACED_AT_ONCE: i64 = 2000;

/// Limits how long a list waits for its turn, in case that a process was suspended in its own.
const WAIT_BRIEFLY: &str = "SELECT set_config('lock_timeout', '1500ms', true)";

/// Places committed events behind `$1`, the last position, in the order of their numbers. At most
/// `$2` of them. Returns how many were placed, and the last position. The list of numbers is
/// materialized, because a plan that reads it twice could find more events the second time.
///
/// Every statement that waits for rows of events locks them in the order of their numbers.
/// Otherwise two of them could deadlock.
const PLACE: &str = "WITH waiting AS MATERIALIZED (
        SELECT number, row_number() OVER (ORDER BY number) AS place
        FROM (SELECT number FROM upload_events WHERE position IS NULL
              ORDER BY number LIMIT $2 FOR UPDATE) AS first),
    placed AS (
        UPDATE upload_events e SET position = $1 + w.place FROM waiting w
        WHERE e.number = w.number RETURNING e.position)
    SELECT count(*), max(position) FROM placed";

/// Claims the first event of each upload that is not sent, for `$2` seconds. At most `$1` of them.
///
/// Two calls at once lock different rows. A row that was claimed or sent since this statement began
/// is locked in its newest version, and the conditions are checked again. Earlier events of its
/// upload are compared as they were when this statement began, which only leaves events out: a sent
/// event stays sent. A claim that ends later than any claim can is older than a clock that was set
/// back.
const CLAIM: &str = "WITH claimable AS MATERIALIZED (
        SELECT e.number FROM upload_events e
        WHERE e.sent_at IS NULL
          AND (e.claimed_until IS NULL OR e.claimed_until <= now()
               OR e.claimed_until > now() + make_interval(secs => 2 * $2))
          AND NOT EXISTS (
              SELECT FROM upload_events earlier
              WHERE earlier.upload_id = e.upload_id AND earlier.sent_at IS NULL
                AND earlier.number < e.number)
        ORDER BY e.number LIMIT $1 FOR UPDATE OF e SKIP LOCKED)
    UPDATE upload_events e SET claimed_until = now() + make_interval(secs => $2)
    FROM claimable c WHERE e.number = c.number
    RETURNING e.number, e.tenant, e.id, e.type, e.public_id, e.at, e.rows";

/// The columns `number` or `position`, `tenant`, `id`, `type`, `public_id`, `at` and `rows`.
type Record = (
    i64,
    String,
    Uuid,
    String,
    Uuid,
    SqlTimestamp,
    Json<EventRows>,
);

#[async_trait]
impl EventStore for PostgresStore {
    async fn events(&self, query: &EventQuery) -> PortResult<Vec<ListedEvent>> {
        self.call("store.events", LONG, async |connection| {
            place_all(connection).await?;
            let found: Vec<Record> = sqlx::query_as(
                "SELECT position, tenant, id, type, public_id, at, rows FROM upload_events
                 WHERE tenant = $1 AND position > $2
                   AND ($3::text IS NULL OR created_by = $3 OR starts_with(created_by, $3 || '.'))
                 ORDER BY position LIMIT $4",
            )
            .bind(query.tenant.as_str())
            .bind(signed(query.after))
            .bind(query.created_by.as_deref())
            .bind(i64::from(query.limit))
            .fetch_all(connection)
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
        self.call("store.claim_events", SHORT, async |connection| {
            let found: Vec<Record> = sqlx::query_as(CLAIM)
                .bind(i64::from(limit))
                .bind(lease.as_secs_f64())
                .fetch_all(connection)
                .await?;
            let found = found.into_iter().map(claimed);
            let mut found = found.collect::<sqlx::Result<Vec<ClaimedEvent>>>()?;
            found.sort_unstable_by_key(|claimed| claimed.number);
            Ok(found)
        })
        .await
    }

    async fn events_sent(&self, numbers: &[u64]) -> PortResult<()> {
        self.call("store.events_sent", SHORT, async |connection| {
            end_claims(connection, numbers, true).await
        })
        .await
    }

    async fn release_events(&self, numbers: &[u64]) -> PortResult<()> {
        self.call("store.release_events", SHORT, async |connection| {
            end_claims(connection, numbers, false).await
        })
        .await
    }

    async fn forget_events(&self, older_than: Duration) -> PortResult<ForgottenEvents> {
        self.call("store.forget_events", LONG, async |connection| {
            // Otherwise the first list after a long time would have to place many events.
            place_all(connection).await?;
            let (events, unsent): (i64, i64) = sqlx::query_as(
                "WITH deleted AS (
                     DELETE FROM upload_events WHERE number IN
                         (SELECT number FROM upload_events WHERE at < now() - make_interval(secs => $1)
                          ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)
                     RETURNING sent_at)
                 SELECT count(*), count(*) FILTER (WHERE sent_at IS NULL) FROM deleted",
            )
            .bind(older_than.as_secs_f64())
            .bind(FORGOTTEN_AT_ONCE)
            .fetch_one(connection)
            .await?;
            Ok(ForgottenEvents {
                events: sql::count("count(*)", events)?,
                unsent: sql::count("count(*)", unsent)?,
            })
        })
        .await
    }
}

/// Ends the claims of events, which are sent or not.
async fn end_claims(
    connection: &mut PgConnection,
    numbers: &[u64],
    are_sent: bool,
) -> sqlx::Result<()> {
    let numbers: Vec<i64> = numbers.iter().map(|number| signed(*number)).collect();
    sqlx::query(
        "WITH claimed AS MATERIALIZED (
             SELECT number FROM upload_events WHERE number = ANY ($1) AND sent_at IS NULL
             ORDER BY number FOR UPDATE)
         UPDATE upload_events e SET sent_at = CASE WHEN $2 THEN now() END, claimed_until = NULL
         FROM claimed c WHERE e.number = c.number",
    )
    .bind(numbers)
    .bind(are_sent)
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives positions to all events that have committed.
async fn place_all(connection: &mut PgConnection) -> sqlx::Result<()> {
    const IS_WAITING: &str = "SELECT EXISTS (SELECT FROM upload_events WHERE position IS NULL)";
    // Most lists find nothing to place, and take no lock.
    while sqlx::query_scalar(IS_WAITING)
        .fetch_one(&mut *connection)
        .await?
    {
        if !place_some(connection).await? {
            break;
        }
    }
    Ok(())
}

/// Gives positions to some events. Returns whether there may be more.
async fn place_some(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let mut transaction = connection.begin().await?;
    sqlx::query(WAIT_BRIEFLY).execute(&mut *transaction).await?;
    let last: i64 = sqlx::query_scalar("SELECT last FROM upload_event_positions FOR UPDATE")
        .fetch_one(&mut *transaction)
        .await?;
    // A statement after the lock sees the positions that the earlier holders have given.
    let (placed, last): (i64, Option<i64>) = sqlx::query_as(PLACE)
        .bind(last)
        .bind(PLACED_AT_ONCE)
        .fetch_one(&mut *transaction)
        .await?;
    if let Some(last) = last {
        sqlx::query("UPDATE upload_event_positions SET last = $1")
            .bind(last)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(placed >= PLACED_AT_ONCE)
}

fn claimed(record: Record) -> sqlx::Result<ClaimedEvent> {
    let (number, tenant, id, kind, upload, at, Json(rows)) = record;
    Ok(ClaimedEvent {
        number: sql::count("number", number)?,
        tenant: sql::parsed("tenant", &tenant)?,
        event: Event {
            id,
            kind,
            upload: upload.into(),
            at: at.to_jiff(),
            rows,
        },
    })
}
