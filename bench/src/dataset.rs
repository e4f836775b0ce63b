//! The dataset of the typed arms, in Postgres.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::data::{DataFile, Shape};
use crate::rig::{Carga, Rig};

pub(crate) const NAME: &str = "bench";
pub(crate) const TABLE: &str = "datasets.bench";

/// Declares the dataset with the columns and types of the file. The dataset of an earlier run is
/// removed first.
pub(crate) async fn declare(rig: &Rig, carga: &Carga, file: &DataFile) -> Result<()> {
    rig.execute(&format!(
        "DROP TABLE IF EXISTS {TABLE} CASCADE; DELETE FROM datasets WHERE name = '{NAME}'"
    ))
    .await?;
    let columns = file.columns.iter();
    let columns = columns.map(|(name, kind)| json!({ "name": name, "type": type_of(kind) }));
    let columns: Vec<Value> = columns.collect();
    let definition = json!({ "columns": columns, "null": [file.null()] });
    let put = carga.client.put(format!("{}/datasets/{NAME}", carga.url));
    let answer = put.json(&definition).send().await?;
    let status = answer.status();
    ensure!(
        status == 201,
        "the dataset was refused with {status}: {}",
        answer.text().await?
    );
    Ok(())
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
