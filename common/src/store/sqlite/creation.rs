//! Creates an upload if its conditions hold, in one transaction.

use sqlx::SqliteConnection;

use super::idempotency::{Holder, holder, take};
use super::uploads::create_in;
use super::{quotas, tokens};
use crate::sqlite::Database;
use crate::store::{CreateConditions, CreateOutcome, NewUpload};
use crate::upload::UploadId;

/// Returns `None` if the dataset does not take the upload.
pub(super) async fn create_if(
    database: &Database,
    upload: &NewUpload,
    conditions: CreateConditions<'_>,
) -> sqlx::Result<Option<CreateOutcome>> {
    let mut transaction = database.begin().await?;
    if let Some(slots) = conditions.slots
        && !quotas::has_slot(&mut transaction, &upload.tenant, slots).await?
    {
        transaction.rollback().await?;
        return Ok(Some(CreateOutcome::NoSlot));
    }
    // The upload comes first, as on Postgres. So an upload that cannot be created gets the same
    // error with both, also if its token is used up.
    let Some((created, written)) = create_in(&mut transaction, upload).await? else {
        transaction.rollback().await?;
        return Ok(None);
    };
    if let Some(unmet) = unmet(&mut transaction, created.id, conditions).await? {
        transaction.rollback().await?;
        return Ok(Some(unmet));
    }
    transaction.commit().await?;
    written.log();
    Ok(Some(CreateOutcome::Created(Box::new(created))))
}

/// Takes the key of the request and then counts the upload. Nobody else changes either in between,
/// because SQLite has one writer.
async fn unmet(
    connection: &mut SqliteConnection,
    id: UploadId,
    conditions: CreateConditions<'_>,
) -> sqlx::Result<Option<CreateOutcome>> {
    let holder = match conditions.request {
        Some(request) => {
            let holder = holder(connection, request).await?;
            if holder == Holder::Request {
                return Ok(Some(CreateOutcome::KeyTaken));
            }
            take(connection, request, Some(id), None).await?;
            holder
        }
        None => Holder::None,
    };
    match conditions.token {
        Some(token) if holder != Holder::FailedAttempt => {
            let is_counted = tokens::count(connection, token).await?;
            Ok((!is_counted).then_some(CreateOutcome::TokenUsedUp))
        }
        // The token has counted the first attempt of this request.
        Some(_) | None => Ok(None),
    }
}
