//! Rows as they are read back.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::{PostgresStore, port_error};
use crate::error::PortResult;
use crate::store::sql::count;
use crate::store::{RowStore, StoredRow};
use crate::upload::UploadId;

impl RowStore for PostgresStore {
    fn rows(&self, id: UploadId) -> BoxStream<'_, PortResult<StoredRow>> {
        sqlx::query_as::<_, (i64, Vec<Option<String>>)>(
            "SELECT r.row_number, r.fields FROM rows r JOIN uploads u ON u.id = r.upload_id
             WHERE r.upload_id = $1 AND u.status IN ('completed', 'partial')
             ORDER BY r.row_number",
        )
        .bind(id.as_uuid())
        .fetch(&self.pool)
        .map(|found| {
            let (row_number, fields) = found?;
            Ok(StoredRow {
                row_number: count("row_number", row_number)?,
                fields,
            })
        })
        .map_err(|error| port_error("store.rows", error))
        .boxed()
    }
}
