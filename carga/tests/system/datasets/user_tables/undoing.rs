//! The undo of an upload restores the rows that nobody has changed since.

use anyhow::{Context, Result, ensure};
use carga_testkit::eventually;
use reqwest::Response;
use serde_json::json;
use uuid::Uuid;

use super::catalog::Catalog;
use super::{
    HEADER, IMPORTS, declare_imports, definition_of, execute, merge, outcome_of, products, rows_of,
    start, start_with, texts,
};
use crate::answers::problem;
use crate::app::{App, TIMEOUT};
use crate::datasets::merging::{Outcome, send_accepted};
use crate::datasets::undoing_merges::undo_merge;
use crate::datasets::{detail, put};

/// A table with a column of each type that Carga converts, and with columns of the application's
/// own in which a value has several texts.
const TYPED: &str = r#"
    CREATE TYPE shop.size AS ENUM ('small', 'large');
    CREATE TABLE shop.typed (
        tags text[],
        id integer,
        picture bytea DEFAULT '\xdead',
        day date,
        price numeric,
        amount numeric(12, 3),
        weight double precision,
        lasts interval,
        active boolean,
        seen_at timestamptz,
        local_at timestamp,
        token uuid,
        details jsonb,
        document json,
        size shop.size,
        code char(4),
        note text,
        cost money,
        PRIMARY KEY (day, id)
    );
    INSERT INTO shop.typed VALUES
        ('{a,NULL,"b, c"}', 1, '\x00ff', '2024-02-29', 12345678901234567890.1234567890, 1.5, 0.1,
         '1 mon 2 days', true, '2024-12-24 18:30:00.123456+02', '2024-12-24 18:30:00.123456',
         '6f9619ff-8b86-d011-b42d-00cf4fc964ff', '{"a": [1, null]}', '{"b" :  1, "b": 2}', 'small',
         'ab', E'two\nlines, "ç"', 1.23),
        (NULL, 2, NULL, '2024-02-29', -0.10, NULL, 1e300, NULL, false, '1969-12-31 23:59:59Z', NULL,
         NULL, '[]', NULL, NULL, NULL, '', NULL),
        ('{}', 3, '', '2024-03-01', 'NaN', NULL, 5e-324, '-1 day', NULL, 'infinity', '-infinity',
         NULL, 'null', '[ ]', 'large', '', NULL, -1),
        ('{{1},{2}}', 4, DEFAULT, '2024-03-01', 1.0, 1, 0.30000000000000004, NULL, true, NULL, NULL,
         NULL, NULL, NULL, NULL, NULL, 'same', NULL);
"#;

/// Replaces three rows, repeats one, and adds one.
const TYPED_FILE: &str = "\
id,day,price,amount,weight,active,seen_at,local_at,token,details,size,code,note
1,2024-02-29,1,2.125,-0.5,false,NA,2024-01-01T00:00:00+02:00,NA,7,large,abcd,NA
2,2024-02-29,NA,NA,NA,NA,NA,NA,NA,NA,NA,NA,NA
3,2024-03-01,2.50,1,1,true,2024-01-01T00:00:00Z,NA,6f9619ff-8b86-d011-b42d-00cf4fc964ff,null,small,x,
4,2024-03-01,1.0,1,0.30000000000000004,true,NA,NA,NA,NA,NA,NA,same
4,2024-03-02,1.0,NA,0.30000000000000004,true,NA,NA,NA,NA,NA,NA,new
";

const TYPED_COLUMNS: [(&str, &str); 13] = [
    ("id", "integer"),
    ("day", "date"),
    ("price", "numeric"),
    ("amount", "numeric"),
    ("weight", "float"),
    ("active", "boolean"),
    ("seen_at", "timestamp"),
    ("local_at", "timestamp"),
    ("token", "uuid"),
    ("details", "json"),
    ("size", "text"),
    ("code", "text"),
    ("note", "text"),
];

#[tokio::test]
async fn an_undo_restores_rows_of_the_application_byte_for_byte() -> Result<()> {
    let app = start(1).await?;
    execute(&app, TYPED).await?;
    let catalog = Catalog::read(&app, "shop").await?;
    let before = rows_of(&app, "shop.typed").await?;
    let definition = definition_of("shop.typed", &TYPED_COLUMNS, &["id", "day"]);
    put(&app, IMPORTS, &definition, 201).await?;
    let outcome = Outcome {
        inserted: 1,
        updated: 3,
        duplicate: 1,
        rejected: 0,
    };
    // An undone file can be sent again.
    for _ in 0..2 {
        let id = merge(&app, &[], TYPED_FILE, outcome).await?;
        let local = "SELECT local_at::text || size FROM shop.typed WHERE id = 1";
        let local = texts(&app, local).await?;
        ensure!(local == ["2023-12-31 22:00:00large"], "{local:?}");
        undo_merge(&app, id, [4, 0, 0]).await?;
        let after = rows_of(&app, "shop.typed").await?;
        ensure!(after == before, "{after:?} instead of {before:?}");
    }
    catalog.expect_unaltered(&app, "the undo").await?;
    app.close().await
}

/// Replaces two rows of the application, and adds three.
const FILE: &str = "\
sku,price,stock,note
a,1.75,1,x
b,2.75,2,y
d,4.50,4,z
e,5.50,5,q
f,6.50,6,r
";

const FIVE_WRITTEN: Outcome = Outcome {
    inserted: 3,
    updated: 2,
    duplicate: 0,
    rejected: 0,
};

#[tokio::test]
async fn rows_that_the_application_or_a_later_upload_changed_are_kept() -> Result<()> {
    let app = start(1).await?;
    declare_imports(&app).await?;
    let first = merge(&app, &[], FILE, FIVE_WRITTEN).await?;
    // The application changes a column that the file does not have.
    execute(
        &app,
        "UPDATE shop.products SET changed_by = 'clerk' WHERE sku = 'a';
         DELETE FROM shop.products WHERE sku = 'e';",
    )
    .await?;
    let outcome = Outcome {
        updated: 1,
        ..Outcome::default()
    };
    let second = merge(&app, &[], format!("{HEADER}d,9.50,9,z\n"), outcome).await?;
    // Row `b` is restored, and `f` is deleted.
    undo_merge(&app, first, [2, 3, 0]).await?;
    let mut expected = vec![
        json!(["a", "1.75", 1, "x", "clerk"]),
        json!(["b", "2.50", 2, null, "app"]),
        json!(["c", "3.50", 3, "z", "app"]),
        json!(["d", "9.50", 9, "z", "unknown"]),
        json!(["own", "9.00", 9, "", "app"]),
        json!(["void", null, 0, null, "app"]),
    ];
    let rows = products(&app).await?;
    ensure!(rows == json!(expected), "{rows}");
    // The undo of the second upload restores what it has replaced, which the first one wrote.
    undo_merge(&app, second, [1, 0, 0]).await?;
    expected[3] = json!(["d", "4.50", 4, "z", "unknown"]);
    let rows = products(&app).await?;
    ensure!(rows == json!(expected), "{rows}");
    app.close().await
}

#[tokio::test]
async fn uploads_that_are_undone_from_the_last_to_the_first_restore_every_row() -> Result<()> {
    let app = start(1).await?;
    declare_imports(&app).await?;
    let before = rows_of(&app, "shop.products").await?;
    let first = merge(&app, &[], FILE, FIVE_WRITTEN).await?;
    let between = rows_of(&app, "shop.products").await?;
    let outcome = Outcome {
        updated: 2,
        ..Outcome::default()
    };
    let file = format!("{HEADER}a,9.50,9,z\nd,9.50,9,z\n");
    let second = merge(&app, &[], file, outcome).await?;
    undo_merge(&app, second, [2, 0, 0]).await?;
    let after = rows_of(&app, "shop.products").await?;
    ensure!(after == between, "{after:?} instead of {between:?}");
    undo_merge(&app, first, [5, 0, 0]).await?;
    let after = rows_of(&app, "shop.products").await?;
    ensure!(after == before, "{after:?} instead of {before:?}");
    app.close().await
}

#[tokio::test]
async fn a_row_that_a_table_of_the_application_refers_to_stays() -> Result<()> {
    let app = start(1).await?;
    declare_imports(&app).await?;
    let id = merge(&app, &[], FILE, FIVE_WRITTEN).await?;
    execute(
        &app,
        "CREATE TABLE shop.orders (sku varchar(10) REFERENCES shop.products (sku));
         INSERT INTO shop.orders VALUES ('a'), ('e');",
    )
    .await?;
    undo_merge(&app, id, [4, 0, 1]).await?;
    let rows = products(&app).await?;
    let expected = json!([
        ["a", "1.50", 1, "x", "app"],
        ["b", "2.50", 2, null, "app"],
        ["c", "3.50", 3, "z", "app"],
        ["e", "5.50", 5, "q", "unknown"],
        ["own", "9.00", 9, "", "app"],
        ["void", null, 0, null, "app"],
    ]);
    ensure!(rows == expected, "{rows}");
    app.close().await
}

#[tokio::test]
async fn an_upload_into_a_table_without_a_primary_key_is_not_reversible() -> Result<()> {
    let app = start(1).await?;
    execute(
        &app,
        "CREATE TABLE shop.prices (sku text UNIQUE, price numeric(8, 2), own text DEFAULT 'x');
         INSERT INTO shop.prices VALUES ('a', 1.50), ('z', 9.50), (NULL, NULL);",
    )
    .await?;
    let columns = [("sku", "text"), ("price", "numeric")];
    let definition = definition_of("shop.prices", &columns, &["sku"]);
    put(&app, IMPORTS, &definition, 201).await?;
    let file = "sku,price\na,2.50\nb,3.50\n";
    let id = send_accepted(&app, IMPORTS, &[], file).await?;
    let before = app.wait_until_ended(id).await?;
    ensure!(
        before["status"] == "completed" && before["reversible"] == false,
        "{before}"
    );
    let rows = &before["rows"];
    ensure!(rows["inserted"] == 1 && rows["updated"] == 1, "{before}");
    let merged = rows_of(&app, "shop.prices").await?;
    ensure!(merged.len() == 4, "{merged:?}");

    let refused = problem(post_undo(&app, id).await?, 409, "not_reversible").await?;
    ensure!(detail(&refused)?.contains("primary key"), "{refused}");
    ensure!(refused["upload_status"] == "completed", "{refused}");
    let after = app.upload(id).await?.context("no upload")?;
    ensure!(
        outcome_of(&after) == outcome_of(&before),
        "{after} instead of {before}"
    );
    ensure!(rows_of(&app, "shop.prices").await? == merged);
    app.close().await
}

#[tokio::test]
async fn an_old_upload_into_a_table_of_the_user_is_not_reversible() -> Result<()> {
    let mut app = start_with(&[("CARGA_UNDO_DAYS", "1")], 1).await?;
    declare_imports(&app).await?;
    let id = merge(&app, &[], FILE, FIVE_WRITTEN).await?;
    // The previous values of a table of the user are needed for rows that were inserted too.
    let outcome = Outcome {
        inserted: 1,
        ..Outcome::default()
    };
    let inserting = merge(&app, &[], format!("{HEADER}g,1.00,1,NA\n"), outcome).await?;
    let merged = rows_of(&app, "shop.products").await?;

    // A worker looks for old uploads when it starts.
    app.storing_process().kill9()?;
    execute(&app, "UPDATE uploads SET finished_at = '2024-01-01'").await?;
    app.restart_storing_process().await?;
    for id in [id, inserting] {
        eventually(TIMEOUT, "the written rows to be forgotten", async || {
            let upload = app.upload(id).await.ok().flatten();
            upload.is_some_and(|upload| upload["reversible"] == false)
        })
        .await?;
        let refused = problem(post_undo(&app, id).await?, 409, "not_reversible").await?;
        ensure!(detail(&refused)?.contains("CARGA_UNDO_DAYS"), "{refused}");
    }
    let left = texts(&app, "SELECT count(*)::text FROM written_rows").await?;
    ensure!(left == ["0"], "{left:?} written rows are left");
    ensure!(rows_of(&app, "shop.products").await? == merged);
    app.close().await
}

async fn post_undo(app: &App, id: Uuid) -> Result<Response> {
    let undo = app.client.post(format!("{}/uploads/{id}/undo", app.url));
    Ok(undo.send().await?)
}
