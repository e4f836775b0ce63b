//! A table of the user belongs to no tenant.

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{closed_app, declare, get, key_of, text};
use crate::answers::problem;
use crate::app::App;
use crate::harness::Mode;

in_both_modes! {
    a_dataset_with_a_table_of_the_user_needs_scope_admin_outside_of_the_tenant_default,
    a_table_of_another_tenant_cannot_be_told_from_a_missing_one,
}

const SHOP: &str = "CREATE SCHEMA shop;
    CREATE TABLE shop.prices (sku text PRIMARY KEY, price numeric);";

/// A definition for the table of the user. `from` is a rule that a second `PUT` may change.
fn definition(from: &str) -> Value {
    json!({
        "columns": [
            { "name": "sku", "type": "text", "from": [from] },
            { "name": "price", "type": "numeric" },
        ],
        "key": ["sku"],
        "table": "shop.prices",
    })
}

async fn a_dataset_with_a_table_of_the_user_needs_scope_admin_outside_of_the_tenant_default(
    mode: Mode,
) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    app.harness.execute(SHOP, "SELECT 1").await?;
    let every_other = ["read", "upload", "manage"];
    let manager = key_of(&app, "acme", &every_other).await?;
    let admin = key_of(&app, "acme", &["admin"]).await?;
    let of_default = key_of(&app, "default", &["manage"]).await?;
    // Only Postgres has such tables. On SQLite, the definition itself is refused.
    let accepts = async |key: &str, from: &str, status: StatusCode| -> Result<()> {
        let answer = declare(&app, key, "prices", &definition(from)).await?;
        if let Mode::Embedded = mode {
            problem(answer, 422, "table_unsupported").await?;
            return Ok(());
        }
        let found = answer.status();
        ensure!(found == status, "{found}: {}", answer.text().await?);
        Ok(())
    };
    let refuses = async |from: &str| -> Result<()> {
        let answer = declare(&app, &manager, "prices", &definition(from)).await?;
        let challenge = answer.headers().get("www-authenticate").cloned();
        let expected = "Bearer realm=\"carga\", error=\"insufficient_scope\"";
        ensure!(challenge.is_some_and(|found| found == expected));
        let refused = problem(answer, 403, "missing_scope").await?;
        let detail = text(&refused, "detail")?;
        for part in ["shop.prices", "`admin`"] {
            ensure!(detail.contains(part), "{detail}");
        }
        Ok(())
    };
    refuses("code").await?;
    let missing = get(&app, "/datasets/prices", Some(&manager)).await?;
    problem(missing, 404, "dataset_not_found").await?;
    accepts(&admin, "code", StatusCode::CREATED).await?;
    refuses("code").await?;
    refuses("article").await?;
    accepts(&admin, "article", StatusCode::OK).await?;
    accepts(&of_default, "code", StatusCode::CREATED).await?;
    // A dataset without a table of the user needs only `manage`.
    let own = json!({ "columns": [{ "name": "sku", "type": "text" }] });
    let declared = declare(&app, &manager, "stock", &own).await?;
    ensure!(declared.status() == 201, "{}", declared.text().await?);
    app.close().await
}

/// The status and the code of the answer, and the whole answer with `TABLE` in place of the table.
/// Its id and its time are left out, because each answer has its own.
async fn answer_about(app: &App, key: &str, table: &str) -> Result<(u16, String, String)> {
    let definition = json!({ "columns": [{ "name": "sku", "type": "text" }], "table": table });
    let answer = declare(app, key, "p", &definition).await?;
    let status = answer.status().as_u16();
    let mut headers: Vec<String> = answer
        .headers()
        .iter()
        .filter(|(name, _)| !["content-length", "date", "x-request-id"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    headers.sort();
    let mut body: Value = answer.json().await?;
    let code = text(&body, "code")?;
    body.as_object_mut()
        .and_then(|fields| fields.remove("request_id"))
        .context("no request id")?;
    let whole = format!("{headers:?} {body}").replace(table, "TABLE");
    Ok((status, code, whole))
}

async fn a_table_of_another_tenant_cannot_be_told_from_a_missing_one(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    let manager = key_of(&app, "acme", &["manage"]).await?;
    let own = json!({ "columns": [{ "name": "sku", "type": "text" }] });
    let declared = declare(&app, &manager, "sales", &own).await?;
    ensure!(declared.status() == 201, "{}", declared.text().await?);
    let of_default = key_of(&app, "default", &["manage"]).await?;
    let about = async |table| answer_about(&app, &of_default, table).await;
    let missing = about("datasets_nobody.sales").await?;
    let expected = match mode {
        Mode::Embedded => "table_unsupported",
        Mode::Distributed => "table_kind",
    };
    ensure!(
        (missing.0, missing.1.as_str()) == (422, expected),
        "{missing:?}"
    );
    for table in [
        "datasets_acme.sales",
        "datasets_acme.sales_rows",
        "datasets_acme.missing",
    ] {
        let found = about(table).await?;
        ensure!(found == missing, "{table}: {found:?}, not {missing:?}");
    }
    app.close().await
}
