//! Rows that the table of the user does not take are rejected with their line and column.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::catalog::Catalog;
use super::{IMPORTS, definition_of, execute, merge, rows_of, start, texts};
use crate::app::App;
use crate::datasets::merging::{Outcome, send_accepted};
use crate::datasets::put;
use crate::datasets::undoing_merges::undo_merge;
use crate::datasets::violations::rejected_rows;

/// A table with types that are narrower than those of Carga, and with constraints.
const READINGS: &str = "
    CREATE TYPE shop.size AS ENUM ('small', 'large');
    CREATE DOMAIN shop.percent AS smallint CONSTRAINT one_hundred CHECK (VALUE BETWEEN 0 AND 100);
    CREATE DOMAIN shop.half AS shop.percent CONSTRAINT fifty CHECK (VALUE <= 50);
    CREATE TABLE shop.readings (
        id integer PRIMARY KEY,
        level smallint,
        price numeric(5, 2),
        code varchar(4) CONSTRAINT code_once UNIQUE,
        flag char(2),
        taken timestamp(0),
        sent timestamptz(3),
        size shop.size,
        share shop.half,
        supplier text CONSTRAINT known_supplier REFERENCES shop.suppliers,
        label text NOT NULL CONSTRAINT good_label CHECK (label <> 'bad')
    );
    CREATE FUNCTION shop.check_label() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.label = 'forbidden' THEN RAISE EXCEPTION 'the label is forbidden'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER check_label BEFORE INSERT OR UPDATE ON shop.readings
        FOR EACH ROW EXECUTE FUNCTION shop.check_label();
    INSERT INTO shop.readings (id, code, label) VALUES (1000, 'old', 'own');
";

const COLUMNS: [(&str, &str); 11] = [
    ("id", "integer"),
    ("level", "integer"),
    ("price", "numeric"),
    ("code", "text"),
    ("flag", "text"),
    ("taken", "timestamp"),
    ("sent", "timestamp"),
    ("size", "text"),
    ("share", "integer"),
    ("supplier", "text"),
    ("label", "text"),
];

/// The cells of a row that differ from those of a good row.
type Cells = &'static [(&'static str, &'static str)];

/// Rows that the table takes, at the limits of its types.
const GOOD: [Cells; 6] = [
    &[],
    &[("level", "-32768"), ("price", "-999.99"), ("share", "0")],
    &[("level", "32767"), ("price", "999.990"), ("share", "50")],
    &[
        ("code", "códe"),
        ("flag", "ç"),
        ("sent", "2024-01-01T00:00:00.123Z"),
    ],
    &[("size", "large"), ("label", "\"two\nlines\"")],
    &[
        ("size", "NA"),
        ("flag", ""),
        ("supplier", "NA"),
        ("taken", "NA"),
    ],
];

/// Values that Postgres would refuse, or would round or cut without an error.
const UNFIT: [(Cells, &str); 15] = [
    (&[("level", "32768")], "level"),
    (&[("level", "-32769")], "level"),
    (&[("id", "2147483648")], "id"),
    (&[("price", "1.234")], "price"),
    (&[("price", "1000")], "price"),
    (&[("price", "999.995")], "price"),
    (&[("price", "-1000.00")], "price"),
    (&[("code", "abcde")], "code"),
    (&[("code", "abcd ")], "code"),
    (&[("flag", "xyz")], "flag"),
    (&[("flag", "xy ")], "flag"),
    (&[("taken", "2024-01-01T00:00:00.5Z")], "taken"),
    (&[("sent", "2024-01-01T00:00:00.1234Z")], "sent"),
    (&[("share", "40000")], "share"),
    (&[("share", "-40000")], "share"),
];

/// Other faults, with the code, the column and the constraint.
const VIOLATING: [(Cells, &str, Option<&str>, Option<&str>); 9] = [
    (&[("level", "high")], "wrong_type", Some("level"), None),
    (&[("id", "NA")], "missing_value", Some("id"), None),
    (
        &[("code", "old")],
        "unique_violation",
        Some("code"),
        Some("code_once"),
    ),
    (&[("share", "51")], "check_violation", None, Some("fifty")),
    (
        &[("share", "101")],
        "check_violation",
        None,
        Some("one_hundred"),
    ),
    (
        &[("supplier", "s9")],
        "foreign_key_violation",
        Some("supplier"),
        Some("known_supplier"),
    ),
    (
        &[("label", "bad")],
        "check_violation",
        Some("label"),
        Some("good_label"),
    ),
    (
        &[("label", "NA")],
        "not_null_violation",
        Some("label"),
        None,
    ),
    (&[("label", "forbidden")], "trigger_exception", None, None),
];

/// A rejected row as the report should have it.
pub(in crate::datasets) struct Reject {
    row: usize,
    line: usize,
    code: &'static str,
    /// `None` if it is not certain.
    column: Option<&'static str>,
    constraint: Option<&'static str>,
}

/// A file that is built row by row.
pub(in crate::datasets) struct File {
    pub(in crate::datasets) text: String,
    rows: usize,
    pub(in crate::datasets) rejects: Vec<Reject>,
}

impl File {
    fn new() -> Self {
        let names = COLUMNS.map(|(name, _)| name);
        Self {
            text: names.join(",") + "\n",
            rows: 0,
            rejects: Vec::new(),
        }
    }

    /// Adds a row with these cells. The others are those of a good row.
    fn add(&mut self, cells: Cells) {
        self.rows += 1;
        let cell = |name: &str| {
            let given = cells.iter().find(|(column, _)| *column == name);
            match (name, given) {
                (_, Some((_, cell))) => (*cell).to_owned(),
                ("id", None) => self.rows.to_string(),
                ("code", None) => format!("c{}", self.rows),
                ("size", None) => "small".to_owned(),
                ("supplier", None) => "s1".to_owned(),
                ("label", None) => "fine".to_owned(),
                _ => "NA".to_owned(),
            }
        };
        let cells = COLUMNS.map(|(name, _)| cell(name));
        self.text.push_str(&(cells.join(",") + "\n"));
    }

    /// Adds a row that is rejected.
    fn add_reject(
        &mut self,
        cells: Cells,
        code: &'static str,
        column: Option<&'static str>,
        constraint: Option<&'static str>,
    ) {
        let line = self.text.matches('\n').count() + 1;
        self.add(cells);
        self.rejects.push(Reject {
            row: self.rows,
            line,
            code,
            column,
            constraint,
        });
    }

    /// The good rows among all the others.
    pub(in crate::datasets) fn mixed() -> Self {
        let mut file = Self::new();
        let mut good = GOOD.into_iter();
        for (cells, column) in UNFIT {
            if let Some(good) = good.next() {
                file.add(good);
            }
            file.add_reject(cells, "out_of_range", Some(column), None);
        }
        for (cells, code, column, constraint) in VIOLATING {
            file.add_reject(cells, code, column, constraint);
        }
        file
    }
}

pub(in crate::datasets) async fn declare_readings(app: &App) -> Result<()> {
    execute(app, READINGS).await?;
    let definition = definition_of("shop.readings", &COLUMNS, &["id"]);
    put(app, IMPORTS, &definition, 201).await?;
    Ok(())
}

impl Reject {
    pub(in crate::datasets) fn check(&self, found: &Value) -> Result<()> {
        let Self {
            row,
            line,
            code,
            constraint,
            ..
        } = self;
        let expected = json!([row, line, code]);
        let position = ["row", "line", "code"].map(|field| found[field].clone());
        ensure!(json!(position) == expected, "{found} instead of {expected}");
        if let Some(column) = self.column {
            ensure!(found["column"] == column, "not in column {column}: {found}");
        }
        ensure!(found["constraint"] == json!(constraint), "{found}");
        Ok(())
    }
}

#[tokio::test]
async fn rows_that_the_table_would_refuse_round_or_cut_are_rejected_with_their_lines() -> Result<()>
{
    let app = start(1).await?;
    declare_readings(&app).await?;
    let catalog = Catalog::read(&app, "shop").await?;
    let before = rows_of(&app, "shop.readings").await?;
    let File { text, rejects, .. } = File::mixed();
    let outcome = Outcome {
        inserted: GOOD.len() as u64,
        rejected: rejects.len() as u64,
        ..Outcome::default()
    };
    let id = merge(&app, &[], text, outcome).await?;
    let rejected = rejected_rows(&app, id).await?;
    ensure!(rejected.len() == rejects.len(), "{rejected:?}");
    for (found, expected) in rejected.iter().zip(&rejects) {
        expected.check(found)?;
    }
    // The message of a value that does not fit names the type of the column.
    let price = rejected.iter().find(|row| row["column"] == "price");
    let message = price.context("no price")?["message"].to_string();
    ensure!(message.contains("numeric(5,2)"), "{message}");

    let stored =
        "SELECT concat_ws('|', level, price, code, flag, sent AT TIME ZONE 'UTC', size, share)
                  FROM shop.readings WHERE id < 1000 ORDER BY id";
    let stored = texts(&app, stored).await?;
    let expected = [
        "c1|small",
        "-32768|-999.99|c3|small|0",
        "32767|999.99|c5|small|50",
        "códe|ç |2024-01-01 00:00:00.123|small",
        "c9|large",
        "c11|  ",
    ];
    ensure!(stored == expected, "{stored:?}");
    undo_merge(&app, id, [GOOD.len() as u64, 0, 0]).await?;
    ensure!(rows_of(&app, "shop.readings").await? == before);
    catalog.expect_unaltered(&app, "the undo").await?;
    app.close().await
}

#[tokio::test]
async fn a_label_that_an_enumeration_does_not_have_is_rejected() -> Result<()> {
    let app = start(1).await?;
    declare_readings(&app).await?;
    let mut file = File::new();
    for size in ["small", "huge", "Small", "large", " large", ""] {
        file.rows += 1;
        let (id, nothing) = (file.rows, "NA,NA,NA,NA,NA,NA");
        file.text
            .push_str(&format!("{id},{nothing},{size},NA,NA,fine\n"));
    }
    let outcome = Outcome {
        inserted: 2,
        rejected: 4,
        ..Outcome::default()
    };
    let id = merge(&app, &[], file.text, outcome).await?;
    let rejected = rejected_rows(&app, id).await?;
    let rows = rejected.iter().map(|row| row["row"].as_u64());
    ensure!(rows.eq([2, 3, 5, 6].map(Some)), "{rejected:?}");
    for row in &rejected {
        ensure!(
            row["code"] == "wrong_type" && row["column"] == "size",
            "{row}"
        );
    }
    app.close().await
}

#[tokio::test]
async fn an_upload_with_too_many_rejected_rows_leaves_nothing() -> Result<()> {
    let app = start(1).await?;
    declare_readings(&app).await?;
    let catalog = Catalog::read(&app, "shop").await?;
    let before = rows_of(&app, "shop.readings").await?;
    let all = File::mixed();
    let mut none = File::new();
    for (cells, column) in UNFIT {
        none.add_reject(cells, "out_of_range", Some(column), None);
    }
    for (option, code, text) in [
        (("max_rejects", "3"), "too_many_rejects", &all.text),
        (("max_rejects", "20"), "too_many_rejects", &all.text),
        (("max_rejects", "10%"), "too_many_rejects", &all.text),
        (("on_error", "reject"), "no_row_fits", &none.text),
    ] {
        let id = send_accepted(&app, IMPORTS, &[option], text.clone()).await?;
        let upload = app.expect_failed(id, code).await?;
        let rows = &upload["rows"];
        ensure!(
            rows["inserted"] == 0 && rows["updated"] == 0,
            "{option:?}: {upload}"
        );
        ensure!(!rejected_rows(&app, id).await?.is_empty(), "no report");
        let after = rows_of(&app, "shop.readings").await?;
        ensure!(after == before, "{option:?} changed the table");
        let written = texts(&app, "SELECT count(*)::text FROM written_rows").await?;
        ensure!(written == ["0"], "{option:?} left {written:?} written rows");
        catalog.expect_unaltered(&app, code).await?;
    }
    app.close().await
}
