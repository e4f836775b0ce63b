//! What the role of Carga needs.

use anyhow::{Context, Result, ensure};
use carga_common::dataset::{Mode, TableFault};
use carga_common::store::{PostgresSettings, PostgresStore};
use carga_common::upload::UploadId;

use super::{File, Shop, definition};
use crate::postgres::settings;

/// The definition's table has a sequence of its own for the default of `number`.
const TABLE: &str = "CREATE TABLE shop.prices (sku text PRIMARY KEY, price numeric, number serial)";

const COLUMNS: [(&str, &str); 2] = [("sku", "text"), ("price", "numeric")];

/// Connects as a new role with privileges for the tables of Carga only. Returns the role.
async fn open() -> Result<(Shop, String)> {
    let shop = Shop::open(TABLE).await?;
    let role = format!("role_{}", UploadId::generate().as_uuid().simple());
    for statement in [
        format!("CREATE ROLE {role} LOGIN PASSWORD 'carga'"),
        format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"),
        format!("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"),
    ] {
        shop.execute(&statement).await?;
    }
    let (_, server) = shop.scope.database_url().split_once('@').context("no @")?;
    let settings = PostgresSettings {
        migrate: false,
        ..settings(&format!("postgres://{role}:carga@{server}"))
    };
    let store = PostgresStore::connect(settings).await?;
    Ok((Shop { store, ..shop }, role))
}

async fn close(shop: Shop, role: &str) -> Result<()> {
    shop.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await?;
    shop.close().await
}

/// The statements in the message of a fault.
fn grants(fault: &TableFault) -> Vec<&str> {
    let parts = fault.message.split('`');
    parts.filter(|part| part.starts_with("GRANT ")).collect()
}

#[tokio::test]
async fn the_message_about_missing_privileges_has_the_statements_that_give_them() -> Result<()> {
    let (shop, role) = open().await?;
    let definition = definition(&COLUMNS, &["sku"])?;
    let fault = shop.fault(&definition).await?.context("it is taken")?;
    ensure!(fault.code == "table_permission", "{fault:?}");
    let grants = grants(&fault);
    let expected = [
        format!("GRANT USAGE ON SCHEMA \"shop\" TO \"{role}\""),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON \"shop\".\"prices\" TO \"{role}\""),
        format!("GRANT USAGE ON SEQUENCE shop.prices_number_seq TO \"{role}\""),
    ];
    ensure!(grants == expected, "{grants:?}");
    for grant in grants {
        shop.execute(grant).await?;
    }
    shop.declare(&definition).await?;
    let rows = [["a", "1"], ["b", "2"]];
    let file = File::new(["sku", "price"], &rows);
    shop.merge(&definition, Mode::Append, &file, [2, 0, 0, 0])
        .await?;
    let file = File::new(["sku", "price"], &[["a", "3"], ["c", "3"]]);
    shop.merge(&definition, Mode::Update, &file, [1, 1, 0, 0])
        .await?;
    let stored = shop.texts("SELECT p::text FROM shop.prices p ORDER BY sku");
    ensure!(stored.await? == ["(a,3,1)", "(b,2,2)", "(c,3,3)"]);
    close(shop, &role).await
}

#[tokio::test]
async fn each_missing_privilege_is_named_alone() -> Result<()> {
    let (shop, role) = open().await?;
    let definition = definition(&COLUMNS, &["sku"])?;
    let all = [
        "USAGE ON SCHEMA \"shop\"",
        "SELECT ON \"shop\".\"prices\"",
        "INSERT ON \"shop\".\"prices\"",
        "UPDATE ON \"shop\".\"prices\"",
        "DELETE ON \"shop\".\"prices\"",
        "USAGE ON SEQUENCE shop.prices_number_seq",
    ];
    for privilege in all {
        shop.execute(&format!("GRANT {privilege} TO {role}"))
            .await?;
    }
    ensure!(shop.fault(&definition).await?.is_none());
    for privilege in all {
        shop.execute(&format!("REVOKE {privilege} FROM {role}"))
            .await?;
        let fault = shop.fault(&definition).await?.context(privilege)?;
        ensure!(fault.code == "table_permission", "{fault:?}");
        let grant = format!("GRANT {privilege} TO \"{role}\"");
        ensure!(grants(&fault) == [&grant], "{fault:?}");
        shop.execute(&grant).await?;
    }
    close(shop, &role).await
}

/// A merge names the type of the column, and an undo names the types of all columns.
#[tokio::test]
async fn the_schema_of_a_type_must_be_usable() -> Result<()> {
    let (shop, role) = open().await?;
    let grant = format!(
        "CREATE SCHEMA kinds; CREATE TYPE kinds.color AS ENUM ('red');
         ALTER TABLE shop.prices ADD COLUMN color kinds.color;
         GRANT USAGE ON SCHEMA shop TO {role}; GRANT ALL ON shop.prices TO {role};
         GRANT ALL ON ALL SEQUENCES IN SCHEMA shop TO {role}"
    );
    shop.execute(&grant).await?;
    let definition = definition(&[("sku", "text"), ("color", "text")], &["sku"])?;
    let fault = shop.fault(&definition).await?.context("it is taken")?;
    ensure!(fault.code == "table_permission", "{fault:?}");
    let grant = format!("GRANT USAGE ON SCHEMA \"kinds\" TO \"{role}\"");
    ensure!(grants(&fault) == [&grant], "{fault:?}");
    shop.execute(&grant).await?;
    shop.declare(&definition).await?;
    let file = File::new(["sku", "color"], &[["a", "red"]]);
    shop.merge(&definition, Mode::Update, &file, [1, 0, 0, 0])
        .await?;
    close(shop, &role).await
}

/// A policy would hide rows from Carga. It does not apply to a superuser.
#[tokio::test]
async fn a_table_whose_policies_apply_to_carga_takes_no_rows() -> Result<()> {
    let (shop, role) = open().await?;
    let definition = definition(&COLUMNS, &["sku"])?;
    let grant = format!(
        "GRANT USAGE ON SCHEMA shop TO {role}; GRANT ALL ON shop.prices TO {role};
         GRANT ALL ON ALL SEQUENCES IN SCHEMA shop TO {role}"
    );
    shop.execute(&grant).await?;
    shop.execute("ALTER TABLE shop.prices ENABLE ROW LEVEL SECURITY")
        .await?;
    let fault = shop.fault(&definition).await?.context("it is taken")?;
    ensure!(fault.code == "table_kind", "{fault:?}");
    ensure!(fault.message.contains("row level security"), "{fault:?}");
    let owner = super::connect(shop.scope.database_url()).await?;
    let of_owner = Shop {
        store: owner,
        ..shop
    };
    ensure!(of_owner.fault(&definition).await?.is_none());
    close(of_owner, &role).await
}
