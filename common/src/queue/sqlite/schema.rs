//! The queue's tables, and the changes that bring the file of an older build up to date.

use std::path::Path;

use sqlx::Executor;

use super::super::SUSPECT_AFTER;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::sqlite::{Database, port_error};

/// The tables of the first builds. Every statement is idempotent, because these builds left
/// `user_version` at zero.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS messages (
    id           integer PRIMARY KEY AUTOINCREMENT,
    dead         integer NOT NULL DEFAULT 0,
    -- Milliseconds since 1970. A retry is available after its tier's delay.
    available_at integer NOT NULL,
    upload_id    text NOT NULL,
    epoch        integer NOT NULL,
    seq          integer NOT NULL,
    attempt      integer NOT NULL DEFAULT 1,
    -- Deliveries since the publish, the last retry or the last postponement.
    deliveries   integer NOT NULL DEFAULT 0,
    -- Deliveries that were neither settled nor released.
    unsettled    integer NOT NULL DEFAULT 0,
    reason       text,
    holder       text,
    lease        integer NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS dead_messages ON messages (id) WHERE dead = 1;
CREATE TABLE IF NOT EXISTS bodies (
    id   integer PRIMARY KEY,
    body blob NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS holders (
    id         text PRIMARY KEY,
    expires_at integer NOT NULL
) STRICT;
";

/// Version 1. A message without an installation is from an older build. Older builds allowed 20
/// unsettled deliveries. The update lowers such counts, so that each suspect still has all
/// deliveries of a suspect. The index keeps the search for suspects short in a long queue.
const VERSION_1: &str = "
ALTER TABLE messages ADD COLUMN postponed integer NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN installation text;
UPDATE messages SET unsettled = 5 WHERE unsettled > 5;
CREATE INDEX suspect_messages ON messages (id) WHERE dead = 0 AND unsettled >= 5;
PRAGMA user_version = 1;
";

const VERSION: i64 = 1;

// SQLite uses a partial index only for a literal, so the statements repeat the number.
const _: () = assert!(SUSPECT_AFTER == 5);

/// Creates the tables, or brings those of an older build up to date. Fails if the file is from a
/// newer build.
pub(super) async fn update(
    operation: &'static str,
    database: &Database,
    file: &Path,
) -> PortResult<()> {
    let version = update_from(database).await;
    let version = version.map_err(|error| port_error(operation, error))?;
    if version > VERSION {
        let reason = format!(
            "{} has version {version}, this build knows {VERSION}; start the newer build",
            file.display()
        );
        return Err(PortError::new(ErrorKind::Misconfigured, operation, reason));
    }
    Ok(())
}

/// Makes all changes in one transaction, and returns the version that the file had before. Several
/// processes may open the file at once.
async fn update_from(database: &Database) -> sqlx::Result<i64> {
    let mut transaction = database.begin().await?;
    let version: i64 = sqlx::query_scalar("SELECT user_version FROM pragma_user_version")
        .fetch_one(&mut *transaction)
        .await?;
    if version < VERSION {
        for statements in [TABLES, VERSION_1] {
            Executor::execute(&mut *transaction, statements).await?;
        }
    }
    transaction.commit().await?;
    Ok(version)
}
