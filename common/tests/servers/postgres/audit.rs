//! The audit log, while the transaction of a change takes its time.

use std::time::Duration;

use anyhow::{Result, ensure};
use carga_common::audit::{Action, Actor, AuditEntry, acting_as};
use carga_common::error::{ErrorKind, PortResult};
use carga_common::store::{AuditStore, PostgresStore};
use carga_testkit::{Scope, eventually};
use sqlx::{PgPool, Postgres, Transaction};

use super::connect;

/// Long enough for a debug build on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Lets the commit of a change of the object `slow` wait for the lock 1.
const SLOW_COMMIT: [&str; 2] = [
    "CREATE FUNCTION wait_before_commit() RETURNS trigger LANGUAGE plpgsql AS
     $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$",
    "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON audit_log
     DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.object = 'slow')
     EXECUTE FUNCTION wait_before_commit()",
];

/// How many sessions wait for an advisory lock.
async fn waiting(pool: &PgPool) -> Result<i64> {
    let sql = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
               WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()";
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}

async fn change(store: PostgresStore, object: &'static str) -> PortResult<()> {
    let tenant = Default::default();
    let recorded = store.record_audit(&tenant, Action::ChangeLog, object);
    acting_as(Actor::nobody(), recorded).await
}

/// A change that has its entry and is not committed until `ending` ends.
struct SlowChange {
    ending: Transaction<'static, Postgres>,
    changing: tokio::task::JoinHandle<PortResult<()>>,
}

impl SlowChange {
    async fn begin(pool: &PgPool, store: &PostgresStore) -> Result<Self> {
        for statement in SLOW_COMMIT {
            sqlx::query(statement).execute(pool).await?;
        }
        let mut ending = pool.begin().await?;
        let lock = sqlx::query("SELECT pg_advisory_xact_lock(1)");
        lock.execute(&mut *ending).await?;
        let changing = tokio::spawn(change(store.clone(), "slow"));
        eventually(TIMEOUT, "the commit to wait", async || {
            waiting(pool).await.is_ok_and(|waiting| waiting == 1)
        })
        .await?;
        Ok(Self { ending, changing })
    }

    async fn end(self) -> Result<()> {
        self.ending.rollback().await?;
        Ok(self.changing.await??)
    }
}

fn objects(entries: &[AuditEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.object.as_str()).collect()
}

/// Without the wait, the list would show the younger entry alone, and a reader would go on after
/// it.
#[tokio::test]
async fn a_list_waits_for_changes_that_have_smaller_ids() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(scope.database_url()).await?;
    let slow = SlowChange::begin(&pool, &store).await?;
    change(connect(scope.database_url()).await?, "fast").await?;
    let reader = connect(scope.database_url()).await?;
    let listing = tokio::spawn(async move { reader.audit_entries(None, 0, 10).await });
    // A list that does not wait has ended by then, with the younger entry only.
    eventually(TIMEOUT, "the list to wait", async || {
        listing.is_finished() || waiting(&pool).await.is_ok_and(|waiting| waiting == 2)
    })
    .await?;
    slow.end().await?;
    let listed = listing.await??;
    ensure!(objects(&listed) == ["slow", "fast"], "{listed:?}");
    scope.close().await
}

/// Changes wait behind a list, so a list gives up soon.
#[tokio::test]
async fn a_list_that_waits_for_long_is_unavailable_and_holds_up_no_change() -> Result<()> {
    let scope = Scope::new().await?;
    let pool = scope.pool();
    let store = connect(scope.database_url()).await?;
    let slow = SlowChange::begin(&pool, &store).await?;
    let listed = store.audit_entries(None, 0, 10).await;
    let is_unavailable = |kind| kind == ErrorKind::Unavailable;
    ensure!(
        listed
            .as_ref()
            .is_err_and(|error| is_unavailable(error.kind())),
        "{listed:?}"
    );
    change(store.clone(), "fast").await?;
    slow.end().await?;
    let listed = store.audit_entries(None, 0, 10).await?;
    ensure!(objects(&listed) == ["slow", "fast"], "{listed:?}");
    scope.close().await
}
