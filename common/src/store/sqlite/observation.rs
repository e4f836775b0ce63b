//! What an operator watches.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::SqlitePool;

use super::SqliteStore;
use crate::error::PortResult;
use crate::sqlite::call;
use crate::store::sql;
use crate::store::{
    ConnectionUse, MOST_DEAD_LETTERS, MOST_UNSENT_EVENTS, Observation, ObservationStore,
};
use crate::upload::UploadId;

#[async_trait]
impl ObservationStore for SqliteStore {
    async fn observe(&self) -> PortResult<Observation> {
        call("store.observe", async {
            // The conditions are those of partial indexes. The limits bound the other counts.
            let found = sqlx::query_as(
                "SELECT count(*) FILTER (WHERE status = 'receiving'),
                        count(*) FILTER (WHERE status = 'processing'),
                        min(updated_at) FILTER (WHERE status = 'processing'),
                        (SELECT count(*) FROM (SELECT 1 FROM dead_letters WHERE retried_at IS NULL LIMIT $1)),
                        (SELECT count(*) FROM (SELECT 1 FROM upload_events WHERE sent_at IS NULL LIMIT $2))
                 FROM uploads WHERE status IN ('receiving', 'processing')",
            )
            .bind(MOST_DEAD_LETTERS)
            .bind(MOST_UNSENT_EVENTS);
            let (receiving, processing, oldest, dead_letters, unsent): (i64, i64, Option<String>, i64, i64) =
                found.fetch_one(&self.database.readers).await?;
            let oldest = oldest.map(|sealed_at| sql::parsed::<Timestamp>("updated_at", &sealed_at));
            let age = oldest.transpose()?.map(|sealed_at| {
                let age = Timestamp::now().duration_since(sealed_at);
                // The clock may have been set back since then.
                Duration::try_from(age).unwrap_or_default()
            });
            Ok(Observation {
                receiving: sql::count("receiving", receiving)?,
                processing: sql::count("processing", processing)?,
                oldest_processing: age,
                dead_letters: sql::count("dead_letters", dead_letters)?,
                unsent_events: sql::count("unsent", unsent)?,
            })
        })
        .await
    }

    async fn reject_codes(&self, id: UploadId) -> PortResult<Vec<(String, u64)>> {
        call("store.reject_codes", async {
            let found: Vec<(String, i64)> = sqlx::query_as(
                "SELECT r.code, count(*) FROM uploads u
                 JOIN rejected_rows r ON r.id BETWEEN u.number << 36 AND (u.number << 36) + 0xfffffffff
                 WHERE u.id = $1 GROUP BY r.code",
            )
            .bind(id.to_string())
            .fetch_all(&self.database.readers)
            .await?;
            let codes = found.into_iter();
            codes
                .map(|(code, rows)| Ok((code, sql::count("count(*)", rows)?)))
                .collect()
        })
        .await
    }

    fn connection_use(&self) -> ConnectionUse {
        in_use(self.database.writer()).plus(in_use(&self.database.readers))
    }
}

fn in_use(pool: &SqlitePool) -> ConnectionUse {
    let max = pool.options().get_max_connections();
    ConnectionUse::of_pool(pool.size(), pool.num_idle(), max)
}
