//! How much each tenant uploads.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{SqliteStore, ago, now};
use crate::error::PortResult;
use crate::sqlite::call;
use crate::store::rules::FORGOTTEN_DAYS;
use crate::store::sql::count;
use crate::store::{QuotaStore, USAGE_KEPT_DAYS, UploadSlots, Usage};
use crate::tenant::Tenant;
use crate::upload::UploadId;

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

/// The date in UTC, such as `2026-11-27`.
fn today() -> String {
    date(now())
}

fn date(mut time: String) -> String {
    time.truncate("2026-11-27".len());
    time
}
