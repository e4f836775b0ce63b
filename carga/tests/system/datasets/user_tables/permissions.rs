//! The role of Carga may lack privileges on a table of the user.

use anyhow::{Context, Result, ensure};
use carga_testkit::Scope;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::{HEADER, IMPORTS, SHOP, declare_imports, execute, imports, merge, products, rows_of};
use crate::answers::problem;
use crate::app::App;
use crate::datasets::merging::Outcome;
use crate::datasets::undoing_merges::undo_merge;
use crate::datasets::{detail, options, putting, send};

const PRIVILEGES: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

/// A new role that owns the database, but none of the tables of the shop.
async fn role(pool: &PgPool) -> Result<String> {
    let role = format!("role_{}", Uuid::new_v4().simple());
    let database: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(pool)
        .await?;
    let statements = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'carga'; ALTER DATABASE {database} OWNER TO {role};
         {SHOP}
         GRANT USAGE ON SCHEMA shop TO {role};
         GRANT INSERT ON shop.history TO {role};"
    );
    sqlx::raw_sql(&statements).execute(pool).await?;
    Ok(role)
}

/// Starts Carga with a role of its own, which it returns.
async fn start() -> Result<(App, String)> {
    let scope = Scope::new().await?;
    let role = role(&scope.pool()).await?;
    let url = scope.database_url().to_owned();
    let (_, server) = url.split_once('@').context("the URL has no user")?;
    let scope = scope.with("DATABASE_URL", format!("postgres://{role}:carga@{server}"));
    Ok((App::start(scope, 1).await?, role))
}

#[tokio::test]
async fn the_role_of_carga_needs_four_privileges_and_no_others() -> Result<()> {
    let (app, role) = start().await?;
    let grant = |privileges: &[&str]| {
        let privileges = privileges.join(", ");
        format!("GRANT {privileges} ON shop.products TO {role}")
    };
    for missing in PRIVILEGES {
        let others = PRIVILEGES.into_iter().filter(|other| *other != missing);
        let others: Vec<&str> = others.collect();
        let revoke = format!("REVOKE ALL ON shop.products FROM {role}");
        execute(&app, &format!("{revoke}; {}", grant(&others))).await?;
        let answer = putting(&app, IMPORTS, &imports())?.send().await?;
        let refused = problem(answer, 422, "table_permission").await?;
        for part in ["shop", "products", "GRANT", missing, role.as_str()] {
            ensure!(detail(&refused)?.contains(part), "no {part:?}: {refused}");
        }
        ensure!(app.get("/datasets/imports").await?.0 == 404);
    }
    execute(&app, &grant(&PRIVILEGES)).await?;
    declare_imports(&app).await?;
    let before = rows_of(&app, "shop.products").await?;
    let outcome = Outcome {
        inserted: 1,
        updated: 1,
        ..Outcome::default()
    };
    let file = format!("{HEADER}a,1.75,1,x\nd,4.50,4,NA\n");
    let id = merge(&app, &[], file.clone(), outcome).await?;
    let rows = products(&app).await?;
    ensure!(rows[0] == json!(["a", "1.75", 1, "x", "app"]), "{rows}");
    undo_merge(&app, id, [2, 0, 0]).await?;
    ensure!(rows_of(&app, "shop.products").await? == before);

    // A privilege that was revoked since is missing before a file is read, too.
    execute(&app, &format!("REVOKE UPDATE ON shop.products FROM {role}")).await?;
    let id = Uuid::now_v7();
    let answer = send(&app, id, &options(IMPORTS, &[]), file).await?;
    let refused = problem(answer, 422, "table_permission").await?;
    ensure!(detail(&refused)?.contains("UPDATE"), "{refused}");
    ensure!(app.upload(id).await?.is_none());
    app.close().await
}

#[tokio::test]
async fn a_table_whose_rows_a_policy_hides_from_carga_is_refused() -> Result<()> {
    let (app, role) = start().await?;
    execute(
        &app,
        &format!(
            "GRANT ALL ON shop.products TO {role};
             ALTER TABLE shop.products ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON shop.products USING (changed_by = 'carga');"
        ),
    )
    .await?;
    let answer = putting(&app, IMPORTS, &imports())?.send().await?;
    let refused = problem(answer, 422, "table_kind").await?;
    ensure!(detail(&refused)?.contains("shop.products"), "{refused}");
    execute(&app, "ALTER TABLE shop.products DISABLE ROW LEVEL SECURITY").await?;
    declare_imports(&app).await?;
    app.close().await
}
