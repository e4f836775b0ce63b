//! The secret of tokens, and the counts of their uploads.

use async_trait::async_trait;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;

use super::PostgresStore;
use super::connections::SHORT;
use crate::access::{TokenLimits, TokenSecret};
use crate::error::PortResult;
use crate::store::TokenStore;
use crate::store::sql::{self, TOKEN_COUNTS_REMOVED_AT_ONCE, signed};

#[async_trait]
impl TokenStore for PostgresStore {
    async fn token_secret(&self, new: &TokenSecret) -> PortResult<TokenSecret> {
        self.call("store.token_secret", SHORT, async |connection| {
            // Waits for another process that is inserting its own secret.
            sqlx::query(
                "INSERT INTO token_secrets (number, secret) VALUES (1, $1) ON CONFLICT DO NOTHING",
            )
            .bind(&new.as_bytes()[..])
            .execute(&mut *connection)
            .await?;
            let secret = sqlx::query_scalar("SELECT secret FROM token_secrets WHERE number = 1")
                .fetch_one(connection)
                .await?;
            sql::token_secret(secret)
        })
        .await
    }
}

/// Counts an upload of a token in a transaction. Returns false, and counts nothing, if the token
/// has sent as many uploads as it may. Waits for other transactions that count an upload of this
/// token.
pub(super) async fn count(
    connection: &mut PgConnection,
    token: &TokenLimits,
) -> sqlx::Result<bool> {
    let Some(most) = token.max_uploads else {
        return Ok(true);
    };
    let counted = sqlx::query(
        "INSERT INTO token_uses AS used (token_id, uploads, expires_at) VALUES ($1, 1, $2)
         ON CONFLICT (token_id) DO UPDATE SET uploads = used.uploads + 1
         WHERE used.uploads < $3",
    )
    .bind(token.id.as_str())
    .bind(Timestamp::to_sqlx(token.expires_at))
    .bind(signed(most))
    .execute(&mut *connection)
    .await?;
    // Last, so that this transaction waits for nothing while it holds the rows of other tokens.
    remove_ended(connection, token).await?;
    Ok(counted.rows_affected() > 0)
}

/// Removes counts of other tokens that have ended. The hour is for clocks that differ: a count must
/// not be removed while an API still accepts its token.
async fn remove_ended(connection: &mut PgConnection, counted: &TokenLimits) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM token_uses WHERE token_id IN (
             SELECT token_id FROM token_uses
             WHERE expires_at < now() - interval '1 hour' AND token_id <> $2
             ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
    )
    .bind(TOKEN_COUNTS_REMOVED_AT_ONCE)
    .bind(counted.id.as_str())
    .execute(connection)
    .await?;
    Ok(())
}
