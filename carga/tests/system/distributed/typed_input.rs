//! Postgres reads the texts that Carga converts. Both read the same value, and Carga rejects a text
//! that Postgres accepts if, and only if, a documented rule says so.

mod reject_rules;
mod types;

use anyhow::{Result, anyhow, bail, ensure};
use carga_common::dataset::Definition;
use carga_intake::typed::{ColumnRules, canonical};
use carga_testkit::Scope;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use sqlx::PgConnection;

use types::{Type, types};

use crate::random::random_runner;

/// Texts in one query, and queries for each type.
const TEXTS: usize = 500;
const QUERIES: usize = 6;

const SETTINGS: &str = "SET datestyle TO ISO, YMD; SET timezone TO 'UTC'";

/// Reads a text as a value of a type, and writes the value. NULL if Postgres rejects the text.
const FUNCTION: &str = "CREATE FUNCTION pg_temp.read(type_name text, cell text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    written text;
BEGIN
    EXECUTE format('SELECT ($1::%s)::text', type_name) INTO written USING cell;
    RETURN written;
EXCEPTION WHEN others THEN
    RETURN NULL;
END
$$";

const READ: &str = "SELECT pg_temp.read($1, original), pg_temp.read($1, canonical)
FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS texts (original, canonical, number)
ORDER BY number";

#[tokio::test]
async fn postgres_reads_the_same_value_from_a_text_as_carga() -> Result<()> {
    let scope = Scope::new().await?;
    let mut connection = scope.pool().acquire().await?;
    for statement in [SETTINGS, FUNCTION] {
        sqlx::raw_sql(statement).execute(&mut *connection).await?;
    }
    let mut runner = random_runner();
    for kind in types()? {
        let name = kind.carga;
        let rules = rules(name)?;
        let mut converted = 0;
        for _ in 0..QUERIES {
            let texts = texts(&kind, &mut runner)?;
            converted += check(&mut connection, &kind, &rules, &texts).await?;
        }
        ensure!(
            converted > QUERIES * TEXTS / 10,
            "only {converted} texts are of type {name}"
        );
    }
    drop(connection);
    scope.close().await
}

/// The rules of a column of this type in which no cell means NULL.
fn rules(name: &str) -> Result<ColumnRules> {
    let json = format!(r#"{{"columns":[{{"name":"c","type":"{name}","null":[]}}]}}"#);
    let definition = Definition::from_json(json.as_bytes())?;
    Ok(ColumnRules::new(&definition, &definition.columns[0]))
}

fn texts(kind: &Type, runner: &mut TestRunner) -> Result<Vec<String>> {
    let text = |_| {
        let tree = kind.texts.new_tree(runner);
        let tree = tree.map_err(|reason| anyhow!("{reason}"))?;
        Ok(tree.current())
    };
    (0..TEXTS).map(text).collect()
}

/// Compares the values of some texts. Returns how many texts Carga converts.
async fn check(
    connection: &mut PgConnection,
    kind: &Type,
    rules: &ColumnRules,
    texts: &[String],
) -> Result<usize> {
    let convert = |text: &String| {
        let mut converted = String::new();
        canonical(rules, text, &mut converted).ok()?;
        Some(converted)
    };
    let canonicals: Vec<Option<String>> = texts.iter().map(convert).collect();
    let read = sqlx::query_as(READ)
        .bind(kind.postgres)
        .bind(texts)
        .bind(&canonicals);
    let values: Vec<(Option<String>, Option<String>)> = read.fetch_all(connection).await?;
    ensure!(values.len() == texts.len(), "{} values", values.len());
    for ((text, canonical), values) in texts.iter().zip(&canonicals).zip(values) {
        compare(kind, text, canonical.as_deref(), values)?;
    }
    Ok(canonicals.iter().flatten().count())
}

/// Compares Postgres' values of one text and of its canonical text.
fn compare(
    kind: &Type,
    text: &str,
    canonical: Option<&str>,
    values: (Option<String>, Option<String>),
) -> Result<()> {
    let name = kind.carga;
    match (canonical, values) {
        (Some(canonical), (_, None)) => {
            bail!("Postgres rejects {canonical:?}, made from {text:?} as {name}")
        }
        (Some(canonical), (Some(original), Some(value))) => {
            // The canonical form has no negative zero.
            let is_negative_zero = name == "float" && original == "-0" && value == "0";
            ensure!(
                original == value || is_negative_zero,
                "{text:?} as {name} is {original} to Postgres, and {canonical:?} is {value}"
            );
            ensure!(
                !(kind.is_rejected)(text, &original),
                "Carga converts {text:?} as {name}, and a documented rule rejects it"
            );
        }
        (None, (Some(original), _)) => ensure!(
            (kind.is_rejected)(text, &original),
            "{text:?} as {name} is {original} to Postgres, and no rule of Carga rejects it"
        ),
        (_, (None, _)) => {}
    }
    Ok(())
}
