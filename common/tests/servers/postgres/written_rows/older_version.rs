//! A previous version that runs beside this one during an upgrade, and does not know tables of
//! the user.

use anyhow::{Result, ensure};
use carga_common::dataset::Mode;
use carga_common::store::{Completed, CompletionStore, UploadStore};
use carga_common::upload::{Failure, Status, UploadId};

use super::{Shop, rows};

/// Runs a statement with the id of an upload. Returns the message of the error.
async fn refusal(shop: &Shop, statement: &str, id: UploadId) -> Result<String> {
    let refused = sqlx::query(statement)
        .bind(id.as_uuid())
        .execute(&shop.scope.pool())
        .await;
    match refused {
        Ok(_) => anyhow::bail!("the statement is not refused: {statement}"),
        Err(error) => Ok(error.to_string()),
    }
}

#[tokio::test]
async fn a_previous_version_can_neither_complete_nor_undo_an_upload_into_a_table_of_the_user()
-> Result<()> {
    const COMPLETE: &str = "UPDATE uploads
        SET status = 'completed', rows_inserted = 1, rows_updated = 0, rows_duplicate = 0 WHERE id = $1";
    const UNDO: &str = "UPDATE uploads
        SET status = 'undone', epoch = epoch + 1, undone = '{}' WHERE id = $1";
    let shop = Shop::simple().await?;
    let key = shop.stage(Mode::Append, &rows(&[["a", "1"]])).await?;
    let refused = refusal(&shop, COMPLETE, key.id).await?;
    ensure!(refused.contains("goes into table shop.prices"), "{refused}");
    ensure!(shop.store.complete(key, 0).await? == Completed::Yes);
    let upload = shop.find(key.id).await?;
    let refused = refusal(&shop, UNDO, key.id).await?;
    ensure!(refused.contains("goes into table shop.prices"), "{refused}");
    shop.undo(&upload, [1, 0, 0]).await?;
    shop.close().await
}

/// It would merge the rows into the table of the dataset's name, which is missing.
#[tokio::test]
async fn only_this_version_fails_the_merge_of_an_upload_into_a_table_of_the_user() -> Result<()> {
    const FAIL: &str = r#"UPDATE uploads
        SET status = 'failed', failure = '{"code": "merge_failed", "message": "no table"}' WHERE id = $1"#;
    let shop = Shop::simple().await?;
    let key = shop.stage(Mode::Append, &rows(&[["a", "1"]])).await?;
    let refused = refusal(&shop, FAIL, key.id).await?;
    ensure!(refused.contains("goes into table shop.prices"), "{refused}");
    ensure!(shop.find(key.id).await?.status == Status::Processing);
    let failure = Failure::new("merge_failed", "the table of the user is missing");
    ensure!(shop.store.fail(key, &failure, None).await?);
    shop.close().await
}

#[tokio::test]
async fn a_previous_version_cannot_create_an_upload_into_a_table_of_the_user() -> Result<()> {
    const CREATE: &str = r#"INSERT INTO uploads (id, status, dialect, columns, dataset)
        VALUES ($1, 'receiving', '{}', '{sku}', '{"name": "prices", "merge": null}')"#;
    let shop = Shop::simple().await?;
    let refused = refusal(&shop, CREATE, UploadId::generate()).await?;
    ensure!(refused.contains("does not write into"), "{refused}");
    shop.execute("UPDATE datasets SET definition = definition || '{\"table\": null}'")
        .await?;
    let created = sqlx::query(CREATE).bind(UploadId::generate().as_uuid());
    created.execute(&shop.scope.pool()).await?;
    shop.close().await
}
