//! Creates an upload if its conditions hold, in one transaction.

use sqlx::{Connection, PgConnection};

use super::idempotency::{Taken, take};
use super::uploads::{create_in, has_dataset};
use super::{quotas, tokens};
use crate::store::{CreateConditions, CreateOutcome, NewUpload};
use crate::upload::UploadId;

/// Returns `None` if the dataset does not take the upload.
pub(super) async fn create_if(
    connection: &mut PgConnection,
    upload: &NewUpload,
    conditions: CreateConditions<'_>,
) -> sqlx::Result<Option<CreateOutcome>> {
    let mut transaction = connection.begin().await?;
    // Before the lock of the slots, because a change of the dataset may take seconds. Other uploads
    // of the tenant do not wait for it.
    if !has_dataset(&mut transaction, upload).await? {
        return Ok(None);
    }
    if let Some(slots) = conditions.slots
        && !quotas::has_slot(&mut transaction, &upload.tenant, slots).await?
    {
        transaction.rollback().await?;
        return Ok(Some(CreateOutcome::NoSlot));
    }
    // The upload comes first, because it may get another id than the one in `upload`.
    let Some((created, written)) = create_in(&mut transaction, upload).await? else {
        return Ok(None);
    };
    if let Some(unmet) = unmet(&mut transaction, created.id, conditions).await? {
        // Not left to the drop, because other requests wait for the rows that are locked.
        transaction.rollback().await?;
        return Ok(Some(unmet));
    }
    transaction.commit().await?;
    written.log();
    Ok(Some(CreateOutcome::Created(Box::new(created))))
}

/// Takes the key of the request and then counts the upload. A request that waits for the key of
/// another one is therefore not refused because that one has used the token up.
async fn unmet(
    connection: &mut PgConnection,
    id: UploadId,
    conditions: CreateConditions<'_>,
) -> sqlx::Result<Option<CreateOutcome>> {
    let taken = match conditions.request {
        Some(request) => take(connection, request, Some(id), None).await?,
        None => Taken::Free,
    };
    match (taken, conditions.token) {
        (Taken::No, _) => Ok(Some(CreateOutcome::KeyTaken)),
        // The token has counted the first attempt of this request.
        (Taken::Again, _) | (Taken::Free, None) => Ok(None),
        (Taken::Free, Some(token)) => {
            let is_counted = tokens::count(connection, token).await?;
            Ok((!is_counted).then_some(CreateOutcome::TokenUsedUp))
        }
    }
}
