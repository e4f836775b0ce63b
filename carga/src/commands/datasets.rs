//! `carga dataset`. SQLite has one writer at a time, so `put` and `delete` ask the `carga serve`
//! that uses the data directory. If no server runs, they lock the directory and change the store
//! themselves.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use carga_api::view::DatasetView;
use carga_common::dataset::{
    Dataset, DatasetKey, DatasetName, Definition, MAX_DEFINITION_BYTES, TableFault, TableName,
    quote_identifier,
};
use carga_common::local_server::{LocalServer, Request, path_segment};
use carga_common::settings::{PortSettings, Settings, StoreLocation};
use carga_common::store::{DeleteOutcome, PutOutcome, Store};
use carga_common::tenant::Tenant;
use carga_intake::refusal::Refusal;
use futures::TryStreamExt;
use serde_json::Value;

use super::input::Input;
use super::{connect, server, store_to_read, suggest};
use crate::arguments::DatasetCommand;
use crate::data_dir::Entry;
use crate::instance;
use crate::output::{print, printable, printable_json};
use crate::table::table;

/// How many datasets are read at once.
const PAGE: u32 = 100;

pub(crate) async fn run(settings: &Settings, command: DatasetCommand) -> anyhow::Result<ExitCode> {
    let text = match command {
        DatasetCommand::Put { name, file } => put(settings, &name, &file).await?,
        DatasetCommand::Suggest {
            file,
            json,
            options,
        } => suggest::run(settings, &file, &options.by_name(), json).await?,
        DatasetCommand::Show { name } => show(settings, &name).await?,
        DatasetCommand::List => list(settings).await?,
        DatasetCommand::Delete { name } => delete(settings, &name).await?,
    };
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The relation to query for the rows of a dataset: its view, or the table of the user.
pub(super) fn relation(
    store: &StoreLocation,
    key: &DatasetKey,
    table: Option<&TableName>,
) -> String {
    match table {
        Some(table) => format!("table {}", table.quoted()),
        None => format!("view {}", view_name(store, key)),
    }
}

/// The view of a dataset's rows, as SQL names it.
fn view_name(store: &StoreLocation, key: &DatasetKey) -> String {
    match store {
        StoreLocation::Postgres(_) => key.postgres_view().quoted(),
        StoreLocation::Sqlite(_) => quote_identifier(&key.sqlite_view()),
    }
}

/// The dataset with this name of the tenant `default`.
fn key(name: &DatasetName) -> DatasetKey {
    DatasetKey::new(Tenant::default(), name.clone())
}

async fn put(settings: &Settings, name: &DatasetName, file: &Path) -> anyhow::Result<String> {
    let json = read(file).await?;
    // Parsed here too, so that a fault is found without a server or a database.
    let definition = Definition::from_json(&json).with_context(|| file.display().to_string())?;
    let store = &settings.ports.locations.store;
    if let (StoreLocation::Sqlite(_), Some(table)) = (store, &definition.table) {
        let fault = TableFault::needs_postgres(table);
        bail!(Refusal::unfit_table(name, &fault).failure.message);
    }
    // Held until the dataset is changed.
    let entry = enter(&settings.ports).await?;
    let outcome = match entry {
        Some(Entry::Server(running)) => {
            let server = server::trusted(running, settings)?;
            put_there(settings, &server, name, &json).await?
        }
        Some(Entry::Locked { .. }) | None => put_here(&settings.ports, name, &definition).await?,
    };
    let done = match outcome {
        PutOutcome::Created => "created",
        PutOutcome::Changed => "changed",
        PutOutcome::Unchanged => "unchanged",
        PutOutcome::Refused(reason) => {
            bail!(Refusal::dataset_conflict(name, &reason).failure.message)
        }
        PutOutcome::Unfit(fault) => bail!(Refusal::unfit_table(name, &fault).failure.message),
    };
    let relation = relation(store, &key(name), definition.table.as_ref());
    let text = format!("dataset {name} is {done}; its rows are in the {relation}\n");
    Ok(printable(&text))
}

async fn show(settings: &Settings, name: &DatasetName) -> anyhow::Result<String> {
    let store = store_to_read(settings).await?;
    let found = store.dataset(&key(name)).await;
    store.close().await;
    let dataset = found?.with_context(|| Refusal::no_such_dataset(name).failure.message)?;
    Ok(printable_json(&DatasetView::from(dataset))?)
}

async fn list(settings: &Settings) -> anyhow::Result<String> {
    let store = store_to_read(settings).await?;
    let listed = all_datasets(store.as_ref(), &settings.ports.locations.store).await;
    store.close().await;
    let heading = ["DATASET", "COLUMNS", "UPDATED", "VIEW"].map(str::to_owned);
    let mut rows = vec![heading.to_vec()];
    rows.extend(listed?);
    Ok(table(&rows, usize::MAX))
}

/// A line of the list for each dataset. A page of the store is dropped before the next is read.
async fn all_datasets(
    store: &dyn Store,
    location: &StoreLocation,
) -> anyhow::Result<Vec<Vec<String>>> {
    let tenant = Tenant::default();
    let mut lines = Vec::new();
    let mut last = None;
    loop {
        let page = store.datasets(&tenant, last.as_ref(), PAGE).await?;
        let Some(dataset) = page.last() else {
            return Ok(lines);
        };
        last = Some(dataset.name.clone());
        lines.extend(page.iter().map(|dataset| line(dataset, location)));
    }
}

fn line(dataset: &Dataset, location: &StoreLocation) -> Vec<String> {
    vec![
        dataset.name.to_string(),
        dataset.definition.columns.len().to_string(),
        format!("{:.0}", dataset.updated_at),
        match &dataset.definition.table {
            Some(table) => format!("table {}", table.quoted()),
            None => view_name(location, &dataset.key()),
        },
    ]
}

async fn delete(settings: &Settings, name: &DatasetName) -> anyhow::Result<String> {
    // Without a store there is nothing to delete, and this command should not create it.
    store_to_read(settings).await?.close().await;
    // Held until the dataset is deleted.
    let entry = enter(&settings.ports).await?;
    match entry {
        Some(Entry::Server(running)) => {
            let server = server::trusted(running, settings)?;
            let path = format!("/datasets/{}", path_segment(name.as_str()));
            let request = Request {
                method: "DELETE",
                path: &path,
                key: settings.access.admin_key.as_ref(),
                json: None,
            };
            server::ask(&server, request).await?;
        }
        Some(Entry::Locked { .. }) | None => delete_here(&settings.ports, name).await?,
    }
    Ok(printable(&format!("dataset {name} is deleted\n")))
}

/// Asks the server. It answers 200 to a definition that changes the dataset and to one that does
/// not, so the time of the last change is compared.
async fn put_there(
    settings: &Settings,
    server: &LocalServer,
    name: &DatasetName,
    json: &[u8],
) -> anyhow::Result<PutOutcome> {
    let store = store_to_read(settings).await?;
    let found = store.dataset(&key(name)).await;
    store.close().await;
    let before = found?.map(|dataset| dataset.updated_at.to_string());
    let path = format!("/datasets/{}", path_segment(name.as_str()));
    let request = Request {
        method: "PUT",
        path: &path,
        key: settings.access.admin_key.as_ref(),
        json: Some(json),
    };
    let answer = server::ask(server, request).await?;
    if answer.status.starts_with("201") {
        return Ok(PutOutcome::Created);
    }
    let dataset: Value = serde_json::from_str(&answer.body)?;
    Ok(match dataset["updated_at"].as_str() == before.as_deref() {
        true => PutOutcome::Unchanged,
        false => PutOutcome::Changed,
    })
}

/// Changes the store in this process.
async fn put_here(
    ports: &PortSettings,
    name: &DatasetName,
    definition: &Definition,
) -> anyhow::Result<PutOutcome> {
    let store = connect(ports, ports.migrate).await?;
    let outcome = store.put_dataset(&key(name), definition).await;
    store.close().await;
    Ok(outcome?)
}

/// Changes the store in this process.
async fn delete_here(ports: &PortSettings, name: &DatasetName) -> anyhow::Result<()> {
    let store = connect(ports, ports.migrate).await?;
    let outcome = store.delete_dataset(&key(name)).await;
    store.close().await;
    match outcome? {
        DeleteOutcome::Deleted => Ok(()),
        DeleteOutcome::Missing => bail!(Refusal::no_dataset_to_delete(name).failure.message),
        DeleteOutcome::InUse { uploads } => {
            bail!(Refusal::dataset_in_use(name, uploads).failure.message)
        }
    }
}

async fn enter(ports: &PortSettings) -> anyhow::Result<Option<Entry>> {
    instance::enter(ports, "carga dataset").await
}

async fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut pieces = Input::open(file).await?.pieces();
    let mut definition = Vec::new();
    loop {
        let piece = pieces.try_next().await;
        let piece = piece.with_context(|| format!("cannot read {}", file.display()))?;
        let Some(piece) = piece else {
            return Ok(definition);
        };
        definition.extend_from_slice(&piece);
        ensure!(
            definition.len() <= MAX_DEFINITION_BYTES,
            "{} has more than {MAX_DEFINITION_BYTES} bytes, which is too much for a definition",
            file.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_view_has_the_quoted_name_of_its_dataset() {
        let store = StoreLocation::Sqlite(PathBuf::from("carga.db"));
        let key = key(&"my \"sales\"".parse().unwrap());
        assert_eq!(view_name(&store, &key), r#""datasets_my ""sales""_rows""#);
        assert_eq!(
            relation(&store, &key, None),
            r#"view "datasets_my ""sales""_rows""#
        );
    }

    #[test]
    fn the_rows_of_a_dataset_with_a_table_of_the_user_are_in_this_table() {
        let store = StoreLocation::Sqlite(PathBuf::from("carga.db"));
        let table = "shop.\"prices\"".parse().unwrap();
        let relation = relation(&store, &key(&"sales".parse().unwrap()), Some(&table));
        assert_eq!(relation, r#"table "shop"."""prices""""#);
    }
}
