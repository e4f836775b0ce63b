//! A previous version that runs beside this one during an upgrade.

use anyhow::{Result, ensure};
use carga_common::store::{BatchStore, StoreOutcome, UploadStore};
use carga_common::upload::{Failure, Status, UploadId};
use carga_testkit::Scope;

use super::{begin, declare, good};

/// Fails an upload as a previous version does. Returns whether it has.
async fn fail_as_before(scope: &Scope, id: UploadId, code: &str) -> Result<bool> {
    const FAIL: &str = "UPDATE uploads
        SET status = 'failed', failure = jsonb_build_object('code', $2::text, 'message', 'a message'),
            cleanup_pending = true, rows_rejected = 1, updated_at = now(), finished_at = now()
        WHERE id = $1";
    let failed = sqlx::query(FAIL)
        .bind(id.as_uuid())
        .bind(code)
        .execute(&scope.pool())
        .await?;
    Ok(failed.rows_affected() == 1)
}

/// To a previous version, the rows of an upload with violating rows do not add up.
#[tokio::test]
async fn a_previous_version_cannot_fail_an_upload_because_of_violating_rows() -> Result<()> {
    const SQL: &str = "ALTER TABLE datasets.prices ALTER COLUMN sku SET NOT NULL";
    let scope = Scope::new().await?;
    let prices = declare(&scope, SQL).await?;
    let mut rows = [good(1), good(2)];
    rows[1][0] = None;
    let (mismatched, lost) = (begin(&prices, &rows).await?, begin(&prices, &rows).await?);
    for archived in [&mismatched, &lost] {
        let outcome = prices.store(std::slice::from_ref(archived)).await?;
        ensure!(outcome == [StoreOutcome::Stored { rejected: 1 }]);
    }

    let key = mismatched.batch.id.upload;
    let refused = fail_as_before(&scope, key.id, "accounting_mismatch").await;
    ensure!(
        refused
            .as_ref()
            .is_err_and(|error| error.to_string().contains("violate constraints")),
        "{refused:?}"
    );
    let other = lost.batch.id.upload.id;
    ensure!(fail_as_before(&scope, other, "interrupted").await?);

    let failure = Failure::new("accounting_mismatch", "a message");
    ensure!(prices.fail(key, &failure, None).await?);
    let upload = prices.upload(key.id).await?;
    ensure!(
        upload
            .as_ref()
            .is_some_and(|upload| upload.status == Status::Failed),
        "{upload:?}"
    );
    scope.close().await
}
