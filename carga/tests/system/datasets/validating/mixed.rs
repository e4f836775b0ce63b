//! Rows with faults of every kind are rejected by a validation as by the upload of their file.

use anyhow::{Context, Result, ensure};
use proptest::test_runner::TestRunner;

use super::{FIRST_REJECTS, figures, validate_then_send};
use crate::app::App;
use crate::datasets::violations::prices::{self, File};
use crate::harness::Mode;

in_both_modes! {
    rows_with_faults_of_every_kind_are_rejected_as_the_upload_rejects_them,
}

/// The rows of each file.
const ROWS: usize = 1000;

/// The numbers of rows with a fault, and the values of the option `atomic`. Some faults are found
/// while the file is read, and some by the table.
const RUNS: [(usize, &str); 4] = [(9, "false"), (500, "false"), (16, "true"), (500, "true")];

async fn rows_with_faults_of_every_kind_are_rejected_as_the_upload_rejects_them(
    mode: Mode,
) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    prices::create(&app).await?;
    let mut runner = TestRunner::deterministic();
    for (round, (faulty, atomic)) in RUNS.into_iter().enumerate() {
        let file = File::new(mode, round * ROWS, ROWS, faulty, &mut runner)?;
        let further = [("unknown_columns", "ignore"), ("atomic", atomic)];
        let sent = validate_then_send(&app, prices::NAME, &further, file.text.clone(), &[]);
        let (validation, _) = sent.await?;
        ensure!(
            validation["rows"] == figures([ROWS, ROWS - faulty, 0, 0, faulty]),
            "{validation}"
        );
        let rejected = validation["rejected"].as_array().context("no rejects")?;
        let expected = file.rejects.iter().take(FIRST_REJECTS);
        ensure!(rejected.len() == expected.len(), "{}", rejected.len());
        for (found, expected) in rejected.iter().zip(expected) {
            expected.check(found)?;
        }
    }
    app.close().await
}
