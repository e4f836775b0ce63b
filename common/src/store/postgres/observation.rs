//! What an operator watches.

use std::time::Duration;

use async_trait::async_trait;

use super::PostgresStore;
use super::connections::SHORT;
use crate::error::PortResult;
use crate::store::sql;
use crate::store::{
    ConnectionUse, MOST_DEAD_LETTERS, MOST_UNSENT_EVENTS, Observation, ObservationStore,
};
use crate::upload::UploadId;

#[async_trait]
impl ObservationStore for PostgresStore {
    async fn observe(&self) -> PortResult<Observation> {
        self.call("store.observe", SHORT, async |connection| {
            // The conditions are those of partial indexes. The limits bound the other counts.
            let found = sqlx::query_as(
                "SELECT count(*) FILTER (WHERE status = 'receiving'),
                        count(*) FILTER (WHERE status = 'processing'),
                        extract(epoch FROM now() - min(updated_at) FILTER (WHERE status = 'processing'))::float8,
                        (SELECT count(*) FROM (SELECT FROM dead_letters WHERE retried_at IS NULL LIMIT $1) AS dead),
                        (SELECT count(*) FROM (SELECT FROM upload_events WHERE sent_at IS NULL LIMIT $2) AS unsent)
                 FROM uploads WHERE status IN ('receiving', 'processing')",
            )
            .bind(i64::from(MOST_DEAD_LETTERS))
            .bind(i64::from(MOST_UNSENT_EVENTS));
            let (receiving, processing, oldest, dead_letters, unsent): (i64, i64, Option<f64>, i64, i64) =
                found.fetch_one(connection).await?;
            Ok(Observation {
                receiving: sql::count("receiving", receiving)?,
                processing: sql::count("processing", processing)?,
                // The clock of the server may have been set back since then.
                oldest_processing: oldest.map(|age| Duration::from_secs_f64(age.max(0.0))),
                dead_letters: sql::count("dead_letters", dead_letters)?,
                unsent_events: sql::count("unsent", unsent)?,
            })
        })
        .await
    }

    async fn reject_codes(&self, id: UploadId) -> PortResult<Vec<(String, u64)>> {
        self.call("store.reject_codes", SHORT, async |connection| {
            let found: Vec<(String, i64)> = sqlx::query_as(
                "SELECT code, count(*) FROM rejected_rows WHERE upload_id = $1 GROUP BY code",
            )
            .bind(id.as_uuid())
            .fetch_all(connection)
            .await?;
            let codes = found.into_iter();
            codes
                .map(|(code, rows)| Ok((code, sql::count("count(*)", rows)?)))
                .collect()
        })
        .await
    }

    fn connection_use(&self) -> ConnectionUse {
        self.connections.in_use().plus(self.renewing.in_use())
    }
}
