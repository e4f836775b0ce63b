//! Definitions are recorded together with their tables.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use carga_common::dataset::{Dataset, DatasetKey, Definition};
use carga_common::store::{DeleteOutcome, PutOutcome, Store};
use carga_common::tenant::Tenant;
use futures::future::try_join_all;
use serde_json::json;

use super::{
    Cells, batches, begin, complete, count, create, definition, key, sample_cells,
    sample_definition, stored,
};
use crate::sample::first;
use crate::store::{
    Relation, StoreFixture, check_sample_rows, end_well, remove_all, rows, store_new,
};

async fn find(store: &dyn Store, key: &DatasetKey) -> Result<Dataset> {
    let found = store.dataset(key).await?;
    found.context("no such dataset")
}

async fn check_put(
    store: &dyn Store,
    key: &DatasetKey,
    definition: &Definition,
    expected: PutOutcome,
) -> Result<()> {
    let outcome = store.put_dataset(key, definition).await?;
    ensure!(
        outcome == expected,
        "expected {expected:?}, found {outcome:?}"
    );
    Ok(())
}

pub(crate) async fn a_definition_is_read_back_unchanged<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    let json = json!({
        "columns": [
            { "name": "sku", "type": "text", "required": true, "from": ["SKU", "código"] },
            { "name": "price", "type": "numeric", "decimal": ",", "thousands": ".", "currency": ["R$"] },
            { "name": "sold_on", "type": "date", "format": "%d/%m/%Y", "null": ["-"] },
            { "name": "paid", "type": "boolean", "true": ["sim"], "false": ["não"] },
            { "name": "say \"hi\" 🦀", "type": "json" },
        ],
        "null": ["", "NA"],
    });
    let definition = Definition::from_json(json.to_string().as_bytes())?;
    let key = key("Vendas é 2024")?;
    ensure!(other.dataset(&key).await?.is_none());
    create(store.as_ref(), &key, &definition).await?;
    for store in [&store, &other] {
        let found = find(store.as_ref(), &key).await?;
        ensure!(found.key() == key, "{found:?}");
        ensure!(found.definition == definition, "{found:?}");
        ensure!(found.definition.to_json() == definition.to_json());
        ensure!(found.created_at <= found.updated_at, "{found:?}");
    }
    Ok(())
}

pub(crate) async fn the_same_definition_again_changes_nothing<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (key, definition) = (key("sales")?, sample_definition()?);
    create(store.as_ref(), &key, &definition).await?;
    let created = find(store.as_ref(), &key).await?;
    let catalog = fixture.catalog().await?;
    check_put(store.as_ref(), &key, &definition, PutOutcome::Unchanged).await?;
    ensure!(find(store.as_ref(), &key).await? == created);

    // A rule for reading cells changes the record and not the table.
    let mut other = definition.clone();
    other.null = vec!["NA".to_owned()];
    check_put(store.as_ref(), &key, &other, PutOutcome::Changed).await?;
    check_put(store.as_ref(), &key, &other, PutOutcome::Unchanged).await?;
    let changed = find(store.as_ref(), &key).await?;
    ensure!(changed.definition == other, "{changed:?}");
    ensure!(changed.created_at == created.created_at, "{changed:?}");
    ensure!(changed.updated_at > created.updated_at, "{changed:?}");
    ensure!(fixture.catalog().await? == catalog);
    Ok(())
}

pub(crate) async fn a_nullable_column_is_added_and_older_rows_read_as_null<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let (key, narrow) = (key("sales")?, sample_definition()?);
    create(store.as_ref(), &key, &narrow).await?;
    let older = complete(store.as_ref(), &key, &narrow, &sample_cells(3)).await?;
    // This upload began before the change, and stores its rows after it.
    let receiving = begin(store.as_ref(), &key, &narrow).await?;
    let wide = definition(&json!([
        { "name": "number", "type": "integer", "required": true },
        { "name": "name", "type": "text" },
        { "name": "sold \"on\"", "type": "date" },
        { "name": "price", "type": "numeric" },
    ]))?;
    check_put(store.as_ref(), &key, &wide, PutOutcome::Changed).await?;
    ensure!(find(store.as_ref(), &key).await?.definition == wide);
    let of_receiving = batches(receiving, &narrow, &sample_cells(2))?;
    store_new(store.as_ref(), &of_receiving).await?;
    end_well(store.as_ref(), receiving, 1, 2).await?;
    let row = ["7", "new", "2024-02-29", "1.50"].map(|text| Some(text.to_owned()));
    let newer = complete(store.as_ref(), &key, &wide, &[row.to_vec()]).await?;

    let with_nulls = |count| -> Vec<Cells> {
        let rows = sample_cells(count).into_iter();
        rows.map(|row| [row, vec![None, None]].concat()).collect()
    };
    for relation in [Relation::Table, Relation::View] {
        for (id, expected) in [
            (older, with_nulls(3)),
            (receiving, with_nulls(2)),
            (newer, vec![row.to_vec()]),
        ] {
            let found = stored(fixture, relation, (&key, &wide), id).await?;
            ensure!(found == expected, "{relation:?}: {found:?}");
        }
    }
    // The rows of an upload have the columns that its dataset had then.
    check_sample_rows(store.as_ref(), older, 3).await?;
    check_sample_rows(store.as_ref(), receiving, 2).await?;
    ensure!(rows(store.as_ref(), newer).await?[0].fields == row);
    Ok(())
}

pub(crate) async fn a_change_that_the_table_cannot_take_is_refused_with_its_reason<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let key = key("sales")?;
    let number = json!({ "name": "number", "type": "integer", "required": true });
    let text = json!({ "name": "name", "type": "text" });
    let given = definition(&json!([&number, &text]))?;
    create(store.as_ref(), &key, &given).await?;
    complete(store.as_ref(), &key, &given, &sample_cells(3)).await?;
    let before = find(store.as_ref(), &key).await?;
    let catalog = fixture.catalog().await?;
    for (columns, column) in [
        (json!([&number]), "`name`"),
        (json!([&text, &number]), "`number`"),
        (
            json!([&number, { "name": "name", "type": "json" }]),
            "`name`",
        ),
        (
            json!([&number, { "name": "name", "type": "text", "required": true }]),
            "`name`",
        ),
        (
            json!([{ "name": "number", "type": "integer" }, &text]),
            "`number`",
        ),
        (
            json!([&number, &text, { "name": "day", "type": "date", "required": true }]),
            "`day`",
        ),
    ] {
        let outcome = store.put_dataset(&key, &definition(&columns)?).await?;
        let PutOutcome::Refused(reason) = outcome else {
            anyhow::bail!("{columns}: {outcome:?}");
        };
        ensure!(reason.contains(column), "{columns}: {reason}");
        ensure!(find(store.as_ref(), &key).await? == before, "{columns}");
        ensure!(fixture.catalog().await? == catalog, "{columns}");
    }
    ensure!(count(fixture, Relation::View, &key).await? == 3);
    Ok(())
}

pub(crate) async fn a_dataset_of_an_unfit_table_is_not_created<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let key = key("sales")?;
    // On Postgres, the table does not exist. On SQLite, no table of the user is supported.
    let missing = Definition {
        table: Some("no schema.no table".parse()?),
        ..sample_definition()?
    };
    let catalog = fixture.catalog().await?;
    let outcome = store.put_dataset(&key, &missing).await?;
    let PutOutcome::Unfit(fault) = outcome else {
        anyhow::bail!("{outcome:?}");
    };
    ensure!(fault.message.contains("no schema.no table"), "{fault}");
    let checked = store.check_table(&missing, &["number", "name"]).await?;
    ensure!(checked.is_err_and(|other| other.code == fault.code));
    ensure!(store.dataset(&key).await?.is_none());
    ensure!(fixture.catalog().await? == catalog);

    // A dataset that has a table of its own keeps its definition and its table.
    create(store.as_ref(), &key, &sample_definition()?).await?;
    let (created, catalog) = (find(store.as_ref(), &key).await?, fixture.catalog().await?);
    let outcome = store.put_dataset(&key, &missing).await?;
    let is_refused = matches!(outcome, PutOutcome::Refused(_) | PutOutcome::Unfit(_));
    ensure!(is_refused, "{outcome:?}");
    ensure!(find(store.as_ref(), &key).await? == created);
    ensure!(fixture.catalog().await? == catalog);
    Ok(())
}

pub(crate) async fn datasets_are_listed_by_name_in_pages<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let tenant = Tenant::default();
    ensure!(store.datasets(&tenant, None, 10).await?.is_empty());
    let mut expected = BTreeSet::new();
    for text in [
        "sales", "Orders", "é", "z", "10", "9", "a b", "a", "🦀", "_a", "\"", "rows",
    ] {
        let key = key(text)?;
        create(store.as_ref(), &key, &sample_definition()?).await?;
        expected.insert(key.name);
    }
    for limit in [1, 5, 12, 100] {
        let listed = pages(store.as_ref(), limit).await?;
        let names = listed.iter().map(|dataset| &dataset.name);
        ensure!(names.eq(&expected), "{limit} per page: {listed:?}");
    }
    // A page also starts behind a name that no dataset has.
    let found = store.datasets(&tenant, Some(&"s".parse()?), 1).await?;
    ensure!(found.len() == 1 && found[0].name.as_str() == "sales");
    ensure!(found[0] == find(store.as_ref(), &key("sales")?).await?);
    Ok(())
}

pub(crate) async fn a_page_of_datasets_is_bounded_in_bytes<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    const LARGE: usize = 600_000;
    let store = fixture.open().await?;
    let column = |number: usize| {
        let other = |index: usize| format!("another name of column {number} in file {index}");
        let others: Vec<String> = (0..20).map(other).collect();
        json!({ "name": format!("column {number}"), "type": "text", "from": others })
    };
    let columns: Vec<_> = (0..1000).map(column).collect();
    let large = definition(&json!(columns))?;
    ensure!(large.to_json().to_string().len() > LARGE);
    for text in ["a", "b", "c", "d"] {
        create(store.as_ref(), &key(text)?, &large).await?;
    }
    create(store.as_ref(), &key("e")?, &sample_definition()?).await?;
    let page = store.datasets(&Tenant::default(), None, 100).await?;
    ensure!((1..=2).contains(&page.len()), "{} datasets", page.len());
    let all = pages(store.as_ref(), 100).await?;
    let names = all.iter().map(|dataset| dataset.name.as_str());
    ensure!(
        names.eq(["a", "b", "c", "d", "e"]),
        "{} datasets",
        all.len()
    );
    Ok(())
}

/// All datasets, read in pages of `limit`.
async fn pages(store: &dyn Store, limit: u32) -> Result<Vec<Dataset>> {
    let mut all: Vec<Dataset> = Vec::new();
    loop {
        let after = all.last().map(|dataset| &dataset.name);
        let page = store.datasets(&Tenant::default(), after, limit).await?;
        ensure!(page.len() <= limit as usize);
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

pub(crate) async fn concurrent_puts_of_one_name_create_it_once<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handles = [fixture.open().await?, fixture.open().await?];
    let (key, definition) = (key("sales")?, sample_definition()?);
    let puts = (0..8).map(|number| {
        let store = handles[number % 2].clone();
        let (key, definition) = (key.clone(), definition.clone());
        tokio::spawn(async move { store.put_dataset(&key, &definition).await })
    });
    let mut created = 0;
    for outcome in try_join_all(puts).await? {
        match outcome? {
            PutOutcome::Created => created += 1,
            PutOutcome::Unchanged => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!(created == 1, "created {created} times");
    let store = handles[0].as_ref();
    complete(store, &key, &definition, &sample_cells(1)).await?;
    ensure!(count(fixture, Relation::View, &key).await? == 1);
    Ok(())
}

/// Names of datasets that could leave their quotes, hit another table, or be cut.
fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "\"",
        "\"\"",
        "a\"b",
        "'",
        "a'; DROP TABLE uploads; --",
        "b\"; DROP TABLE uploads; --",
        ";DROP TABLE rows",
        "uploads",
        "datasets",
        "public.uploads",
        "\".\"",
        "rows",
        "select",
        "c d",
        " a ",
        "$1 ?1 :a %s {0}",
        "\\",
        "[a]`b`",
        "*",
        "é🦀",
        "\u{202e}",
    ]
    .map(String::from)
    .to_vec();
    names.push("x".repeat(58));
    names.push("é".repeat(28) + "\"\"");
    names
}

/// A definition whose columns have odd names: those of datasets, the longest ones, and some that
/// Carga's statements use. No two of them are spellings of one name.
fn odd_columns() -> Result<Definition> {
    let mut names = odd_names();
    names.extend(
        [
            "id", "key", "value", "number", "t", "u", "rowid", "oid", "user", "e\nf",
        ]
        .map(String::from),
    );
    names.push("\"".repeat(63));
    names.push("é".repeat(31) + ";");
    names.push("x".repeat(63));
    let columns = names.iter();
    let columns: Vec<_> = columns
        .map(|name| json!({ "name": name, "type": "text" }))
        .collect();
    definition(&json!(columns))
}

pub(crate) async fn names_with_quotes_and_semicolons_change_nothing_but_their_own_table<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let store = fixture.open().await?;
    let landing = crate::store::complete(store.as_ref(), 1, 10).await?;
    let definition = odd_columns()?;
    let row = |number| -> Cells {
        let columns = 0..definition.columns.len();
        columns.map(|at| Some(format!("{number}/{at}"))).collect()
    };
    let expected = [row(1), row(2)];
    let empty = fixture.catalog().await?;
    for text in odd_names() {
        let key = key(&text)?;
        create(store.as_ref(), &key, &definition).await?;
        let catalog = fixture.catalog().await?;
        let is_kept = empty.iter().all(|line| catalog.contains(line));
        ensure!(is_kept, "{key:?}: {catalog:?}");
        let id = complete(store.as_ref(), &key, &definition, &expected).await?;
        for relation in [Relation::Table, Relation::View] {
            let found = stored(fixture, relation, (&key, &definition), id).await?;
            ensure!(found == expected, "{key:?}: {found:?}");
        }
        let found = rows(store.as_ref(), id).await?;
        ensure!(found.iter().map(|row| &row.fields).eq(&expected));

        ensure!(store.undo(first(id)).await?);
        remove_all(store.as_ref(), id).await?;
        let deleted = store.delete_dataset(&key).await?;
        ensure!(deleted == DeleteOutcome::Deleted, "{key:?}: {deleted:?}");
        ensure!(fixture.catalog().await? == empty, "{key:?}");
    }
    check_sample_rows(store.as_ref(), landing, 10).await
}
