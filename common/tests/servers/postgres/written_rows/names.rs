//! Tables whose names have characters that mean something in SQL.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, ensure};
use carga_common::dataset::{Mode, check_column_name, quote_identifier};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::Shop;

/// How many tables are made.
const TABLES: usize = 6;

/// Four different names of columns.
fn column_names() -> impl Strategy<Value = Vec<String>> {
    let name = prop_oneof!["[^\0]{1,15}", "[\"';\\\\.$%\\-/* \n\té🦀a]{1,15}"];
    let name = name.prop_filter("not a name", |name| check_column_name(name).is_ok());
    prop::collection::vec(name, 4).prop_filter("the same names", |names| {
        let names = names.iter().map(|name| name.to_ascii_lowercase());
        names.collect::<BTreeSet<_>>().len() == 4
    })
}

/// A table with a primary key of two columns. The last column is not one of the dataset.
fn table(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| quote_identifier(name)).collect();
    let [one, two, value, other] = &quoted[..] else {
        return String::new();
    };
    format!(
        "CREATE TABLE shop.prices ({one} text, {value} text, {two} text, {other} text DEFAULT 'x',
                                   PRIMARY KEY ({two}, {one}));
         INSERT INTO shop.prices ({one}, {two}, {value}) VALUES ('a', 'b', 'old'), ('b', 'a', 'old')"
    )
}

#[tokio::test]
async fn an_undo_works_with_any_names_of_columns() -> Result<()> {
    let mut runner = TestRunner::deterministic();
    for _ in 0..TABLES {
        let names = column_names().new_tree(&mut runner);
        let names = names.map_err(|reason| anyhow!("no names: {reason}"))?;
        let names = names.current();
        let columns: Vec<(&str, &str)> = names[..3]
            .iter()
            .map(|name| (name.as_str(), "text"))
            .collect();
        let key = [names[0].as_str(), names[1].as_str()];
        let shop = Shop::open(&table(&names), &columns, &key).await?;
        let before = shop.rows("p::text").await?;
        let given = super::rows(&[["a", "b", "new"], ["c", "c", "new"]]);
        let upload = shop.merge(Mode::Update, &given, [1, 1, 0]).await?;
        ensure!(shop.rows("p::text").await? != before, "{names:?}");
        shop.undo(&upload, [2, 0, 0]).await?;
        ensure!(shop.rows("p::text").await? == before, "{names:?}");
        shop.close().await?;
    }
    Ok(())
}
