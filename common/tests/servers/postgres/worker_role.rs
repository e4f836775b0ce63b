//! A worker with the role in the documentation can do its work, and cannot read a secret.

use anyhow::{Context, Result, ensure};
use carga_common::access::TokenSecret;
use carga_common::batch::{BatchEncoder, BatchLimits};
use carga_common::error::{ErrorKind, PortResult};
use carga_common::store::{
    BatchStore, Completed, CompletionStore, IdempotencyStore, KeyStore, MaintenanceStore,
    PostgresSettings, PostgresStore, StoreOutcome, TokenStore, UploadStore,
};
use carga_common::upload::UploadId;
use carga_testkit::Scope;

use super::staging::{archived, seal};
use super::{connect, new_upload, settings};

const OPERATIONS: &str = include_str!("../../../../docs/operations.md");

/// The statements of the documentation, in which the role is `worker`.
const STATEMENTS: [&str; 2] = [
    "REVOKE ALL ON token_secrets, token_uses, api_keys, idempotency_keys FROM worker;",
    "GRANT SELECT, DELETE, UPDATE (created_at) ON idempotency_keys TO worker;",
];

fn is_refused<T>(outcome: PortResult<T>) -> bool {
    outcome.is_err_and(|error| error.kind() == ErrorKind::Misconfigured)
}

/// Stores and completes an upload with the role of the workers.
async fn store_rows(owner: &PostgresStore, worker: &PostgresStore) -> Result<()> {
    worker.extend_landing().await?;
    let upload = owner.create(&new_upload()).await?.key();
    let limits = BatchLimits {
        rows: 70,
        bytes: 4 << 20,
    };
    let mut encoder = BatchEncoder::new(upload, &["a".to_owned()], "00-trace", limits);
    encoder.push(1, std::iter::once("x"))?;
    let message = encoder.finish().0.context("no batch")?;
    let stored = worker.store(&[archived(message)?]).await?;
    ensure!(
        stored == [StoreOutcome::Stored { rejected: 0 }],
        "{stored:?}"
    );
    seal(worker, upload, 1, 1).await?;
    let completed = worker.complete(upload, 0).await?;
    ensure!(completed == Completed::Yes, "{completed:?}");
    Ok(())
}

/// Fails if the role has a privilege with which it could read a secret, or make a key or a token.
async fn check_privileges(scope: &Scope, role: &str) -> Result<()> {
    let mut expected = vec![
        ("uploads", "UPDATE", true),
        ("idempotency_keys", "INSERT", false),
    ];
    for table in ["token_secrets", "token_uses", "api_keys"] {
        for privilege in ["SELECT", "INSERT", "UPDATE"] {
            expected.push((table, privilege, false));
        }
    }
    for (table, privilege, expected) in expected {
        let found: bool = sqlx::query_scalar("SELECT has_table_privilege($1, $2, $3)")
            .bind(role)
            .bind(table)
            .bind(privilege)
            .fetch_one(&scope.pool())
            .await?;
        ensure!(found == expected, "{privilege} on {table}: {found}");
    }
    Ok(())
}

/// Gives the role the documented privileges, and does with it what a worker does.
async fn check(scope: &Scope, role: &str) -> Result<()> {
    let owner = connect(scope.database_url()).await?;
    let secret = owner.token_secret(&TokenSecret::generate()?).await?;
    let mut statements = vec![
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"),
        "INSERT INTO idempotency_keys (tenant, route, sender, key, fingerprint, answer, created_at)
         VALUES ('default', 'POST /keys', '-', 'k', '\\x00', '{}', now() - interval '2 days')"
            .to_owned(),
    ];
    for statement in STATEMENTS {
        ensure!(OPERATIONS.contains(statement), "{statement}");
        statements.push(statement.replace("worker", role));
    }
    for statement in statements {
        sqlx::query(&statement).execute(&scope.pool()).await?;
    }
    check_privileges(scope, role).await?;
    let (_, server) = scope.database_url().split_once('@').unwrap_or_default();
    let settings = PostgresSettings {
        migrate: false,
        ..settings(&format!("postgres://{role}:carga@{server}"))
    };
    let worker = PostgresStore::connect(settings).await?;
    ensure!(is_refused(worker.token_secret(&secret).await));
    ensure!(is_refused(worker.keys(None, None, 1).await));
    ensure!(worker.forget_requests().await? == 1);
    store_rows(&owner, &worker).await
}

#[tokio::test]
async fn the_documented_role_of_workers_does_their_work_and_reads_no_secret() -> Result<()> {
    let scope = Scope::new().await?;
    let role = format!("role_{}", UploadId::generate().as_uuid().simple());
    let create = format!("CREATE ROLE {role} LOGIN PASSWORD 'carga'");
    sqlx::query(&create).execute(&scope.pool()).await?;
    let checked = check(&scope, &role).await;
    // Also after a failure, because all databases of the server share their roles.
    for statement in [format!("DROP OWNED BY {role}"), format!("DROP ROLE {role}")] {
        sqlx::query(&statement).execute(&scope.pool()).await?;
    }
    checked?;
    scope.close().await
}
