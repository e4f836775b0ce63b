//! A table of the user, whose schema, columns, constraints and domain have random names.

use anyhow::{Context, Result, ensure};
use proptest::prelude::*;
use serde_json::{Value, json};
use sqlx::types::Json;
use uuid::Uuid;

use super::before::{self, Before};
use super::random::{MAX_BYTES, are_distinct, dataset, draw, name, twins};
use super::{GOOD, READING, ROUNDS, check_rejected, file_of, validate, with_rows};
use crate::app::App;
use crate::datasets::merging::{Outcome, send_accepted};
use crate::datasets::undoing_merges::undo_merge;
use crate::datasets::user_tables::catalog::Catalog;
use crate::datasets::user_tables::{definition_of, execute, pool, rows_of};
use crate::datasets::violations::rejected_rows;
use crate::datasets::{delete, put};
use crate::harness::{Mode, quoted};
use crate::random::random_runner;

/// The names of a dataset and of the objects of the user.
#[derive(Debug)]
struct Names {
    dataset: String,
    schema: String,
    table: String,
    /// The table to which the foreign key refers.
    partner: String,
    domain: String,
    /// The columns of the dataset: the key, one with a check, one with unique values, one with a
    /// foreign key, one of the domain, and the twins.
    columns: [String; 7],
    /// A column that is not in the definition.
    own: String,
    /// The constraints of the second to the fourth column, and of the domain.
    constraints: [String; 4],
}

fn names() -> impl Strategy<Value = Names> {
    let others = prop::array::uniform14(name(MAX_BYTES));
    let names = (dataset(), twins(), others).prop_map(|(dataset, [one, two], others)| {
        let [schema, table, partner, domain, others @ ..] = others;
        let [
            key,
            checked,
            once,
            partner_key,
            limited,
            own,
            constraints @ ..,
        ] = others;
        Names {
            dataset,
            // A definition has a dot between both. Postgres cannot make a table whose name is 63
            // underscores: the type of its arrays would have the same name.
            schema: schema.replace('.', ":"),
            table: table.replace('.', ":"),
            partner,
            domain,
            columns: [key, checked, once, partner_key, limited, one, two],
            own,
            constraints,
        }
    });
    names.prop_filter("the same names", Names::are_distinct)
}

impl Names {
    fn are_distinct(&self) -> bool {
        let Self {
            schema,
            table,
            partner,
            domain,
            own,
            ..
        } = self;
        let others = [schema, table, partner, domain, own];
        are_distinct(self.columns.iter().chain(&self.constraints).chain(others))
    }

    /// The name of an object in SQL.
    fn in_schema(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(name))
    }

    /// The statements that make the objects of the user.
    fn create(&self) -> String {
        let columns = self.columns.each_ref().map(|name| quoted(name));
        let [key, checked, once, partner_key, limited, one, two] = columns;
        let constraints = self.constraints.each_ref().map(|name| quoted(name));
        let [check, unique, foreign, domain_check] = constraints;
        let [table, partner, domain] =
            [&self.table, &self.partner, &self.domain].map(|name| self.in_schema(name));
        let (schema, own) = (quoted(&self.schema), quoted(&self.own));
        format!(
            "CREATE SCHEMA {schema};
             CREATE DOMAIN {domain} AS text CONSTRAINT {domain_check} CHECK (VALUE <> 'bad');
             CREATE TABLE {partner} ({own} text PRIMARY KEY);
             INSERT INTO {partner} VALUES ('known');
             CREATE TABLE {table} (
                 {key} text PRIMARY KEY,
                 {checked} text CONSTRAINT {check} CHECK ({checked} <> 'bad'),
                 {once} text CONSTRAINT {unique} UNIQUE,
                 {partner_key} text CONSTRAINT {foreign} REFERENCES {partner} ({own}),
                 {limited} {domain},
                 {one} text,
                 {two} text,
                 {own} text NOT NULL DEFAULT 'own'
             );
             INSERT INTO {table} ({key}, {once}) VALUES ('kept', 'once kept');"
        )
    }

    fn definition(&self) -> Value {
        let columns = self.columns.each_ref().map(|name| (name.as_str(), "text"));
        let table = format!("{}.{}", self.schema, self.table);
        definition_of(&table, &columns, &[&self.columns[0]])
    }

    /// A row of a file that violates no constraint.
    fn row(&self, key: &str, text: &str) -> Vec<String> {
        let row = [
            key.to_owned(),
            format!("'); {}", self.columns[1]),
            format!("once {key}"),
            "known".to_owned(),
            format!("'); {}", self.columns[4]),
            format!("{text} one"),
            format!("{text} two"),
        ];
        row.to_vec()
    }

    /// The rows of a file: the good ones, and one for each constraint.
    fn rows(&self, good: [&str; GOOD], text: &str) -> Vec<Vec<String>> {
        let mut rows = good.map(|key| self.row(key, text)).to_vec();
        for (key, cell, value) in [
            ("c", 1, "bad"),
            ("d", 2, "once kept"),
            ("e", 3, "unknown"),
            ("f", 4, "bad"),
        ] {
            let mut row = self.row(key, text);
            row[cell] = value.to_owned();
            rows.push(row);
        }
        rows
    }

    /// The rejected rows of a file.
    fn rejects(&self, rows: &[Vec<String>]) -> Vec<Value> {
        let [_, checked, once, partner_key, ..] = &self.columns;
        let [check, unique, foreign, domain_check] = &self.constraints;
        let rejects = vec![
            json!({ "code": "check_violation", "column": checked, "constraint": check }),
            json!({ "code": "unique_violation", "column": once, "constraint": unique }),
            json!({
                "code": "foreign_key_violation", "column": partner_key, "constraint": foreign,
            }),
            // Postgres does not name the column of a domain.
            json!({ "code": "check_violation", "constraint": domain_check }),
        ];
        with_rows(rejects, rows)
    }
}

#[tokio::test]
async fn random_names_of_the_user_change_nothing_but_the_rows_of_their_table() -> Result<()> {
    let app = App::start(Mode::Distributed.harness().await?, 1).await?;
    let before = Before::read(&app).await?;
    let mut runner = random_runner();
    for _ in 0..ROUNDS {
        let names = draw(names(), &mut runner)?;
        let round = Round {
            app: &app,
            names: &names,
        };
        let checked = async {
            round.run().await?;
            before.expect_unchanged(&app).await
        };
        checked.await.with_context(|| format!("{names:#?}"))?;
    }
    app.close().await
}

/// The life of a dataset whose rows go into a table of the user.
struct Round<'a> {
    app: &'a App,
    names: &'a Names,
}

impl Round<'_> {
    async fn run(&self) -> Result<()> {
        let (app, names) = (self.app, self.names);
        execute(app, &names.create()).await?;
        let of_schema = Catalog::read(app, &names.schema).await?;
        let whole = before::Catalog::read(app).await?;
        let created = put(app, &names.dataset, &names.definition(), 201).await?;
        let table = format!("{}.{}", names.schema, names.table);
        ensure!(created["table"] == table, "{created}");
        self.merge_and_undo().await?;
        of_schema.expect_unaltered(app, "the uploads").await?;
        whole.expect_unchanged(app).await?;

        ensure!(delete(app, &names.dataset).await?.status() == 204);
        of_schema.expect_unaltered(app, "the deletion").await?;
        whole.expect_unchanged(app).await?;
        self.expect_stored(&[]).await?;
        let drop = format!("DROP SCHEMA {} CASCADE", quoted(&names.schema));
        execute(app, &drop).await
    }

    /// Sends two files, and undoes both.
    async fn merge_and_undo(&self) -> Result<()> {
        let (app, table) = (self.app, self.names.in_schema(&self.names.table));
        let first = rows_of(app, &table).await?;
        let inserted = Outcome {
            inserted: 2,
            rejected: 4,
            ..Outcome::default()
        };
        let base = self.merge(["a", "b"], "old", inserted).await?;
        self.expect_stored(&[("a", "old"), ("b", "old")]).await?;
        let second = rows_of(app, &table).await?;
        let replaced = Outcome {
            inserted: 1,
            updated: 1,
            ..inserted
        };
        let merged = self.merge(["a", "g"], "new", replaced).await?;
        let stored = [("a", "new"), ("b", "old"), ("g", "new")];
        self.expect_stored(&stored).await?;

        for (id, expected) in [(merged, second), (base, first)] {
            undo_merge(app, id, [2, 0, 0]).await?;
            let rows = rows_of(app, &table).await?;
            ensure!(rows == expected, "{rows:#?} instead of {expected:#?}");
        }
        Ok(())
    }

    /// Validates a file, and then sends it.
    async fn merge(&self, good: [&str; GOOD], text: &str, outcome: Outcome) -> Result<Uuid> {
        let (app, names) = (self.app, self.names);
        let rows = names.rows(good, text);
        let rejects = names.rejects(&rows);
        let header = names.columns.each_ref().map(String::as_str);
        let file = file_of(&header, &rows)?;
        let validation = validate(app, &names.dataset, file.clone()).await?;
        let expected = json!({
            "read": rows.len(), "would_insert": outcome.inserted, "would_update": outcome.updated,
            "unchanged": 0, "rejected": rejects.len(),
        });
        ensure!(validation["rows"] == expected, "{validation:#}");
        let rejected = validation["rejected"].as_array().context("no rejects")?;
        check_rejected(rejected, &rejects)?;

        let id = send_accepted(app, &names.dataset, &READING, file).await?;
        outcome.check(&app.wait_until_ended(id).await?)?;
        check_rejected(&rejected_rows(app, id).await?, &rejects)?;
        Ok(id)
    }

    /// Fails unless the table has the row of the user, and those of files with these keys and
    /// texts, in the order of their keys.
    async fn expect_stored(&self, rows: &[(&str, &str)]) -> Result<()> {
        let names = self.names;
        let columns = names.columns.iter().chain([&names.own]);
        let columns: Vec<String> = columns.map(|name| quoted(name)).collect();
        let sql = format!(
            "SELECT jsonb_agg(jsonb_build_array({}) ORDER BY {}) FROM {}",
            columns.join(", "),
            columns[0],
            names.in_schema(&names.table)
        );
        let found = sqlx::query_scalar::<_, Json<Value>>(&sql).persistent(false);
        let Json(found) = found.fetch_one(&pool(self.app)?).await?;
        let mut expected = Vec::new();
        for (key, text) in rows {
            let mut row = names.row(key, text);
            row.push("own".to_owned());
            expected.push(json!(row));
        }
        // The keys of the files are before this one.
        let mut kept = vec![Value::Null; names.columns.len() + 1];
        for (column, value) in [(0, "kept"), (2, "once kept"), (7, "own")] {
            kept[column] = json!(value);
        }
        expected.push(json!(kept));
        ensure!(
            found == json!(expected),
            "{found:#} instead of {expected:#?}"
        );
        Ok(())
    }
}
