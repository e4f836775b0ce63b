//! Rows whose violations depend on rows that other workers store at the same time.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use super::rejected_rows;
use crate::app::App;
use crate::datasets::{declare, expect_stored, start_sending};
use crate::files::paced;
use crate::harness::Mode;

in_both_modes! {
    rows_that_depend_on_other_workers_are_stored_or_rejected_for_the_right_reason,
}

const WORKERS: usize = 4;

/// The rows of each file.
const ROWS: usize = 3000;
const BATCH_ROWS: usize = 100;

const PARTS: &str = "parts";

/// Each code is unique, and a parent is the code of another row.
const IN_POSTGRES: &str = "
    ALTER TABLE datasets.parts ADD CONSTRAINT code_once UNIQUE (code);
    ALTER TABLE datasets.parts
        ALTER COLUMN label SET NOT NULL,
        ADD CONSTRAINT positive_weight CHECK (weight > 0),
        ADD CONSTRAINT known_parent FOREIGN KEY (parent) REFERENCES datasets.parts (code);
";

/// The same for SQLite, as in the table `prices`.
const IN_SQLITE: &str = r#"
    PRAGMA writable_schema = ON;
    UPDATE sqlite_schema
        SET sql = replace(replace(replace(sql,
            '"label" TEXT', '"label" TEXT NOT NULL'),
            '"weight" INTEGER', '"weight" INTEGER CONSTRAINT positive_weight CHECK (weight > 0)'),
            '"parent" TEXT', '"parent" TEXT REFERENCES datasets_parts (code)')
        WHERE name = 'datasets_parts';
    PRAGMA writable_schema = RESET;
    CREATE UNIQUE INDEX code_once ON datasets_parts (code);
"#;

async fn create_parts(app: &App) -> Result<()> {
    let columns = json!([
        { "name": "code", "type": "text" },
        { "name": "weight", "type": "integer" },
        { "name": "parent", "type": "text" },
        { "name": "label", "type": "text" },
    ]);
    declare(app, PARTS, columns).await?;
    app.harness.execute(IN_POSTGRES, IN_SQLITE).await
}

// The indexes of the cells.
const CODE: usize = 0;
const WEIGHT: usize = 1;
const PARENT: usize = 2;
const LABEL: usize = 3;

const UNIQUE: &str = "unique_violation";
const CHECK: &str = "check_violation";
const NOT_NULL: &str = "not_null_violation";
const FOREIGN_KEY: &str = "foreign_key_violation";
const WRONG_TYPE: &str = "wrong_type";

/// The column and the constraint that a rejected row with this code names.
fn names(mode: Mode, code: &str) -> [Option<&'static str>; 2] {
    match (code, mode) {
        (UNIQUE, Mode::Distributed) => [Some("code"), Some("code_once")],
        (UNIQUE, Mode::Embedded) => [Some("code"), Some("datasets_parts.code")],
        (CHECK, Mode::Distributed) => [Some("weight"), Some("positive_weight")],
        (CHECK, Mode::Embedded) => [None, Some("positive_weight")],
        (FOREIGN_KEY, Mode::Distributed) => [Some("parent"), Some("known_parent")],
        (FOREIGN_KEY, Mode::Embedded) => [None, None],
        (NOT_NULL, _) => [Some("label"), None],
        _ => [Some("weight"), None],
    }
}

/// A row of a file.
struct Row {
    /// The number, the line and the offset.
    position: [usize; 3],
    cells: [String; 4],
    /// The code with which the row is rejected.
    code: Option<&'static str>,
    /// Whether another row decides if this row is rejected.
    depends: bool,
}

const FILES: [&str; 2] = ["one", "other"];

/// The cells of row `number` of a file, the code with which it is rejected, and whether this
/// depends on another row.
fn row(file: usize, number: usize) -> ([String; 4], Option<&'static str>, bool) {
    let (name, other) = (FILES[file], FILES[1 - file]);
    let code_of_other = |number: usize| format!("{other}-{number}");
    let weight = file * ROWS + number;
    let mut cells = [
        format!("{name}-{number}"),
        weight.to_string(),
        String::new(),
        "a part".to_owned(),
    ];
    let (index, cell, code, depends) = match number % 20 {
        1 => (CODE, shared_code(file, number), UNIQUE, true),
        // The other row with this code is in another batch of the same file.
        3 => {
            let twin = number % (ROWS / 2);
            (CODE, format!("{name}-twin-{twin}"), UNIQUE, true)
        }
        5 => (WEIGHT, "-1".to_owned(), CHECK, false),
        7 => (LABEL, String::new(), NOT_NULL, false),
        9 => (PARENT, "nowhere".to_owned(), FOREIGN_KEY, false),
        // The table never takes the row of the other file that has the weight -1.
        11 => (PARENT, code_of_other(number - 6), FOREIGN_KEY, false),
        13 => (WEIGHT, "heavy".to_owned(), WRONG_TYPE, false),
        // The row of the other file is stored sooner or later.
        15 => (PARENT, code_of_other(number + 5), FOREIGN_KEY, true),
        _ => return (cells, None, false),
    };
    cells[index] = cell;
    (cells, Some(code), depends)
}

/// A code that is also in the other file. Half of these codes are in opposite orders, so that each
/// file has some of them first.
fn shared_code(file: usize, number: usize) -> String {
    let is_mirrored = file == 1 && number % 40 == 21;
    let shared = if is_mirrored {
        ROWS + 2 - number
    } else {
        number
    };
    format!("shared-{shared}")
}

/// The text and the rows of a file. In the second file, every eighth batch is in reverse order, so
/// that some transactions wait for each other's codes.
fn file(index: usize) -> (String, Vec<Row>) {
    let mut numbers: Vec<usize> = (1..=ROWS).collect();
    if index == 1 {
        let batches = numbers.chunks_mut(BATCH_ROWS).step_by(8);
        batches.for_each(<[usize]>::reverse);
    }
    let mut text = "code,weight,parent,label\n".to_owned();
    let mut rows = Vec::new();
    for (place, number) in (1..).zip(numbers) {
        let (cells, code, depends) = row(index, number);
        let position = [place, place + 1, text.len()];
        text += &cells.join(",");
        text.push('\n');
        rows.push(Row {
            position,
            cells,
            code,
            depends,
        });
    }
    (text, rows)
}

impl Row {
    /// The row as the table has it.
    fn stored(&self) -> Result<Value> {
        let [code, weight, parent, label] = &self.cells;
        let parent = Some(parent).filter(|parent| !parent.is_empty());
        Ok(json!([code, weight.parse::<u64>()?, parent, label]))
    }

    /// Fails unless the row may be rejected as it is in the report.
    fn check_rejected(&self, mode: Mode, found: &Value) -> Result<()> {
        const NAMES: [&str; 8] = [
            "row",
            "line",
            "offset",
            "code",
            "column",
            "constraint",
            "fields",
            "raw",
        ];
        let code = self.code.with_context(|| format!("{found} is rejected"))?;
        let [number, line, offset] = self.position;
        let [column, constraint] = names(mode, code);
        let expected = json!([
            number, line, offset, code, column, constraint, self.cells, null
        ]);
        let same = json!(NAMES.map(|name| found[name].clone())) == expected;
        ensure!(same, "{found} instead of {expected}");
        Ok(())
    }
}

/// What has become of the rows of both files.
#[derive(Default)]
struct Ended {
    stored: Vec<Value>,
    /// How many rows are stored and rejected, for each code that two rows have.
    pairs: BTreeMap<String, [usize; 2]>,
}

impl Ended {
    /// Waits until an upload has ended, and checks how each of its rows has ended.
    async fn add(&mut self, mode: Mode, app: &App, id: Uuid, rows: &[Row]) -> Result<()> {
        app.wait_until_ended(id).await?;
        let rejected = rejected_rows(app, id).await?;
        let stored = (ROWS - rejected.len()) as i64;
        let upload = expect_stored(app, PARTS, id, "partial", stored).await?;
        let counts = &upload["rows"];
        ensure!(
            counts["read"] == ROWS && counts["rejected"] == rejected.len(),
            "{upload}"
        );
        let mut rejected = rejected.iter().peekable();
        let mut shared = 0;
        for row in rows {
            let [number, ..] = row.position;
            let found = rejected.next_if(|found| found["row"] == number);
            match found {
                Some(found) => row.check_rejected(mode, found)?,
                None => {
                    let may_be_stored = row.code.is_none() || row.depends;
                    ensure!(may_be_stored, "row {number} of {id} is stored");
                    self.stored.push(row.stored()?);
                }
            }
            if row.depends && row.code == Some(UNIQUE) {
                let code = &row.cells[CODE];
                let ends = self.pairs.entry(code.clone()).or_default();
                ends[usize::from(found.is_some())] += 1;
                shared += usize::from(found.is_some() && code.starts_with("shared-"));
            }
        }
        ensure!(rejected.next().is_none(), "other rows are rejected");
        ensure!(
            shared > 0,
            "no code of {id} was taken by the other upload, so the test proved nothing"
        );
        Ok(())
    }
}

async fn rows_that_depend_on_other_workers_are_stored_or_rejected_for_the_right_reason(
    mode: Mode,
) -> Result<()> {
    let harness = mode.harness().await?;
    let harness = harness.with("CARGA_BATCH_ROWS", &BATCH_ROWS.to_string());
    let app = App::start(harness, WORKERS).await?;
    create_parts(&app).await?;
    let (mut sending, mut uploads) = (Vec::new(), Vec::new());
    for (text, rows) in [file(0), file(1)] {
        let id = Uuid::now_v7();
        // Each file takes two seconds, so that both are stored at the same time.
        let rate = text.len() / 2;
        sending.push(start_sending(&app, id, PARTS, paced(text, rate))?);
        uploads.push((id, rows));
    }
    for sent in sending {
        let answer = sent.await??;
        ensure!(answer.status() == 202, "{}", answer.text().await?);
    }
    let mut ended = Ended::default();
    for (id, rows) in &uploads {
        ended.add(mode, &app, *id, rows).await?;
    }
    ensure!(
        app.harness.have_overlapped().await?,
        "the uploads were stored one after the other, so the test proved nothing"
    );
    for (code, ends) in &ended.pairs {
        ensure!(
            *ends == [1, 1],
            "of the rows with the code {code}, {ends:?} are stored and rejected"
        );
    }
    let columns = "code, weight, parent, label";
    let visible = app.harness.typed(PARTS, columns, columns).await?;
    let mut visible = visible.as_array().context("no rows")?.clone();
    visible.sort_by_key(Value::to_string);
    ended.stored.sort_by_key(Value::to_string);
    ensure!(visible == ended.stored, "other rows are in the table");
    app.close().await
}
