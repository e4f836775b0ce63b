//! The arms that fill a table with typed columns: a plain table, or the table of a dataset.

use anyhow::{Result, ensure};

use super::{
    Run, RunningCommand, carga_import, check_count, create_table, on_postgres, psql, sqlite_count,
    upload,
};
use crate::data::DataFile;
use crate::dataset;
use crate::rig::{Carga, Counts, Rig, new_data_directory};

/// Writes the rows of a file in COPY's binary format, so that `\copy` can load them into a table
/// with the columns and types of the file.
pub(crate) async fn encode_binary(rig: &Rig, file: &DataFile) -> Result<()> {
    create_table(rig, file, true).await?;
    copy_csv(rig, file)?.finish()?;
    let copy = format!(
        r"\copy plain TO '{}' (FORMAT binary)",
        file.binary().display()
    );
    psql(rig, &copy)?.finish()?;
    rig.execute("DROP TABLE plain").await
}

pub(super) async fn copy(rig: &Rig, file: &DataFile) -> Result<Run> {
    create_table(rig, file, true).await?;
    on_postgres(rig, file, "plain", || copy_csv(rig, file)).await
}

fn copy_csv(rig: &Rig, file: &DataFile) -> Result<RunningCommand> {
    let copy = format!(
        r"\copy plain FROM '{}' (FORMAT csv, HEADER, NULL '{}')",
        file.path.display(),
        file.null()
    );
    psql(rig, &copy)
}

pub(super) async fn copy_binary(rig: &Rig, file: &DataFile) -> Result<Run> {
    create_table(rig, file, true).await?;
    let copy = format!(
        r"\copy plain FROM '{}' (FORMAT binary)",
        file.binary().display()
    );
    on_postgres(rig, file, "plain", || psql(rig, &copy)).await
}

pub(super) async fn distributed(rig: &Rig, carga: &Carga, file: &DataFile) -> Result<Run> {
    dataset::declare(rig, carga, file).await?;
    let (run, counts) = upload(rig, carga, &query(), file).await?;
    let rejected = counts.rejected;
    ensure!(rejected == 0, "{rejected} rows were rejected");
    finish(rig, file, counts).await?;
    Ok(run)
}

/// An upload of which about one row in `one_in` violates a constraint of the table.
pub(super) async fn violations(
    rig: &Rig,
    carga: &Carga,
    file: &DataFile,
    one_in: u32,
) -> Result<Run> {
    dataset::declare(rig, carga, file).await?;
    dataset::constrain(rig, file, one_in).await?;
    let (run, counts) = upload(rig, carga, &query(), file).await?;
    let rejected = counts.rejected;
    let expected = file.rows as f64 / f64::from(one_in);
    ensure!(
        (rejected as f64 - expected).abs() <= 0.2 * expected,
        "{rejected} rows were rejected instead of about {expected:.0}"
    );
    finish(rig, file, counts).await?;
    Ok(run)
}

/// An upload that replaces the rows of an earlier upload, and inserts as many new ones.
pub(super) async fn update_half(rig: &Rig, carga: &Carga, file: &DataFile) -> Result<Run> {
    let earlier = file.earlier_half()?;
    let file = file.keyed()?;
    dataset::declare(rig, carga, &file).await?;
    // Appended rows are not staged, so the earlier upload leaves no dead rows in the landing table.
    let append = format!("{}&mode=append", query());
    carga.import_with(&append, &earlier, 1).await?;
    rig.execute(&format!("VACUUM (ANALYZE) {}", dataset::TABLE))
        .await?;
    rig.settle().await?;
    let (run, counts) = upload(rig, carga, &query(), &file).await?;
    let expected = Counts {
        inserted: file.rows - earlier.rows,
        updated: earlier.rows,
        rejected: 0,
    };
    ensure!(
        counts == expected,
        "expected {expected:?}, found {counts:?}"
    );
    finish(rig, &file, counts).await?;
    Ok(run)
}

/// The query of an upload into the dataset.
fn query() -> String {
    format!("?dataset={}", dataset::NAME)
}

/// Checks that the dataset's table has all rows that were not rejected. Then removes the dataset,
/// so that an autovacuum of its table does not slow down the next run.
async fn finish(rig: &Rig, file: &DataFile, counts: Counts) -> Result<()> {
    check_count(file, rig.count(dataset::TABLE).await? + counts.rejected)?;
    dataset::remove(rig).await
}

pub(super) async fn import(rig: &Rig, carga: &Carga, file: &DataFile) -> Result<Run> {
    dataset::declare(rig, carga, file).await?;
    on_postgres(rig, file, dataset::TABLE, || {
        let mut import = carga_import(carga, file, &new_data_directory()?)?;
        import
            .args(["--dataset", dataset::NAME])
            .env("DATABASE_URL", rig.database_url());
        RunningCommand::start("carga", import)
    })
    .await
}

pub(super) async fn import_sqlite(rig: &Rig, carga: &Carga, file: &DataFile) -> Result<Run> {
    let data = new_data_directory()?;
    dataset::declare_in_directory(&data, file)?;
    rig.settle().await?;
    let mut import = carga_import(carga, file, &data)?;
    import.args(["--dataset", dataset::NAME]);
    let run = RunningCommand::start("carga", import)?.finish()?;
    let rows = sqlite_count(&data.join("carga.db"), dataset::SQLITE_TABLE)?;
    check_count(file, rows)?;
    Ok(run)
}
