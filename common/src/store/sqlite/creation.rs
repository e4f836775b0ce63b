//! Creates uploads, each in one transaction.

use sqlx::SqliteConnection;
use sqlx::types::Json;

use super::idempotency::{Holder, holder, take};
use super::upload_record::find_in;
use super::{audit, datasets, now, quotas, tokens};
use crate::audit::{Action, Written};
use crate::sqlite::Database;
use crate::store::sql::signed;
use crate::store::{CreateConditions, CreateOutcome, NewUpload};
use crate::upload::{Upload, UploadId};

/// Creates an upload if its conditions hold. Returns `None` if the dataset does not take it.
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

/// Creates an upload in a write transaction. Returns `None` if the dataset of the upload is
/// missing, is that of another tenant, or has other columns. The caller logs the entry of the audit
/// log after the commit.
async fn create_in(
    connection: &mut SqliteConnection,
    upload: &NewUpload,
) -> sqlx::Result<Option<(Upload, Written)>> {
    if let Some(dataset) = &upload.dataset
        && (dataset.tenant != upload.tenant || !datasets::takes_rows(connection, dataset).await?)
    {
        return Ok(None);
    }
    let now = now();
    let id = insert(connection, upload, &now).await?;
    sqlx::query("INSERT INTO upload_leases (upload_id, renewed_at) VALUES ($1, $2)")
        .bind(id.to_string())
        .bind(&now)
        .execute(&mut *connection)
        .await?;
    let Some(created) = find_in(connection, id).await? else {
        return Ok(None);
    };
    let (tenant, object) = (&upload.tenant, upload.id.to_string());
    let written = audit::record(connection, tenant, Action::CreateUpload, &object).await?;
    Ok(Some((created, written)))
}

/// Inserts an upload under its public id, or under a new id if an upload has this id. The unique
/// index on the tenant and the public id refuses an id that the tenant has used. Returns the id.
async fn insert(
    connection: &mut SqliteConnection,
    upload: &NewUpload,
    now: &str,
) -> sqlx::Result<UploadId> {
    let is_used: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM uploads WHERE id = $1)")
        .bind(upload.id.to_string())
        .fetch_one(&mut *connection)
        .await?;
    let (id, public_id) = match is_used {
        false => (upload.id, None),
        true => (UploadId::generate(), Some(upload.id.to_string())),
    };
    // Uploads are never deleted, so no number is used twice.
    sqlx::query(
        "INSERT INTO uploads (id, number, status, filename, dialect, columns, dataset, bytes_total, created_at, updated_at,
                              public_id, tenant, created_by)
         VALUES ($1, (SELECT coalesce(max(number), 0) + 1 FROM uploads), 'receiving', $2, $3, $4, $5, $6, $7, $7, $8, $9, $10)",
    )
    .bind(id.to_string())
    .bind(&upload.filename)
    .bind(Json(&upload.dialect))
    .bind(Json(&upload.columns))
    .bind(upload.dataset.as_ref().map(Json))
    .bind(upload.bytes_total.map(signed))
    .bind(now)
    .bind(public_id)
    .bind(upload.tenant.as_str())
    .bind(&upload.created_by)
    .execute(connection)
    .await?;
    Ok(id)
}
