//! Creates uploads, each in one transaction.

use sqlx::types::Json;
use sqlx::{Connection, PgConnection};

use super::idempotency::{Taken, take};
use super::upload_record::find;
use super::{audit, datasets, quotas, tokens};
use crate::audit::{Action, Written};
use crate::store::sql::signed;
use crate::store::{CreateConditions, CreateOutcome, NewUpload};
use crate::upload::{Upload, UploadId};

/// Creates an upload if its conditions hold. Returns `None` if the dataset does not take it.
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
        // A mere drop would keep the rows locked for longer, and other requests wait for them.
        transaction.rollback().await?;
        return Ok(Some(unmet));
    }
    transaction.commit().await?;
    written.log();
    Ok(Some(CreateOutcome::Created(Box::new(created))))
}

/// Takes the key of the request and then counts the upload. In this order, a repeated request waits
/// for the first one's key, and is not refused because the first one has used the token up.
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

/// Whether the dataset of an upload is there until the end of the transaction. Returns false if it
/// is missing, is that of another tenant, or has other columns. This may wait for a change of the
/// dataset, so the transaction must hold no lock for which others wait.
async fn has_dataset(connection: &mut PgConnection, upload: &NewUpload) -> sqlx::Result<bool> {
    match &upload.dataset {
        Some(dataset) if dataset.tenant != upload.tenant => Ok(false),
        Some(dataset) => datasets::share(connection, dataset).await,
        None => Ok(true),
    }
}

/// Creates an upload in a transaction, after [`has_dataset`]. The caller logs the entry of the
/// audit log after the commit.
async fn create_in(
    connection: &mut PgConnection,
    upload: &NewUpload,
) -> sqlx::Result<Option<(Upload, Written)>> {
    let id = insert(connection, upload).await?;
    sqlx::query("INSERT INTO upload_leases (upload_id) VALUES ($1)")
        .bind(id.as_uuid())
        .execute(&mut *connection)
        .await?;
    let Some(created) = find(connection, id).await? else {
        return Ok(None);
    };
    let (tenant, object) = (&upload.tenant, upload.id.to_string());
    let written = audit::record(connection, tenant, Action::CreateUpload, &object).await?;
    Ok(Some((created, written)))
}

/// Inserts an upload. `$1` and `$2`: the id, and the public id if it is another one.
///
/// If another transaction is inserting the same id, this statement waits for the end of that one.
/// The unique index on the tenant and the public id refuses an id that the tenant has used.
const INSERT: &str = "INSERT INTO uploads
        (id, public_id, tenant, created_by, status, filename, dialect, columns, bytes_total, dataset)
    VALUES ($1, $2, $3, $4, 'receiving', $5, $6, $7, $8, $9)
    ON CONFLICT (id) DO NOTHING";

/// Inserts an upload under its public id. If an upload has this id, inserts it under a new id,
/// which fails if that upload is of the same tenant. Returns the id.
async fn insert(connection: &mut PgConnection, upload: &NewUpload) -> sqlx::Result<UploadId> {
    for (id, public_id) in [
        (upload.id, None),
        (UploadId::generate(), Some(upload.id.as_uuid())),
    ] {
        let inserted = sqlx::query(INSERT)
            .bind(id.as_uuid())
            .bind(public_id)
            .bind(upload.tenant.as_str())
            .bind(&upload.created_by)
            .bind(&upload.filename)
            .bind(Json(&upload.dialect))
            .bind(&upload.columns)
            .bind(upload.bytes_total.map(signed))
            .bind(upload.dataset.as_ref().map(Json))
            .execute(&mut *connection)
            .await?;
        if inserted.rows_affected() > 0 {
            return Ok(id);
        }
    }
    Err(sqlx::Error::RowNotFound)
}
