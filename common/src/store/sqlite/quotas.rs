//! How much each tenant uploads.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{SqliteStore, ago, now};
use crate::error::PortResult;
use crate::sqlite::call;
use crate::store::rules::FORGOTTEN_DAYS;
use crate::store::sql::{count, signed};
use crate::store::{Heartbeat, QuotaStore, USAGE_KEPT_DAYS, UploadSlots, Usage};
use crate::tenant::Tenant;
use crate::upload::{UploadId, UploadKey};

/// Sums over the uploads of tenant `$1` that are being received, with leases that were renewed
/// after `$2`. Only receiving uploads have leases, so there are few.
macro_rules! of_receiving {
    ($sums:literal) => {
        concat!(
            "SELECT ",
            $sums,
            " FROM upload_leases l JOIN uploads u ON u.id = l.upload_id
              WHERE u.tenant = $1 AND l.renewed_at > $2"
        )
    };
}

const USAGE: &str = concat!(
    "SELECT r.uploads, r.bytes + coalesce(t.bytes, 0), r.rows + coalesce(t.rows, 0) FROM (",
    of_receiving!(
        "count(*) AS uploads, coalesce(sum(l.bytes_received), 0) AS bytes,
         coalesce(sum(l.rows_read), 0) AS rows"
    ),
    ") r LEFT JOIN tenant_usage t ON t.tenant = $1 AND t.day = $3"
);

#[async_trait]
impl QuotaStore for SqliteStore {
    async fn usage(&self, tenant: &Tenant, lease: Duration) -> PortResult<Usage> {
        call("store.usage", async {
            let (uploads, bytes, rows) = sqlx::query_as::<_, (i64, i64, i64)>(USAGE)
                .bind(tenant.as_str())
                .bind(ago(lease))
                .bind(today())
                .fetch_one(&self.database.readers)
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
        const KEPT: Duration = Duration::from_secs(USAGE_KEPT_DAYS as u64 * 24 * 3600);
        call("store.forget_usage", async {
            let deleted = sqlx::query(
                "DELETE FROM tenant_usage WHERE (tenant, day) IN (
                     SELECT tenant, day FROM tenant_usage WHERE day < $1 ORDER BY day LIMIT $2)",
            )
            .bind(date(ago(KEPT)))
            .bind(FORGOTTEN_DAYS)
            .execute(self.database.writer())
            .await?;
            Ok(deleted.rows_affected())
        })
        .await
    }
}

/// Whether the tenant has a free slot. In a write transaction, no upload is created after this,
/// because SQLite has one writer.
pub(super) async fn has_slot(
    connection: &mut SqliteConnection,
    tenant: &Tenant,
    slots: UploadSlots,
) -> sqlx::Result<bool> {
    let receiving: i64 = sqlx::query_scalar(of_receiving!("count(*)"))
        .bind(tenant.as_str())
        .bind(ago(slots.lease))
        .fetch_one(connection)
        .await?;
    Ok(receiving < i64::from(slots.most))
}

/// Ends the lease of an upload that was sealed or has ended, and counts the final figures in its
/// record as usage of its tenant. Only a receiving upload has a lease, so no upload counts twice.
pub(super) async fn end_lease(connection: &mut SqliteConnection, id: UploadId) -> sqlx::Result<()> {
    let ended = sqlx::query("DELETE FROM upload_leases WHERE upload_id = $1")
        .bind(id.to_string())
        .execute(&mut *connection)
        .await?;
    if ended.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO tenant_usage (tenant, day, bytes, rows)
         SELECT tenant, $2, bytes_received, rows_read FROM uploads WHERE id = $1
         ON CONFLICT (tenant, day) DO UPDATE
         SET bytes = bytes + excluded.bytes, rows = rows + excluded.rows",
    )
    .bind(id.to_string())
    .bind(today())
    .execute(connection)
    .await?;
    Ok(())
}

/// Counts what has arrived of an upload since its last heartbeat, if another process has ended the
/// upload meanwhile. The record of the upload then has these figures, so a repeated call adds
/// nothing.
pub(super) async fn count_rest(
    connection: &mut SqliteConnection,
    key: UploadKey,
    last: Heartbeat,
) -> sqlx::Result<()> {
    const COUNT: &str = "INSERT INTO tenant_usage (tenant, day, bytes, rows)
         SELECT tenant, $5, max($3 - bytes_received, 0), max($4 - rows_read, 0) FROM uploads
         WHERE id = $1 AND epoch = $2 AND status IN ('cancelled', 'failed')
         ON CONFLICT (tenant, day) DO UPDATE
         SET bytes = bytes + excluded.bytes, rows = rows + excluded.rows";
    const RAISE: &str = "UPDATE uploads
         SET bytes_received = max(bytes_received, $3), rows_read = max(rows_read, $4)
         WHERE id = $1 AND epoch = $2 AND status IN ('cancelled', 'failed')";
    let with_figures = |statement| {
        let query = sqlx::query(statement).bind(key.id.to_string());
        let query = query.bind(key.epoch.get());
        let query = query.bind(signed(last.bytes_received));
        query.bind(signed(last.rows_read))
    };
    let count = with_figures(COUNT).bind(today());
    count.execute(&mut *connection).await?;
    with_figures(RAISE).execute(connection).await?;
    Ok(())
}

/// The date in UTC, such as `2026-11-27`.
fn today() -> String {
    date(now())
}

fn date(mut time: String) -> String {
    time.truncate("2026-11-27".len());
    time
}
