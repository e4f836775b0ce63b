//! Events, while the transaction of a change takes its time.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::store::{EventQuery, EventStore, ListedEvent, PostgresStore, UploadStore};
use carga_common::upload::UploadId;
use carga_testkit::Scope;
use sqlx::{PgPool, Postgres, Transaction};

use super::{connect, new_upload};

fn behind(after: u64) -> EventQuery {
    EventQuery {
        tenant: Default::default(),
        created_by: None,
        after,
        limit: 10,
    }
}

fn uploads(listed: &[ListedEvent]) -> Vec<UploadId> {
    listed.iter().map(|listed| listed.event.upload).collect()
}

/// Creates an upload as any program does, in a transaction that stays open.
async fn begin_slowly(pool: &PgPool) -> Result<(UploadId, Transaction<'static, Postgres>)> {
    let id = UploadId::generate();
    let mut slow = pool.begin().await?;
    sqlx::query(
        "INSERT INTO uploads (id, status, dialect, columns) VALUES ($1, 'receiving', '{}', '{a}')",
    )
    .bind(id.as_uuid())
    .execute(&mut *slow)
    .await?;
    Ok((id, slow))
}

async fn begin(store: &PostgresStore) -> Result<UploadId> {
    Ok(store.create(&new_upload()).await?.id)
}

/// The slow event has the smaller number. A reader that went on after the greatest number would
/// never see it.
#[tokio::test]
async fn an_event_that_commits_late_is_on_a_later_page() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(scope.database_url()).await?;
    let (slow, transaction) = begin_slowly(&pool).await?;
    let fast = begin(&store).await?;
    let page = store.events(&behind(0)).await?;
    ensure!(uploads(&page) == [fast], "{page:?}");
    let after = page[0].position;
    ensure!(store.events(&behind(after)).await?.is_empty());
    transaction.commit().await?;
    let page = store.events(&behind(after)).await?;
    ensure!(uploads(&page) == [slow], "{page:?}");
    scope.close().await
}

/// The event belongs to the transaction of its change.
#[tokio::test]
async fn the_event_of_a_change_that_is_rolled_back_does_not_exist() -> Result<()> {
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    let (_, transaction) = begin_slowly(&scope.pool()).await?;
    transaction.rollback().await?;
    ensure!(store.events(&behind(0)).await?.is_empty());
    ensure!(
        store
            .claim_events(10, Duration::from_secs(60))
            .await?
            .is_empty()
    );
    scope.close().await
}

/// A claim never waits, so a worker that holds an event does not hold up the others.
#[tokio::test]
async fn a_claim_skips_events_that_another_transaction_has_locked() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(scope.database_url()).await?;
    let (locked, free) = (begin(&store).await?, begin(&store).await?);
    ensure!(
        store
            .cancel(carga_common::upload::UploadKey::first(locked))
            .await?
    );
    let mut other = pool.begin().await?;
    let lock =
        "SELECT FROM upload_events WHERE upload_id = $1 AND type = 'upload.receiving' FOR UPDATE";
    sqlx::query(lock)
        .bind(locked.as_uuid())
        .execute(&mut *other)
        .await?;
    let lease = Duration::from_secs(60);
    let claimed = store.claim_events(10, lease).await?;
    let found: Vec<UploadId> = claimed.iter().map(|claimed| claimed.event.upload).collect();
    ensure!(found == [free], "{claimed:?}");
    other.rollback().await?;
    let claimed = store.claim_events(10, lease).await?;
    let found: Vec<&str> = claimed
        .iter()
        .map(|claimed| claimed.event.kind.as_str())
        .collect();
    ensure!(found == ["upload.receiving"], "{claimed:?}");
    scope.close().await
}

/// More events than one transaction places.
#[tokio::test]
async fn a_list_places_all_events_that_wait() -> Result<()> {
    const UPLOADS: i64 = 5000;
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    sqlx::query(
        "INSERT INTO uploads (id, status, dialect, columns)
         SELECT gen_random_uuid(), 'receiving', '{}', '{a}' FROM generate_series(1, $1)",
    )
    .bind(UPLOADS)
    .execute(&scope.pool())
    .await?;
    let page = store.events(&behind(UPLOADS as u64 - 3)).await?;
    let positions: Vec<u64> = page.iter().map(|listed| listed.position).collect();
    ensure!(positions == [4998, 4999, 5000], "{positions:?}");
    scope.close().await
}
