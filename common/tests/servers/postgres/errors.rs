//! The kinds of the errors that Postgres reports.

use anyhow::{Result, ensure};
use carga_common::error::ErrorKind;
use carga_common::store::{NewUpload, PostgresSettings, PostgresStore, UploadStore};
use carga_common::upload::UploadId;
use carga_testkit::Scope;

use super::{connect, new_upload, settings};

/// Makes the creation of an upload fail with the SQLSTATE that is its file name.
const FAIL_AS_NAMED: &str = "
    CREATE FUNCTION fail_as_named() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION USING ERRCODE = NEW.filename;
    END
    $$;
    CREATE TRIGGER fail_as_named BEFORE INSERT ON uploads
    FOR EACH ROW EXECUTE FUNCTION fail_as_named()";

/// Only an error that the data causes may be charged to a batch.
#[tokio::test]
async fn the_kind_of_an_error_follows_from_its_sqlstate() -> Result<()> {
    use ErrorKind::{Conflict, Full, Internal, Invalid, Misconfigured, Unavailable};
    let expected: [(ErrorKind, &[&str]); 6] = [
        (
            Unavailable,
            &[
                "08006", "0A000", "25006", "25P03", "40001", "40P01", "53300", "55P03", "57014",
                "58030",
            ],
        ),
        (Full, &["53100"]),
        (
            Misconfigured,
            &["28P01", "3D000", "3F000", "42501", "42703", "42P01"],
        ),
        (Invalid, &["22001", "23514", "54000"]),
        (Conflict, &["23505"]),
        (Internal, &["XX000"]),
    ];
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    sqlx::raw_sql(FAIL_AS_NAMED).execute(&scope.pool()).await?;
    for (kind, codes) in expected {
        for code in codes {
            let upload = NewUpload {
                filename: Some((*code).to_owned()),
                ..new_upload()
            };
            let failed = store.create(&upload).await;
            ensure!(
                failed.as_ref().is_err_and(|error| error.kind() == kind),
                "{code} is not {kind:?}: {failed:?}"
            );
        }
    }
    scope.close().await
}

/// Programs keep running while a newer version changes the schema. A session cannot use a prepared
/// statement any more whose result has another type now.
#[tokio::test]
async fn a_statement_whose_result_a_migration_has_changed_fails_once() -> Result<()> {
    const MIGRATION: &str = "ALTER TABLE uploads ALTER COLUMN filename TYPE varchar";
    let scope = Scope::new().await?;
    // One connection, which both calls use unless it is closed between them.
    let settings = PostgresSettings {
        connections: 1,
        ..settings(scope.database_url())
    };
    let store = PostgresStore::connect(settings).await?;
    let id = store.create(&new_upload()).await?.id;
    ensure!(store.upload(id).await?.is_some());
    sqlx::query(MIGRATION).execute(&scope.pool()).await?;
    let outdated = store.upload(id).await;
    ensure!(
        outdated
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Unavailable),
        "{outdated:?}"
    );
    ensure!(store.upload(id).await?.is_some());
    scope.close().await
}

/// A worker waits for an operator in this case, and charges no batch an attempt.
#[tokio::test]
async fn a_role_without_permissions_is_misconfigured() -> Result<()> {
    let scope = Scope::new().await?;
    drop(connect(scope.database_url()).await?);
    let role = format!("role_{}", UploadId::generate().as_uuid().simple());
    for statement in [
        format!("CREATE ROLE {role} LOGIN PASSWORD 'carga'"),
        format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"),
        format!("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"),
    ] {
        sqlx::query(&statement).execute(&scope.pool()).await?;
    }
    let (_, server) = scope.database_url().split_once('@').unwrap_or_default();
    let settings = PostgresSettings {
        connections: 1,
        migrate: false,
        ..settings(&format!("postgres://{role}:carga@{server}"))
    };
    let store = PostgresStore::connect(settings).await?;
    store.create(&new_upload()).await?;
    sqlx::query(&format!("REVOKE ALL ON uploads FROM {role}"))
        .execute(&scope.pool())
        .await?;
    let refused = store.create(&new_upload()).await;
    ensure!(
        refused
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Misconfigured),
        "{refused:?}"
    );
    drop(store);
    for statement in [format!("DROP OWNED BY {role}"), format!("DROP ROLE {role}")] {
        sqlx::query(&statement).execute(&scope.pool()).await?;
    }
    scope.close().await
}
