//! The partitions of the landing table: one per week, made ahead of time, and dropped when none of
//! its uploads keeps rows.
//!
//! The number of an upload begins with the week of its creation, so all rows of an upload are in
//! one partition. Rows of a week without a partition are in `landing_rest`.

use sqlx::{Connection, PgConnection};

use super::connections::LONG;
use super::{PostgresStore, datasets};
use crate::dataset::DatasetKey;

/// How many weeks after this one get their partitions.
const WEEKS_AHEAD: i32 = 1;

/// Lets one process at a time change the partitions. Locks with two keys never collide with locks
/// with one key, such as the fence.
const CHANGE: &str = "SELECT pg_try_advisory_xact_lock(1667330663, 1818323300)";

/// Makes a statement on the partitions fail rather than wait, since transactions that store rows
/// would wait behind it.
const DO_NOT_WAIT: &str = "SELECT set_config('lock_timeout', '300ms', true)";

/// Selects a partition whose week is over and whose uploads keep no rows. The bounds are read from
/// the partition itself, because an operator may have made it. A week counts as over one day later,
/// since an upload may have been created at its very end and not be committed yet. An upload with a
/// dataset may have staged rows here until they are merged into another table. They are not merged
/// while a batch is a dead letter, although the upload has ended.
const UNUSED: &str = r"SELECT name
    FROM (SELECT c.oid::regclass::text AS name,
                 regexp_match(pg_get_expr(c.relpartbound, c.oid),
                              'FROM \(''?(\d+)''?\) TO \(''?(\d+)''?\)')::bigint[] AS bounds
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
          WHERE i.inhparent = 'landing'::regclass) AS partitions
    WHERE bounds[2] <= upload_week(now() - interval '1 day') << 40
      AND NOT EXISTS (SELECT FROM uploads u
                      WHERE u.number >= bounds[1] AND u.number < bounds[2]
                        AND u.status NOT IN ('failed', 'cancelled', 'undone') AND u.expired_at IS NULL
                        AND (u.dataset IS NULL OR u.dataset ->> 'merge' IS NOT NULL
                             AND (u.status NOT IN ('completed', 'partial') OR u.rows_dead > 0)))
    ORDER BY bounds[1] LIMIT 1";

/// Adds the new blocks of a table to its index: the table of a dataset, or a partition.
const SUMMARIZE: &str = "SELECT sum(brin_summarize_new_values(i.indexrelid::regclass))
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
    WHERE a.amname = 'brin'
      AND i.indrelid = coalesce(to_regclass($2), to_regclass(landing_week($1::bigint >> 40)), 'landing_rest'::regclass)";

impl PostgresStore {
    /// Adds new blocks of the table with the upload's rows to its index: the table of the dataset
    /// if the upload has one, else the partition of the upload. Autovacuum does the same within a
    /// minute, but until then every look-up of rows reads all new blocks.
    pub(super) async fn summarize(
        &self,
        operation: &'static str,
        number: i64,
        dataset: Option<&DatasetKey>,
    ) {
        let summarize = sqlx::query(SUMMARIZE)
            .bind(number)
            .bind(dataset.map(datasets::table));
        let summarized = self
            .call(operation, LONG, async |connection| {
                let mut transaction = connection.begin().await?;
                // Waiting would make the reader wait, and would cancel an autovacuum of the table.
                sqlx::query(DO_NOT_WAIT).execute(&mut *transaction).await?;
                summarize.execute(&mut *transaction).await?;
                transaction.commit().await
            })
            .await;
        if let Err(error) = summarized {
            tracing::debug!(
                error = error.chain(),
                "cannot summarize the index of a table with rows; rows of new uploads are found slowly until autovacuum does it"
            );
        }
    }
}

/// Makes the partitions of this week and the next.
pub(super) async fn extend(connection: &mut PgConnection) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    if may_change(&mut transaction).await? {
        sqlx::query(
            "SELECT add_landing_week(upload_week(now()) + ahead) FROM generate_series(0, $1) AS ahead",
        )
        .bind(WEEKS_AHEAD)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

/// Drops one partition that no upload needs. Returns whether it dropped one.
pub(super) async fn shrink(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let mut transaction = connection.begin().await?;
    let unused: Option<String> = match may_change(&mut transaction).await? {
        true => {
            sqlx::query_scalar(UNUSED)
                .fetch_optional(&mut *transaction)
                .await?
        }
        false => None,
    };
    if let Some(partition) = &unused {
        let drop = format!("DROP TABLE {partition}");
        sqlx::query(&drop)
            .persistent(false)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    if let Some(partition) = &unused {
        tracing::info!(
            partition,
            "dropped a partition of the landing table; none of its uploads keeps rows"
        );
    }
    Ok(unused.is_some())
}

/// Returns false if another process is changing the partitions.
async fn may_change(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query(DO_NOT_WAIT).execute(&mut *connection).await?;
    sqlx::query_scalar(CHANGE).fetch_one(connection).await
}
