//! A role for workers needs no secret.

use anyhow::{Result, ensure};
use carga_common::access::TokenSecret;
use carga_common::error::{ErrorKind, PortResult};
use carga_common::store::{
    IdempotencyStore, KeyStore, PostgresSettings, PostgresStore, TokenStore,
};
use carga_common::upload::UploadId;
use carga_testkit::Scope;

use super::{connect, settings};

const OPERATIONS: &str = include_str!("../../../../docs/operations.md");

/// The statements of the documentation, in which the role is `worker`.
const STATEMENTS: [&str; 2] = [
    "REVOKE ALL ON token_secrets, token_uses, api_keys, idempotency_keys FROM worker;",
    "GRANT SELECT, DELETE, UPDATE (created_at) ON idempotency_keys TO worker;",
];

fn is_refused<T>(outcome: PortResult<T>) -> bool {
    outcome.is_err_and(|error| error.kind() == ErrorKind::Misconfigured)
}

#[tokio::test]
async fn the_documented_role_of_workers_reads_no_secret_and_deletes_old_keys_of_requests()
-> Result<()> {
    let scope = Scope::new().await?;
    let owner = connect(scope.database_url()).await?;
    let secret = owner.token_secret(&TokenSecret::generate()?).await?;
    let role = format!("role_{}", UploadId::generate().as_uuid().simple());
    let mut statements = vec![
        format!("CREATE ROLE {role} LOGIN PASSWORD 'carga'"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"),
        "INSERT INTO idempotency_keys (tenant, route, sender, key, fingerprint, answer, created_at)
         VALUES ('default', 'POST /keys', '-', 'k', '\\x00', '{}', now() - interval '2 days')"
            .to_owned(),
    ];
    for statement in STATEMENTS {
        ensure!(OPERATIONS.contains(statement), "{statement}");
        statements.push(statement.replace("worker", &role));
    }
    for statement in statements {
        sqlx::query(&statement).execute(&scope.pool()).await?;
    }
    let (_, server) = scope.database_url().split_once('@').unwrap_or_default();
    let settings = PostgresSettings {
        connections: 1,
        migrate: false,
        ..settings(&format!("postgres://{role}:carga@{server}"))
    };
    let worker = PostgresStore::connect(settings).await?;
    ensure!(is_refused(worker.token_secret(&secret).await));
    ensure!(is_refused(worker.keys(None, None, 1).await));
    ensure!(worker.forget_requests().await? == 1);
    drop((owner, worker));
    for statement in [format!("DROP OWNED BY {role}"), format!("DROP ROLE {role}")] {
        sqlx::query(&statement).execute(&scope.pool()).await?;
    }
    scope.close().await
}
