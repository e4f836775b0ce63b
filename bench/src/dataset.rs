//! The dataset of the typed arms.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Result, ensure};
use carga_testkit::{Binary, command};
use serde_json::{Value, json};

use crate::data::{DataFile, KEY, Shape, directory};
use crate::rig::{Carga, Rig};

pub(crate) const NAME: &str = "bench";
/// The table in Postgres.
pub(crate) const TABLE: &str = "datasets.bench";
/// The table in SQLite.
pub(crate) const SQLITE_TABLE: &str = "datasets_bench";

/// Declares the dataset in Postgres. The dataset of an earlier run is removed first.
pub(crate) async fn declare(rig: &Rig, carga: &Carga, file: &DataFile) -> Result<()> {
    remove(rig).await?;
    let put = carga.client.put(format!("{}/datasets/{NAME}", carga.url));
    let answer = put.json(&definition(file)).send().await?;
    let status = answer.status();
    ensure!(
        status == 201,
        "the dataset was refused with {status}: {}",
        answer.text().await?
    );
    Ok(())
}

/// Removes the dataset from Postgres, if it is there.
pub(crate) async fn remove(rig: &Rig) -> Result<()> {
    // The table has a view.
    rig.execute(&format!(
        "DROP TABLE IF EXISTS {TABLE} CASCADE; DELETE FROM datasets WHERE name = '{NAME}'"
    ))
    .await
}

/// Declares the dataset in the SQLite database of a data directory.
pub(crate) fn declare_in_directory(data: &Path, file: &DataFile) -> Result<()> {
    let path = directory()?.join("definition.json");
    std::fs::write(&path, definition(file).to_string())?;
    let put = command(Binary::Carga)?
        .args(["dataset", "put", NAME])
        .arg(&path)
        .env("CARGA_DATA_DIR", data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    ensure!(put.success(), "carga dataset put failed ({put})");
    Ok(())
}

/// A definition with the columns and types of the file. If the file has a key, rows are replaced by
/// it.
fn definition(file: &DataFile) -> Value {
    let columns = file.columns.iter();
    let columns = columns.map(|(name, kind)| json!({ "name": name, "type": type_of(kind) }));
    let columns: Vec<Value> = columns.collect();
    let mut definition = json!({ "columns": columns, "null": [file.null()] });
    if file.columns.iter().any(|(name, _)| name == KEY) {
        definition["key"] = json!([KEY]);
        definition["mode"] = json!("update");
    }
    definition
}

/// Adds a CHECK constraint to the dataset's table. About one row in `one_in` violates it.
pub(crate) async fn constrain(rig: &Rig, file: &DataFile, one_in: u32) -> Result<()> {
    let number = match file.shape {
        Shape::Flights => "13 * flight + 7 * sched_dep_time + distance",
        Shape::Narrow | Shape::Quoted => "id",
        Shape::Wide => "column_01",
    };
    rig.execute(&format!(
        "ALTER TABLE {TABLE} ADD CONSTRAINT bench CHECK (({number}) % {one_in} <> 0)"
    ))
    .await
}

/// The type in a definition for a type of Postgres.
fn type_of(column: &str) -> &str {
    match column {
        "float8" => "float",
        "timestamptz" => "timestamp",
        same => same,
    }
}
