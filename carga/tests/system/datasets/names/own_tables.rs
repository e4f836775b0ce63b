//! Datasets whose tables Carga makes, with constraints of an operator.

use anyhow::{Context, Result, ensure};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::before::Before;
use super::random::{MAX_BYTES, are_distinct, dataset, draw, name, twins};
use super::{GOOD, READING, ROUNDS, check_rejected, download, file_of, validate, with_rows};
use crate::answers::problem;
use crate::app::App;
use crate::datasets::merging::{Outcome, expect_merged, send_accepted};
use crate::datasets::undoing_merges::undo_merge;
use crate::datasets::violations::rejected_rows;
use crate::datasets::{delete, expect_stored, put, undo, url};
use crate::harness::{Mode, quoted};
use crate::random::random_runner;

in_both_modes! {
    random_names_change_nothing_but_the_rows_of_their_dataset,
}

/// The column of a CSV report that has the constraint.
const CONSTRAINT: &str = "_carga_constraint";

/// The names of a dataset, of its files, and of the constraints of its table.
#[derive(Debug)]
struct Names {
    dataset: String,
    /// The columns of the table: the key, one with a check, one with unique values, one in an index
    /// on an expression, and the twins.
    columns: [String; 6],
    /// The name in the header that means the column with unique values.
    from: String,
    /// A column of the file that the dataset does not have.
    unknown: String,
    /// The constraints of the second, third and fourth column. SQLite has a trigger for the first.
    constraints: [String; 3],
}

fn names() -> impl Strategy<Value = Names> {
    let others = prop::array::uniform9(name(MAX_BYTES));
    let names = (dataset(), twins(), others);
    let names = names.prop_map(|(dataset, [one, two], others)| {
        let [key, checked, once, folded, from, unknown, constraints @ ..] = others;
        Names {
            dataset,
            columns: [key, checked, once, folded, one, two],
            from,
            unknown,
            constraints,
        }
    });
    names.prop_filter("the same names", Names::are_distinct)
}

impl Names {
    fn are_distinct(&self) -> bool {
        let others = [&self.dataset, &self.from, &self.unknown];
        are_distinct(self.columns.iter().chain(&self.constraints).chain(others))
    }

    fn definition(&self) -> Value {
        let columns = self.columns.each_ref();
        let mut columns = columns.map(|name| json!({ "name": name, "type": "text" }));
        columns[2]["from"] = json!([self.from]);
        json!({ "columns": columns, "key": [self.columns[0]], "mode": "update", "null": ["NA"] })
    }

    /// The header of every file. The unknown column is the first one.
    fn header(&self) -> [&str; 7] {
        let [key, checked, _, folded, one, two] = self.columns.each_ref().map(String::as_str);
        [&self.unknown, key, checked, &self.from, folded, one, two]
    }

    /// A row of a file that violates no constraint.
    fn row(&self, key: &str, text: &str) -> Vec<String> {
        let row = [
            "'); DROP TABLE uploads; --".to_owned(),
            key.to_owned(),
            format!("'); {}", self.columns[1]),
            format!("once {key}"),
            format!("folded {key}"),
            format!("{text} one"),
            format!("{text} two"),
        ];
        row.to_vec()
    }

    /// The rows of a file: the good ones, and one for each constraint. Two of these have values of
    /// the row `b`, which the first file stores.
    fn rows(&self, good: [&str; GOOD], text: &str) -> Vec<Vec<String>> {
        let mut rows = good.map(|key| self.row(key, text)).to_vec();
        for (key, cell, value) in [("c", 2, "bad"), ("d", 3, "once b"), ("e", 4, "FOLDED B")] {
            let mut row = self.row(key, text);
            row[cell] = value.to_owned();
            rows.push(row);
        }
        rows
    }

    /// The rejected rows of a file.
    fn rejects(&self, mode: Mode, rows: &[Vec<String>]) -> Vec<Value> {
        let [check, unique, index] = &self.constraints;
        let [_, checked, once, ..] = &self.columns;
        let (checked, once) = match mode {
            Mode::Distributed => (
                json!({ "code": "check_violation", "column": checked, "constraint": check }),
                unique.clone(),
            ),
            // The trigger raises an exception with its own name.
            Mode::Embedded => (
                json!({
                    "code": "trigger_exception", "column": null, "constraint": null,
                    "message": check,
                }),
                format!("datasets_{}.{once}", self.dataset),
            ),
        };
        let code = "unique_violation";
        let rejects = vec![
            checked,
            json!({ "code": code, "column": self.from, "constraint": once }),
            json!({ "code": code, "column": null, "constraint": index }),
        ];
        with_rows(rejects, rows)
    }

    /// The statements with which an operator adds the constraints, for Postgres and for SQLite.
    fn constraints(&self) -> [String; 2] {
        let [check, unique, index] = self.constraints.each_ref().map(|name| quoted(name));
        let columns = self.columns.each_ref().map(|name| quoted(name));
        let [_, checked, once, folded, ..] = columns;
        let table = format!("datasets.{}", quoted(&self.dataset));
        let postgres = format!(
            "ALTER TABLE {table}
                 ADD CONSTRAINT {check} CHECK ({checked} <> 'bad'),
                 ADD CONSTRAINT {unique} UNIQUE ({once});
             CREATE UNIQUE INDEX {index} ON {table} (lower({folded}));"
        );
        let table = quoted(&format!("datasets_{}", self.dataset));
        let message = self.constraints[0].replace('\'', "''");
        let sqlite = format!(
            "CREATE TRIGGER {check} BEFORE INSERT ON {table} WHEN NEW.{checked} = 'bad'
                 BEGIN SELECT RAISE(ABORT, '{message}'); END;
             CREATE UNIQUE INDEX {unique} ON {table} ({once});
             CREATE UNIQUE INDEX {index} ON {table} (lower({folded}));"
        );
        [postgres, sqlite]
    }
}

async fn random_names_change_nothing_but_the_rows_of_their_dataset(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    let before = Before::read(&app).await?;
    let mut runner = random_runner();
    for _ in 0..ROUNDS {
        let names = draw(names(), &mut runner)?;
        let round = Round {
            app: &app,
            mode,
            names: &names,
        };
        let checked = async {
            round.run().await?;
            before.expect_unchanged(&app).await
        };
        checked.await.with_context(|| format!("{names:#?}"))?;
    }
    let (_, list) = app.get("/datasets").await?;
    ensure!(list["datasets"] == json!([]), "{list}");
    app.close().await
}

/// The life of a dataset, from its definition to its deletion.
struct Round<'a> {
    app: &'a App,
    mode: Mode,
    names: &'a Names,
}

impl Round<'_> {
    async fn run(&self) -> Result<()> {
        let (app, dataset) = (self.app, &self.names.dataset);
        let created = self.declare().await?;
        let [postgres, sqlite] = self.names.constraints();
        app.harness.execute(&postgres, &sqlite).await?;
        let base = self.append().await?;
        let before = app.harness.table(dataset).await?;
        let merged = self.merge(&before).await?;
        self.expect_shown(&created, [merged, base]).await?;

        undo_merge(app, merged, [2, 0, 0]).await?;
        let after = app.harness.table(dataset).await?;
        ensure!(after == before, "{after:#?} instead of {before:#?}");
        self.expect_visible(&[("a", "old"), ("b", "old")]).await?;
        undo(app, base).await?;
        ensure!(app.harness.table(dataset).await?.is_empty());
        ensure!(delete(app, dataset).await?.status() == 204);
        let shown = app.client.get(url(app, &["datasets", dataset])?);
        problem(shown.send().await?, 404, "dataset_not_found").await?;
        Ok(())
    }

    async fn declare(&self) -> Result<Value> {
        let names = self.names;
        let created = put(self.app, &names.dataset, &names.definition(), 201).await?;
        let shown = created["columns"].as_array().context("no columns")?;
        let shown: Vec<&Value> = shown.iter().map(|column| &column["name"]).collect();
        ensure!(shown == names.columns.each_ref(), "{created}");
        ensure!(
            created["name"] == names.dataset
                && created["key"] == json!([names.columns[0]])
                && created["columns"][2]["from"] == json!([names.from]),
            "{created}"
        );
        self.expect_visible(&[]).await?;
        Ok(created)
    }

    /// Appends two rows, batch by batch.
    async fn append(&self) -> Result<Uuid> {
        let (app, names) = (self.app, self.names);
        let rows = names.rows(["a", "b"], "old");
        let file = file_of(&names.header(), &rows)?;
        let append = [("mode", "append"), ("atomic", "false")];
        let further = [&READING[..], &append].concat();
        let id = send_accepted(app, &names.dataset, &further, file).await?;
        expect_stored(app, &names.dataset, id, "partial", 2).await?;
        self.expect_downloads(id, &rows).await?;
        self.expect_visible(&[("a", "old"), ("b", "old")]).await?;
        Ok(id)
    }

    /// Validates a file that replaces a row and adds one, and then sends it. `before` are the rows
    /// of the table.
    async fn merge(&self, before: &[String]) -> Result<Uuid> {
        let (app, names) = (self.app, self.names);
        let rows = names.rows(["a", "f"], "new");
        let file = file_of(&names.header(), &rows)?;
        let validation = validate(app, &names.dataset, file.clone()).await?;
        let [.., one, two] = names.columns.each_ref().map(String::as_str);
        let expected = json!({
            "read": 5, "would_insert": 1, "would_update": 1, "unchanged": 0, "rejected": 3,
        });
        ensure!(
            validation["rows"] == expected
                && validation["columns"] == json!(names.header())
                && validation["changed_columns"] == json!({ one: 1, two: 1 }),
            "{validation:#}"
        );
        let rejected = validation["rejected"].as_array().context("no rejects")?;
        check_rejected(rejected, &names.rejects(self.mode, &rows))?;
        let after = app.harness.table(&names.dataset).await?;
        ensure!(after == before, "{after:#?} instead of {before:#?}");

        let id = send_accepted(app, &names.dataset, &READING, file).await?;
        let outcome = Outcome {
            inserted: 1,
            updated: 1,
            rejected: 3,
            ..Outcome::default()
        };
        expect_merged(app, &names.dataset, id, outcome).await?;
        self.expect_downloads(id, &rows).await?;
        let visible = [("b", "old"), ("a", "new"), ("f", "new")];
        self.expect_visible(&visible).await?;
        Ok(id)
    }

    /// Fails unless the view of the dataset has the rows with these keys and texts, in this order.
    async fn expect_visible(&self, rows: &[(&str, &str)]) -> Result<()> {
        let names = self.names;
        let selected = names.columns.each_ref().map(|name| quoted(name));
        let selected = selected.join(", ");
        let found = self.app.harness.typed(&names.dataset, &selected, &selected);
        let found = found.await?;
        let rows = rows.iter();
        let expected: Vec<Vec<String>> = rows
            .map(|(key, text)| names.row(key, text).split_off(1))
            .collect();
        ensure!(
            found == json!(expected),
            "{found:#} instead of {expected:#?}"
        );
        Ok(())
    }

    /// Fails unless the good rows of a file are downloaded as stored, and the others as rejected.
    async fn expect_downloads(&self, id: Uuid, rows: &[Vec<String>]) -> Result<()> {
        let names = self.names;
        let (columns, stored) = download(self.app, id, "rows").await?;
        ensure!(columns == names.columns, "{columns:#?}");
        let (good, violating) = rows.split_at(GOOD);
        ensure!(stored.len() == good.len(), "{stored:#?}");
        for (record, row) in stored.iter().zip(good) {
            ensure!(record.iter().eq(&row[1..]), "{record:#?} is not {row:#?}");
        }

        let rejects = names.rejects(self.mode, rows);
        check_rejected(&rejected_rows(self.app, id).await?, &rejects)?;
        let (columns, rejected) = download(self.app, id, "rejected").await?;
        let header = names.header();
        ensure!(
            columns.starts_with(&header.map(str::to_owned)),
            "{columns:#?}"
        );
        let constraint = columns.iter().position(|name| name == CONSTRAINT);
        let constraint = constraint.context("no column for the constraint")?;
        ensure!(rejected.len() == rejects.len(), "{rejected:#?}");
        for ((record, reject), row) in rejected.iter().zip(&rejects).zip(violating) {
            let expected = reject["constraint"].as_str().unwrap_or_default();
            ensure!(
                record.iter().take(header.len()).eq(row) && &record[constraint] == expected,
                "{record:#?} instead of {reject:#}"
            );
        }
        Ok(())
    }

    /// Fails unless the dataset is shown as it was created, and its uploads are listed.
    async fn expect_shown(&self, created: &Value, uploads: [Uuid; 2]) -> Result<()> {
        let (app, dataset) = (self.app, &self.names.dataset);
        let shown = app.client.get(url(app, &["datasets", dataset])?);
        let shown: Value = shown.send().await?.json().await?;
        ensure!(shown == *created, "{shown:#} instead of {created:#}");
        let mut by_dataset = url(app, &["uploads"])?;
        by_dataset.query_pairs_mut().append_pair("dataset", dataset);
        let list: Value = app.client.get(by_dataset).send().await?.json().await?;
        let listed = list["uploads"].as_array().context("no uploads")?;
        let listed: Vec<&Value> = listed.iter().map(|upload| &upload["id"]).collect();
        let expected = uploads.map(|id| id.to_string());
        ensure!(listed == expected.each_ref(), "{list:#}");
        Ok(())
    }
}
