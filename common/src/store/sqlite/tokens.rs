//! The secret of tokens, and the counts of their uploads.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{SqliteStore, ago, time_text};
use crate::access::{TokenLimits, TokenSecret};
use crate::error::PortResult;
use crate::sqlite::call;
use crate::store::TokenStore;
use crate::store::sql::{self, TOKEN_COUNTS_REMOVED_AT_ONCE, signed};

/// How long a count is kept after the end of its token, as on Postgres.
const KEPT: Duration = Duration::from_secs(3600);

#[async_trait]
impl TokenStore for SqliteStore {
    async fn token_secret(&self, new: &TokenSecret) -> PortResult<TokenSecret> {
        call("store.token_secret", async {
            let mut transaction = self.database.begin().await?;
            sqlx::query(
                "INSERT INTO token_secrets (number, secret) VALUES (1, $1) ON CONFLICT DO NOTHING",
            )
            .bind(&new.as_bytes()[..])
            .execute(&mut *transaction)
            .await?;
            let secret = sqlx::query_scalar("SELECT secret FROM token_secrets WHERE number = 1")
                .fetch_one(&mut *transaction)
                .await?;
            transaction.commit().await?;
            sql::token_secret(secret)
        })
        .await
    }
}

/// Counts an upload of a token, if the token limits their number. Returns false, and counts
/// nothing, if the token has sent as many uploads as it may. Removes counts of other tokens that
/// have ended.
pub(super) async fn count(
    connection: &mut SqliteConnection,
    token: &TokenLimits,
) -> sqlx::Result<bool> {
    let Some(most) = token.max_uploads else {
        return Ok(true);
    };
    let counted = sqlx::query(
        "INSERT INTO token_uses (token_id, uploads, expires_at) VALUES ($1, 1, $2)
         ON CONFLICT (token_id) DO UPDATE SET uploads = uploads + 1 WHERE uploads < $3",
    )
    .bind(token.id.as_str())
    .bind(time_text(token.expires_at))
    .bind(signed(most))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "DELETE FROM token_uses WHERE token_id IN (
             SELECT token_id FROM token_uses WHERE expires_at < $1 AND token_id <> $3
             ORDER BY expires_at LIMIT $2)",
    )
    .bind(ago(KEPT))
    .bind(TOKEN_COUNTS_REMOVED_AT_ONCE)
    .bind(token.id.as_str())
    .execute(connection)
    .await?;
    Ok(counted.rows_affected() > 0)
}
