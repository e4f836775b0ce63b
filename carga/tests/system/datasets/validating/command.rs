//! `carga validate` prints what an import would do.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};

use anyhow::{Result, ensure};
use carga_testkit::{Binary, DataDir, command};
use serde_json::Value;
use tempfile::TempDir;

use super::state::State;
use super::{figures, validate};
use crate::app::App;
use crate::datasets::merging::{BASE, Outcome, PRODUCTS, declare_products, merge};
use crate::datasets::options;
use crate::harness::{Harness, Mode};

in_both_modes! {
    the_command_prints_the_answer_of_the_api,
}

/// In order: an equal row, a row with another price, a new row, and a row that is rejected.
const FILE: &str = "sku,price,note\na,1.50,x\nb,4.50,NA\nd,9.00,y\ne,cheap,z\n";

/// Texts that the command prints about this file.
const SUMMARY: [&str; 4] = [
    "file.csv: 4 rows read, and nothing is stored",
    "would insert 1, update 1, leave 1 unchanged, and reject 1",
    "price   1",
    "line 5, column `price`: wrong_type",
];

/// The working directory and the settings of the commands.
struct Commands {
    directory: TempDir,
    env: BTreeMap<String, String>,
}

impl Commands {
    fn new(harness: &Harness) -> Result<Self> {
        Ok(Self {
            directory: TempDir::new()?,
            env: harness.env(),
        })
    }

    fn write(&self, name: &str, content: &str) -> Result<()> {
        Ok(std::fs::write(self.directory.path().join(name), content)?)
    }

    /// Runs a command. Fails unless it ends with this exit code and prints all these texts.
    fn run(&self, arguments: &[&str], code: i32, texts: &[&str]) -> Result<Output> {
        let output = command(Binary::Carga)?
            .args(arguments)
            .envs(&self.env)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()?;
        let printed = [output.stdout.clone(), output.stderr.clone()].concat();
        let printed = String::from_utf8(printed)?;
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?} ended with {}: {printed}",
            output.status
        );
        for text in texts {
            ensure!(printed.contains(text), "`{text}` is missing in:\n{printed}");
        }
        Ok(output)
    }

    /// Validates a file for `products`, with further arguments.
    fn validate(&self, file: &str, further: &[&str], code: i32, texts: &[&str]) -> Result<Output> {
        let flags = options(PRODUCTS, &[]);
        let flags = flags
            .iter()
            .map(|(name, value)| format!("--{name}={value}"));
        let flags: Vec<String> = flags.collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let arguments = [&["validate", file][..], &flags, further].concat();
        self.run(&arguments, code, texts)
    }
}

/// In embedded mode, the command asks the server. In distributed mode, it uses the database.
async fn the_command_prints_the_answer_of_the_api(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare_products(&app).await?;
    let outcome = Outcome {
        inserted: 3,
        ..Outcome::default()
    };
    merge(&app, &[], BASE, outcome).await?;
    let state = State::read(&app).await?;
    let expected = validate(&app, PRODUCTS, &[], FILE).await?;
    ensure!(expected["rows"] == figures([4, 1, 1, 1, 1]), "{expected}");

    let commands = Commands::new(&app.harness)?;
    commands.write("file.csv", FILE)?;
    commands.write("good.csv", BASE)?;
    commands.validate("file.csv", &[], 3, &SUMMARY)?;
    commands.validate("good.csv", &[], 0, &["leave 3 unchanged, and reject 0"])?;
    let json = ["--format", "json"];
    let output = commands.validate("file.csv", &json, 3, &[])?;
    let found: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(found == expected, "{found} instead of {expected}");
    let append = ["--mode", "append"];
    commands.validate("file.csv", &append, 3, &["insert 1, update 0"])?;
    let abort = ["--on-error", "abort"];
    commands.validate("file.csv", &abort, 1, &["wrong_type"])?;
    commands.validate("file.csv", &["--mode", "upsert"], 2, &["`mode`"])?;
    state.expect_unchanged(&app).await?;
    app.close().await
}

const DEFINITION: &str = r#"{
    "columns": [
        { "name": "sku", "type": "text" },
        { "name": "price", "type": "numeric" },
        { "name": "note", "type": "text" }
    ],
    "key": ["sku"],
    "null": ["NA"]
}"#;

#[tokio::test]
async fn the_command_needs_no_server_and_makes_no_data_directory() -> Result<()> {
    let harness = Harness::from(DataDir::new()?);
    let commands = Commands::new(&harness)?;
    commands.write("file.csv", FILE)?;
    commands.write("base.csv", BASE)?;
    commands.write("products.json", DEFINITION)?;
    // Without a dataset, every row is a new one.
    let plain = ["validate", "file.csv", "--delimiter=,", "--header=true"];
    commands.run(&plain, 0, &["4 rows read", "insert 4, update 0"])?;
    commands.validate("file.csv", &[], 1, &["dataset_not_found", PRODUCTS])?;
    let data = harness.directory()?.path();
    ensure!(!data.exists(), "{} exists", data.display());

    let put = ["dataset", "put", PRODUCTS, "products.json"];
    commands.run(&put, 0, &["is created"])?;
    let import = ["import", "base.csv", "--dataset", PRODUCTS];
    let dialect = ["--delimiter=,", "--header=true", "--skip=0"];
    commands.run(&[&import[..], &dialect].concat(), 0, &["3 rows"])?;
    let before = harness.table(PRODUCTS).await?;
    let uploads = commands.run(&["status"], 0, &["base.csv"])?;
    commands.validate("file.csv", &[], 3, &SUMMARY)?;
    commands.validate("base.csv", &[], 0, &["leave 3 unchanged"])?;
    let after = harness.table(PRODUCTS).await?;
    ensure!(after == before, "{after:?} instead of {before:?}");
    let listed = commands.run(&["status"], 0, &[])?;
    ensure!(listed.stdout == uploads.stdout, "{listed:?}");
    commands.validate("missing.csv", &[], 1, &["missing.csv"])?;
    harness.close().await
}
