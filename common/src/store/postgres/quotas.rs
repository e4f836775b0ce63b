//! How much each tenant uploads.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgConnection;

use super::PostgresStore;
use super::connections::{LONG, SHORT};
use crate::error::PortResult;
use crate::store::rules::FORGOTTEN_DAYS;
use crate::store::sql::{count, signed};
use crate::store::{Heartbeat, QuotaStore, USAGE_KEPT_DAYS, UploadSlots, Usage};
use crate::tenant::Tenant;
use crate::upload::{UploadId, UploadKey};

/// Sums over the uploads of tenant `$1` that are being received, with leases that were renewed
/// within `$2` seconds. Only receiving uploads have leases, so there are few.
macro_rules! of_receiving {
    ($sums:literal) => {
        concat!(
            "SELECT ",
            $sums,
            " FROM upload_leases l JOIN uploads u ON u.id = l.upload_id
              WHERE u.tenant = $1 AND l.renewed_at > now() - make_interval(secs => $2)"
        )
    };
}

const USAGE: &str = concat!(
    "SELECT r.uploads, r.bytes + coalesce(t.bytes, 0), r.rows + coalesce(t.rows, 0) FROM (",
    of_receiving!(
        "count(*) AS uploads, coalesce(sum(l.bytes_received), 0)::bigint AS bytes,
         coalesce(sum(l.rows_read), 0)::bigint AS rows"
    ),
    ") r LEFT JOIN tenant_usage t ON t.tenant = $1 AND t.day = (now() AT TIME ZONE 'UTC')::date"
);

/// The first key of the locks under which the uploads of a tenant are created one after another.
/// The second one is a hash of the tenant.
const SLOT_LOCKS: i32 = 0x736c_6f74;

#[async_trait]
impl QuotaStore for PostgresStore {
    async fn usage(&self, tenant: &Tenant, lease: Duration) -> PortResult<Usage> {
        self.call("store.usage", SHORT, async |connection| {
            let (uploads, bytes, rows) = sqlx::query_as::<_, (i64, i64, i64)>(USAGE)
                .bind(tenant.as_str())
                .bind(lease.as_secs_f64())
                .fetch_one(connection)
                .await?;
            Ok(Usage {
                uploads: count("uploads", uploads)?,
                bytes: count("bytes", bytes)?,
                rows: count("rows", rows)?,
            })
        })
        .await
    }

    async fn forget_usage(&self) -> PortResult<u64> {
        self.call("store.forget_usage", LONG, async |connection| {
            let deleted = sqlx::query(
                "DELETE FROM tenant_usage WHERE (tenant, day) IN (
                     SELECT tenant, day FROM tenant_usage
                     WHERE day < (now() AT TIME ZONE 'UTC')::date - $1::integer
                     ORDER BY day LIMIT $2 FOR UPDATE SKIP LOCKED)",
            )
            .bind(i32::from(USAGE_KEPT_DAYS))
            .bind(FORGOTTEN_DAYS)
            .execute(connection)
            .await?;
            Ok(deleted.rows_affected())
        })
        .await
    }
}

/// Whether the tenant has a free slot. Until the end of the transaction, no other creation of the
/// tenant passes this check.
pub(super) async fn has_slot(
    connection: &mut PgConnection,
    tenant: &Tenant,
    slots: UploadSlots,
) -> sqlx::Result<bool> {
    // Before every other lock but the shared one on the dataset. That one keeps no other upload
    // waiting, so creations cannot deadlock.
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))")
        .bind(SLOT_LOCKS)
        .bind(tenant.as_str())
        .execute(&mut *connection)
        .await?;
    // A statement after the lock sees what the earlier holders have committed.
    let receiving: i64 = sqlx::query_scalar(of_receiving!("count(*)"))
        .bind(tenant.as_str())
        .bind(slots.lease.as_secs_f64())
        .fetch_one(connection)
        .await?;
    Ok(receiving < i64::from(slots.most))
}

/// Ends the lease of an upload that was sealed or has ended, and counts the final figures in its
/// record as usage of its tenant. Only a receiving upload has a lease, so no upload counts twice.
pub(super) async fn end_lease(connection: &mut PgConnection, id: UploadId) -> sqlx::Result<()> {
    sqlx::query(
        "WITH ended AS (DELETE FROM upload_leases WHERE upload_id = $1 RETURNING upload_id)
         INSERT INTO tenant_usage AS t (tenant, day, bytes, rows)
         SELECT u.tenant, (now() AT TIME ZONE 'UTC')::date, u.bytes_received, u.rows_read
         FROM uploads u JOIN ended ON ended.upload_id = u.id
         ON CONFLICT (tenant, day) DO UPDATE
         SET bytes = t.bytes + EXCLUDED.bytes, rows = t.rows + EXCLUDED.rows",
    )
    .bind(id.as_uuid())
    .execute(connection)
    .await?;
    Ok(())
}

/// Counts what has arrived of an upload since its last heartbeat, if another process has ended the
/// upload meanwhile. The record of the upload then has these figures, so a repeated call adds
/// nothing. The transaction holds the lock of the status.
pub(super) async fn count_rest(
    connection: &mut PgConnection,
    key: UploadKey,
    last: Heartbeat,
) -> sqlx::Result<()> {
    sqlx::query(
        "WITH ended AS (
             SELECT id, tenant, bytes_received, rows_read FROM uploads
             WHERE id = $1 AND epoch = $2 AND status IN ('cancelled', 'failed')),
         raised AS (
             UPDATE uploads u
             SET bytes_received = GREATEST(u.bytes_received, $3), rows_read = GREATEST(u.rows_read, $4)
             FROM ended e
             WHERE u.id = e.id AND (e.bytes_received < $3 OR e.rows_read < $4)
             RETURNING e.tenant, u.bytes_received - e.bytes_received AS bytes, u.rows_read - e.rows_read AS rows)
         INSERT INTO tenant_usage AS t (tenant, day, bytes, rows)
         SELECT tenant, (now() AT TIME ZONE 'UTC')::date, bytes, rows FROM raised
         ON CONFLICT (tenant, day) DO UPDATE
         SET bytes = t.bytes + EXCLUDED.bytes, rows = t.rows + EXCLUDED.rows",
    )
    .bind(key.id.as_uuid())
    .bind(key.epoch.get())
    .bind(signed(last.bytes_received))
    .bind(signed(last.rows_read))
    .execute(connection)
    .await?;
    Ok(())
}
