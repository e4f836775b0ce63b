//! Rows are merged by their key into a table that has rows of an application.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{HEADER, declare_imports, execute, merge, products, rows_of, start, texts, versions};
use crate::datasets::merging::Outcome;
use crate::datasets::violations::rejected_rows;

/// In order: an equal row, an empty text instead of NULL, a new row, two rows with one key, of
/// which the last wins, and a row that is rejected before the merge.
const FILE: &str = "\
sku,price,stock,note
a,1.50,1,x
b,2.50,2,
d,9.00,4,y
c,7.00,7,z
c,8.00,8,z
e,cheap,1,z
";

const MERGED: Outcome = Outcome {
    inserted: 1,
    updated: 2,
    duplicate: 2,
    rejected: 1,
};

#[tokio::test]
async fn update_replaces_rows_of_the_application_and_counts_exactly() -> Result<()> {
    let app = start(1).await?;
    declare_imports(&app).await?;
    let untouched = versions(&app, &["a", "own", "void"]).await?;
    let ids = texts(&app, "SELECT sku || id FROM shop.products ORDER BY 1").await?;
    merge(&app, &[], FILE, MERGED).await?;
    let rows = products(&app).await?;
    // The columns that the file lacks keep their values, or have their defaults in a new row.
    let expected = json!([
        ["a", "1.50", 1, "x", "app"],
        ["b", "2.50", 2, "", "app"],
        ["c", "8.00", 8, "z", "app"],
        ["d", "9.00", 4, "y", "unknown"],
        ["own", "9.00", 9, "", "app"],
        ["void", null, 0, null, "app"],
    ]);
    ensure!(rows == expected, "{rows}");
    let after = versions(&app, &["a", "own", "void"]).await?;
    ensure!(after == untouched, "{after:?} instead of {untouched:?}");

    // The database makes the other values, and runs the trigger once for each change.
    let old = "SELECT sku || id FROM shop.products WHERE sku <> 'd' ORDER BY 1";
    ensure!(texts(&app, old).await? == ids, "an identity has changed");
    let total = "SELECT total::text FROM shop.products WHERE sku IN ('c', 'd') ORDER BY sku";
    let total = texts(&app, total).await?;
    ensure!(total == ["64.00", "36.00"], "{total:?}");
    let history = "SELECT sku || change FROM shop.history WHERE change = 'UPDATE' OR sku = 'd'
                   ORDER BY 1";
    let history = texts(&app, history).await?;
    ensure!(history == ["bUPDATE", "cUPDATE", "dINSERT"], "{history:?}");

    // The same file again changes nothing.
    let before = versions(&app, &["a", "b", "c", "d", "own", "void"]).await?;
    let outcome = Outcome {
        duplicate: 5,
        rejected: 1,
        ..Outcome::default()
    };
    merge(&app, &[("mode", "update")], FILE, outcome).await?;
    let after = versions(&app, &["a", "b", "c", "d", "own", "void"]).await?;
    ensure!(after == before, "{after:?} instead of {before:?}");
    app.close().await
}

#[tokio::test]
async fn ignore_and_append_keep_the_rows_of_the_application() -> Result<()> {
    let app = start(1).await?;
    declare_imports(&app).await?;
    let base = ["a", "b", "c", "own", "void"];
    let before = versions(&app, &base).await?;
    // One key is there, and of two rows with one key the first wins.
    let file = format!("{HEADER}a,5.00,5,q\nd,1.00,1,first\nd,2.00,2,second\n");
    let outcome = Outcome {
        inserted: 1,
        duplicate: 2,
        ..Outcome::default()
    };
    merge(&app, &[("mode", "ignore")], file, outcome).await?;
    let rows = products(&app).await?;
    ensure!(
        rows[3] == json!(["d", "1.00", 1, "first", "unknown"]),
        "{rows}"
    );

    let file = format!("{HEADER}d,5.00,5,q\ne,1.00,1,x\nown,1.00,1,x\ne,2.00,2,x\n");
    let outcome = Outcome {
        inserted: 1,
        rejected: 3,
        ..Outcome::default()
    };
    let id = merge(&app, &[("mode", "append")], file, outcome).await?;
    let rejected = rejected_rows(&app, id).await?;
    let numbers = rejected.iter().map(|row| row["row"].as_u64());
    ensure!(numbers.eq([1, 3, 4].map(Some)), "{rejected:?}");
    for row in &rejected {
        let reason = ["code", "column", "constraint"].map(|field| row[field].clone());
        ensure!(
            json!(reason) == json!(["unique_violation", "sku", "sku_once"]),
            "{row}"
        );
    }
    let after = versions(&app, &base).await?;
    ensure!(after == before, "{after:?} instead of {before:?}");
    ensure!(rows_of(&app, "shop.products").await?.len() == 7);
    app.close().await
}

#[tokio::test]
async fn columns_that_the_file_lacks_keep_their_values_or_get_their_defaults() -> Result<()> {
    let app = start(1).await?;
    declare_imports(&app).await?;
    let file = "price,sku\n1.50,a\n8.00,c\n9.00,d\nNA,b\n";
    let outcome = Outcome {
        inserted: 1,
        updated: 2,
        duplicate: 1,
        ..Outcome::default()
    };
    merge(&app, &[], file, outcome).await?;
    let rows = products(&app).await?;
    let expected = json!([
        ["a", "1.50", 1, "x", "app"],
        ["b", null, 2, null, "app"],
        ["c", "8.00", 3, "z", "app"],
        ["d", "9.00", 0, null, "unknown"],
        ["own", "9.00", 9, "", "app"],
        ["void", null, 0, null, "app"],
    ]);
    ensure!(rows == expected, "{rows}");
    app.close().await
}

#[tokio::test]
async fn a_merge_sees_what_the_application_has_changed_since_the_last_one() -> Result<()> {
    let app = start(1).await?;
    declare_imports(&app).await?;
    merge(&app, &[], FILE, MERGED).await?;
    execute(
        &app,
        "UPDATE shop.products SET stock = 77, changed_by = 'clerk' WHERE sku = 'b';
         UPDATE shop.products SET changed_by = 'clerk' WHERE sku = 'a';
         DELETE FROM shop.products WHERE sku = 'c';
         INSERT INTO shop.products (sku, price, stock, note, changed_by)
         VALUES ('f', 1.00, 1, 'new', 'clerk');",
    )
    .await?;
    let untouched = versions(&app, &["a", "d", "f", "own", "void"]).await?;
    // Rows `a` and `d` are the same in all columns of the file, `b` is replaced, and `c` is new.
    let outcome = Outcome {
        inserted: 1,
        updated: 1,
        duplicate: 3,
        rejected: 1,
    };
    merge(&app, &[], FILE, outcome).await?;
    let rows = products(&app).await?;
    let expected = json!([
        ["a", "1.50", 1, "x", "clerk"],
        ["b", "2.50", 2, "", "clerk"],
        ["c", "8.00", 8, "z", "unknown"],
        ["d", "9.00", 4, "y", "unknown"],
        ["f", "1.00", 1, "new", "clerk"],
        ["own", "9.00", 9, "", "app"],
        ["void", null, 0, null, "app"],
    ]);
    ensure!(rows == expected, "{rows}");
    let after = versions(&app, &["a", "d", "f", "own", "void"]).await?;
    ensure!(after == untouched, "{after:?} instead of {untouched:?}");
    app.close().await
}
