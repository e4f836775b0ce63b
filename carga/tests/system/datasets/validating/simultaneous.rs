//! Validations and uploads that run at the same time do not see each other's rows.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::json;

use super::{figures, validate};
use crate::app::App;
use crate::datasets::merging::{BASE, Outcome, PRODUCTS, declare_products, merge};
use crate::harness::Mode;

in_both_modes! {
    simultaneous_validations_do_not_see_each_others_rows,
}

/// How many files are validated at the same time.
const FILES: usize = 6;

/// The new rows of a file. Every file has the keys of those before it, too.
const fn new_rows(file: usize) -> usize {
    150 * (file + 1)
}

fn file(file: usize) -> String {
    let rows = (0..new_rows(file)).map(|row| format!("s{row},1.50,{file}\n"));
    let rows: String = rows.collect();
    // An equal row, and a row that would be updated.
    format!("sku,price,note\na,1.50,x\nb,{file}.75,y\n{rows}")
}

async fn simultaneous_validations_do_not_see_each_others_rows(mode: Mode) -> Result<()> {
    const UPLOADED: u64 = 500;
    let app = App::start(mode.harness().await?, 1).await?;
    declare_products(&app).await?;
    let inserted = |rows| Outcome {
        inserted: rows,
        ..Outcome::default()
    };
    merge(&app, &[], BASE, inserted(3)).await?;
    let rows: String = (0..UPLOADED)
        .map(|row| format!("u{row},1.50,x\n"))
        .collect();
    let uploaded = format!("sku,price,note\n{rows}");
    let validations = (0..FILES).map(|number| validate(&app, PRODUCTS, &[], file(number)));
    let (validations, _) = tokio::try_join!(
        try_join_all(validations),
        merge(&app, &[], uploaded, inserted(UPLOADED)),
    )?;
    for (number, validation) in validations.iter().enumerate() {
        let new = new_rows(number);
        ensure!(
            validation["rows"] == figures([new + 2, new, 1, 1, 0])
                && validation["changed_columns"] == json!({ "note": 1, "price": 1 }),
            "file {number}: {validation}"
        );
    }
    let counts = "count(*), count(*) FILTER (WHERE sku LIKE 's%')";
    let counts = app.harness.typed(PRODUCTS, counts, counts).await?;
    ensure!(counts == json!([[3 + UPLOADED, 0]]), "{counts}");
    let rows = app.harness.table(PRODUCTS).await?;
    let length = u64::try_from(rows.len()).context("too many rows")?;
    ensure!(length == 3 + UPLOADED, "{length} rows");
    app.close().await
}
