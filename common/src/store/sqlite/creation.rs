//! Creates an upload if its conditions hold, in one transaction.

use super::idempotency::{Holder, holder, take};
use super::uploads::create_in;
use super::{quotas, tokens};
use crate::sqlite::Database;
use crate::store::{CreateConditions, CreateOutcome, NewUpload};

/// Returns `None` if the dataset does not take the upload. All conditions are read before anything
/// is written. Nothing changes in between, because SQLite has one writer.
pub(super) async fn create_if(
    database: &Database,
    upload: &NewUpload,
    conditions: CreateConditions<'_>,
) -> sqlx::Result<Option<CreateOutcome>> {
    let mut transaction = database.begin().await?;
    if let Some(slots) = conditions.slots
        && !quotas::has_slot(&mut transaction, &upload.tenant, slots).await?
    {
        transaction.commit().await?;
        return Ok(Some(CreateOutcome::NoSlot));
    }
    let holder = match conditions.request {
        Some(request) => holder(&mut transaction, &request.key).await?,
        None => Holder::None,
    };
    // The token has counted the upload that failed: it is of the same sender.
    let token = conditions.token.filter(|_| holder != Holder::Failed);
    let unmet = match token {
        _ if holder == Holder::Request => Some(CreateOutcome::KeyTaken),
        Some(token) if tokens::is_used_up(&mut transaction, token).await? => {
            Some(CreateOutcome::TokenUsedUp)
        }
        _ => None,
    };
    if let Some(unmet) = unmet {
        transaction.commit().await?;
        return Ok(Some(unmet));
    }
    let Some((created, written)) = create_in(&mut transaction, upload).await? else {
        transaction.commit().await?;
        return Ok(None);
    };
    if let Some(request) = conditions.request {
        take(&mut transaction, request, Some(created.id), None).await?;
    }
    if let Some(token) = token {
        tokens::count(&mut transaction, token).await?;
    }
    transaction.commit().await?;
    written.log();
    Ok(Some(CreateOutcome::Created(Box::new(created))))
}
