//! The schemas of the tenants' tables: who may make them, and which tables may be in them.

use anyhow::{Context, Result, ensure};
use carga_common::dataset::{DatasetKey, Definition};
use carga_common::error::ErrorKind;
use carga_common::store::{
    BatchStore, DatasetStore, DeleteOutcome, PostgresSettings, PostgresStore, PutOutcome,
    StoreOutcome,
};
use carga_common::upload::UploadId;
use carga_testkit::Scope;

use super::{OWN, acme, declare, execute, upload};
use crate::postgres::staging::batches;
use crate::postgres::{connect, dataset_key, settings};

/// Makes the tables of Carga, and connects as a new role that has privileges for these tables only.
/// Returns the role.
async fn connect_as_role(scope: &Scope) -> Result<(PostgresStore, String)> {
    connect(scope.database_url()).await?;
    let role = format!("role_{}", UploadId::generate().as_uuid().simple());
    let grants = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'carga';
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
         GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"
    );
    execute(scope, &grants).await?;
    let (_, server) = scope.database_url().split_once('@').context("no @")?;
    let settings = PostgresSettings {
        migrate: false,
        ..settings(&format!("postgres://{role}:carga@{server}"))
    };
    Ok((PostgresStore::connect(settings).await?, role))
}

async fn drop_role(scope: &Scope, role: &str) -> Result<()> {
    execute(scope, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await
}

/// The reason for which a dataset with a table of its own is refused. The dataset must not exist
/// afterwards.
async fn reason(store: &PostgresStore, key: &DatasetKey) -> Result<String> {
    let put = store.put_dataset(key, &Definition::from_json(OWN)?).await?;
    let PutOutcome::Refused(reason) = put else {
        anyhow::bail!("not refused: {put:?}");
    };
    ensure!(store.dataset(key).await?.is_none());
    Ok(reason)
}

/// The definition of a dataset with the table `datasets_2024.sales`.
fn in_schema_2024() -> Result<Definition> {
    const JSON: &[u8] =
        br#"{ "columns": [{ "name": "sku", "type": "text" }], "table": "datasets_2024.sales" }"#;
    Ok(Definition::from_json(JSON)?)
}

const SCHEMA_2024: &str =
    "CREATE SCHEMA datasets_2024; CREATE TABLE datasets_2024.sales (sku text PRIMARY KEY)";

/// Either statement in the refusal lets the role make the first table of the tenant.
#[tokio::test]
async fn the_owner_is_told_how_to_make_the_schema_that_a_role_may_not_make() -> Result<()> {
    let scope = Scope::new().await?;
    let (store, role) = connect_as_role(&scope).await?;
    let database: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(&scope.pool())
        .await?;
    let other = DatasetKey::new("other".parse()?, "sales".parse()?);
    for (key, statement) in [
        (
            acme("sales")?,
            format!("CREATE SCHEMA \"datasets_acme\" AUTHORIZATION \"{role}\""),
        ),
        (
            other,
            format!("GRANT CREATE ON DATABASE \"{database}\" TO \"{role}\""),
        ),
    ] {
        let reason = reason(&store, &key).await?;
        ensure!(reason.contains(&format!("`{statement}`")), "{reason}");
        execute(&scope, &statement).await?;
        declare(&store, &key).await?;
    }
    drop_role(&scope, &role).await?;
    scope.close().await
}

#[tokio::test]
async fn the_owner_is_told_how_to_open_a_schema_that_a_role_may_not_use() -> Result<()> {
    let scope = Scope::new().await?;
    let (store, role) = connect_as_role(&scope).await?;
    execute(&scope, "CREATE SCHEMA datasets_acme").await?;
    let key = acme("sales")?;
    for (granted, lacking) in [
        ("", "USAGE, CREATE"),
        ("USAGE", "CREATE"),
        ("CREATE", "USAGE"),
    ] {
        let schema = "ON SCHEMA datasets_acme";
        if !granted.is_empty() {
            let grant = format!("GRANT {granted} {schema} TO {role}");
            execute(&scope, &grant).await?;
        }
        let statement = format!("GRANT {lacking} ON SCHEMA \"datasets_acme\" TO \"{role}\"");
        let reason = reason(&store, &key).await?;
        ensure!(reason.contains(&format!("`{statement}`")), "{reason}");
        execute(&scope, &format!("REVOKE ALL {schema} FROM {role}")).await?;
    }
    execute(
        &scope,
        &format!("GRANT USAGE, CREATE ON SCHEMA \"datasets_acme\" TO \"{role}\""),
    )
    .await?;
    declare(&store, &key).await?;
    drop_role(&scope, &role).await?;
    scope.close().await
}

#[tokio::test]
async fn a_table_that_was_made_by_hand_is_named_with_the_schema_of_the_tenant() -> Result<()> {
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    let sql = "CREATE SCHEMA datasets_acme; CREATE TABLE datasets_acme.sales (a text)";
    execute(&scope, sql).await?;
    let reason = reason(&store, &acme("sales")?).await?;
    ensure!(
        reason.contains("in the schema \"datasets_acme\""),
        "{reason}"
    );
    scope.close().await
}

#[tokio::test]
async fn no_tenant_writes_into_a_table_of_another_tenant() -> Result<()> {
    const TABLE: &str = "(a text PRIMARY KEY)";
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    declare(&store, &acme("sales")?).await?;
    let sql = format!(
        "CREATE TABLE datasets_acme.other {TABLE};
         CREATE SCHEMA datasets_2024; CREATE TABLE datasets_2024.sales {TABLE};
         CREATE SCHEMA \"datasets_B\"; CREATE TABLE \"datasets_B\".sales {TABLE}"
    );
    execute(&scope, &sql).await?;
    for (table, is_taken) in [
        ("datasets_acme.sales", false),
        ("datasets_acme.sales_rows", false),
        ("datasets_acme.other", false),
        // One fault for all names, so that others do not find out what the tenants have.
        ("datasets_acme.missing", false),
        ("datasets_nobody.sales", false),
        ("datasets.missing", false),
        // No tenant has datasets in these schemas of the user.
        ("datasets_2024.sales", true),
        ("datasets_B.sales", true),
    ] {
        let json =
            format!(r#"{{ "columns": [{{ "name": "a", "type": "text" }}], "table": "{table}" }}"#);
        let definition = Definition::from_json(json.as_bytes())?;
        let fault = store.check_table(&definition, &["a"]).await?.err();
        match fault {
            None => ensure!(is_taken, "{table} is taken"),
            Some(fault) => {
                ensure!(
                    !is_taken && fault.code == "table_kind",
                    "{table}: {fault:?}"
                );
                let expected = format!(
                    "{table} belongs to Carga or does not exist; name a table of your own in another schema, or leave out `table`"
                );
                ensure!(fault.message == expected, "{fault:?}");
            }
        }
    }
    scope.close().await
}

/// The datasets of this tenant would have their tables in the same schema.
#[tokio::test]
async fn a_schema_in_which_a_dataset_names_a_table_of_the_user_is_no_schema_of_a_tenant()
-> Result<()> {
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    execute(&scope, SCHEMA_2024).await?;
    let of_user = acme("sales")?;
    let put = store.put_dataset(&of_user, &in_schema_2024()?).await?;
    ensure!(put == PutOutcome::Created, "{put:?}");
    let key = DatasetKey::new("2024".parse()?, "stock".parse()?);
    let reason = reason(&store, &key).await?;
    for part in [
        "\"datasets_2024\"",
        "names a table of the user",
        "SET SCHEMA",
    ] {
        ensure!(reason.contains(part), "{reason}");
    }
    let deleted = store.delete_dataset(&of_user).await?;
    ensure!(deleted == DeleteOutcome::Deleted, "{deleted:?}");
    declare(&store, &key).await?;
    scope.close().await
}

/// Each of the two puts would otherwise miss the other one.
#[tokio::test]
async fn a_new_dataset_of_a_tenant_and_a_table_of_the_user_in_its_schema_take_turns() -> Result<()>
{
    const TURN: &str = "SELECT pg_advisory_xact_lock(1684108386, hashtext('datasets_2024'))";
    let scope = Scope::new().await?;
    let store = connect(scope.database_url()).await?;
    execute(&scope, SCHEMA_2024).await?;
    let pool = scope.pool();
    let mut turn = pool.begin().await?;
    sqlx::query(TURN).execute(&mut *turn).await?;
    let tenant = DatasetKey::new("2024".parse()?, "stock".parse()?);
    let (own, other) = (Definition::from_json(OWN)?, acme("sales")?);
    let in_schema = in_schema_2024()?;
    let (own, of_user) = tokio::join!(
        store.put_dataset(&tenant, &own),
        store.put_dataset(&other, &in_schema)
    );
    for put in [own, of_user] {
        let is_late = |put: &Result<_, carga_common::error::PortError>| {
            put.as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::Unavailable)
        };
        ensure!(is_late(&put), "{put:?}");
    }
    turn.rollback().await?;
    declare(&store, &tenant).await?;
    scope.close().await
}

/// The role of the workers may lack the privileges for the tables of one tenant. The worker waits
/// until it has them.
#[tokio::test]
async fn rows_that_the_role_may_not_store_are_stored_after_the_grant() -> Result<()> {
    let scope = Scope::new().await?;
    let owner = connect(scope.database_url()).await?;
    let (worker, role) = connect_as_role(&scope).await?;
    let (open, closed) = (dataset_key("sales")?, acme("sales")?);
    let mut group = Vec::new();
    for key in [&open, &closed] {
        declare(&owner, key).await?;
        let id = upload(&owner, key, false).await?;
        group.extend(batches(id, &["sku".to_owned()], &[vec![Some("a")]])?);
    }
    let grant = async |schema: &str| {
        let grants = format!(
            "GRANT USAGE ON SCHEMA {schema} TO {role};
             GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}"
        );
        execute(&scope, &grants).await
    };
    grant("datasets").await?;
    let refused = worker.store(&group).await;
    let error = refused.err().context("the rows of both are stored")?;
    ensure!(
        error.kind() == ErrorKind::Misconfigured,
        "{}",
        error.chain()
    );
    ensure!(error.chain().contains("datasets_acme"), "{}", error.chain());
    grant("datasets_acme").await?;
    let stored = worker.store(&group).await?;
    ensure!(
        stored == [StoreOutcome::Stored { rejected: 0 }; 2],
        "{stored:?}"
    );
    drop_role(&scope, &role).await?;
    scope.close().await
}
