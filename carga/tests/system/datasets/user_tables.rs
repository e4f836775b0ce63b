//! The rows of a dataset go into an existing table of the user, which only Postgres has.

mod altered_tables;
pub(super) mod catalog;
mod faults;
mod flights;
mod interrupting;
mod keeping;
mod locking;
mod merging;
mod names;
mod permissions;
pub(super) mod rejecting;
mod undoing;

use anyhow::{Result, bail, ensure};
use reqwest::Body;
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{PgPool, Postgres};
use uuid::Uuid;

use super::merging::{Outcome, send_accepted};
use super::put;
use crate::app::App;
use crate::harness::{Harness, Mode};

/// The dataset of most tests.
pub(super) const IMPORTS: &str = "imports";

/// The table of an application, with its rows. Another table gets a row for each change.
const SHOP: &str = "
    CREATE SCHEMA shop;
    CREATE DOMAIN shop.amount AS numeric(8, 2) CHECK (VALUE >= 0);
    CREATE TABLE shop.suppliers (code text PRIMARY KEY);
    INSERT INTO shop.suppliers VALUES ('s1'), ('s2');
    CREATE TABLE shop.products (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        sku varchar(10) NOT NULL CONSTRAINT sku_once UNIQUE,
        price shop.amount,
        stock integer NOT NULL DEFAULT 0 CONSTRAINT stock_in_range CHECK (stock BETWEEN 0 AND 9999),
        note text,
        supplier text NOT NULL DEFAULT 's1' REFERENCES shop.suppliers,
        changed_by text NOT NULL DEFAULT 'unknown',
        total numeric GENERATED ALWAYS AS (price * stock) STORED
    );
    CREATE INDEX cheap ON shop.products (price) WHERE price < 10;
    CREATE TABLE shop.history (sku text, change text);
    CREATE FUNCTION shop.remember() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO shop.history VALUES (NEW.sku, TG_OP);
        RETURN NEW;
    END $$;
    CREATE TRIGGER remember AFTER INSERT OR UPDATE ON shop.products
        FOR EACH ROW EXECUTE FUNCTION shop.remember();
    INSERT INTO shop.products (sku, price, stock, note, changed_by) VALUES
        ('a', 1.50, 1, 'x', 'app'), ('b', 2.50, 2, NULL, 'app'), ('c', 3.50, 3, 'z', 'app'),
        ('own', 9.00, 9, '', 'app'), ('void', NULL, 0, NULL, 'app');
";

pub(super) const HEADER: &str = "sku,price,stock,note\n";

/// A definition for these columns of a table. An empty text is not NULL.
pub(super) fn definition_of(table: &str, columns: &[(&str, &str)], key: &[&str]) -> Value {
    let columns = columns.iter();
    let columns: Vec<Value> = columns
        .map(|(name, kind)| json!({ "name": name, "type": kind }))
        .collect();
    json!({ "columns": columns, "key": key, "null": ["NA"], "table": table })
}

/// The definition of `imports`.
fn imports() -> Value {
    let columns = [
        ("sku", "text"),
        ("price", "numeric"),
        ("stock", "integer"),
        ("note", "text"),
    ];
    definition_of("shop.products", &columns, &["sku"])
}

/// Starts Carga on servers, and makes the table of the application.
pub(super) async fn start(workers: usize) -> Result<App> {
    start_with(&[], workers).await
}

/// Like `start`, with settings.
async fn start_with(settings: &[(&str, &str)], workers: usize) -> Result<App> {
    let mut harness = Mode::Distributed.harness().await?;
    for (key, value) in settings {
        harness = harness.with(key, value);
    }
    let app = App::start(harness, workers).await?;
    execute(&app, SHOP).await?;
    Ok(app)
}

/// Declares `imports`, whose rows have the key `sku`.
pub(super) async fn declare_imports(app: &App) -> Result<()> {
    let created = put(app, IMPORTS, &imports(), 201).await?;
    ensure!(
        created["table"] == "shop.products"
            && created["mode"] == "update"
            && created["key"] == json!(["sku"]),
        "{created}"
    );
    Ok(())
}

/// Sends a file for `imports`. Fails unless its rows end like this.
async fn merge(
    app: &App,
    further: &[(&str, &str)],
    file: impl Into<Body>,
    outcome: Outcome,
) -> Result<Uuid> {
    let id = send_accepted(app, IMPORTS, further, file).await?;
    expect_merged(app, id, outcome).await?;
    Ok(id)
}

/// Polls until the upload has ended. Fails unless it ended like this, and no staged row is left.
async fn expect_merged(app: &App, id: Uuid, outcome: Outcome) -> Result<Value> {
    let upload = app.wait_until_ended(id).await?;
    outcome.check(&upload)?;
    let staged = app.harness.count_rows(id).await?;
    ensure!(staged == (0, 0), "{staged:?} staged rows are left");
    Ok(upload)
}

/// The fields of an upload that say how it ended.
fn outcome_of(upload: &Value) -> [&Value; 6] {
    [
        "status",
        "rows",
        "epoch",
        "reversible",
        "undone",
        "finished_at",
    ]
    .map(|field| &upload[field])
}

/// Connections of the application to the database.
pub(super) fn pool(app: &App) -> Result<PgPool> {
    match &app.harness {
        Harness::Distributed(scope) => Ok(scope.pool()),
        Harness::Embedded(_) => bail!("embedded mode has no Postgres"),
    }
}

/// Runs statements of the application.
pub(super) async fn execute(app: &App, statements: &str) -> Result<()> {
    app.harness.execute(statements, "").await
}

/// The texts of a query with one column.
async fn texts(app: &App, query: &str) -> Result<Vec<String>> {
    // A plan that is kept would not fit a table that was altered since.
    let texts = sqlx::query_scalar::<Postgres, String>(query).persistent(false);
    Ok(texts.fetch_all(&pool(app)?).await?)
}

/// Every value of every row of a table. The name is quoted, and has its schema.
pub(super) async fn rows_of(app: &App, table: &str) -> Result<Vec<String>> {
    texts(app, &format!("SELECT t::text FROM {table} AS t ORDER BY 1")).await
}

/// The rows of `shop.products` by their `sku`, without `id`, `supplier` and `total`.
pub(super) async fn products(app: &App) -> Result<Value> {
    const QUERY: &str = "
        SELECT jsonb_agg(jsonb_build_array(sku, price::text, stock, note, changed_by) ORDER BY sku)
        FROM shop.products";
    let rows = sqlx::query_scalar::<_, Json<Value>>(QUERY);
    let Json(rows) = rows.fetch_one(&pool(app)?).await?;
    Ok(rows)
}

/// The versions of the rows of `shop.products` that have one of these keys. A row gets another
/// version with every change, also with one that leaves all its values as they are.
async fn versions(app: &App, keys: &[&str]) -> Result<Vec<String>> {
    const QUERY: &str = "
        SELECT concat_ws(' ', t.xmin, t.ctid, t) FROM shop.products AS t
        WHERE sku = ANY ($1) ORDER BY sku";
    let versions = sqlx::query_scalar::<_, String>(QUERY).bind(keys);
    let versions = versions.fetch_all(&pool(app)?).await?;
    ensure!(versions.len() == keys.len(), "{versions:?}");
    Ok(versions)
}
