//! Rows of a merge that violate a constraint which was added by hand.

use anyhow::{Context, Result, ensure};
use carga_common::dataset::Mode;
use carga_common::store::PostgresStore;
use carga_testkit::Scope;

use super::{Cells, declare, figures, merge, rows, table};
use crate::postgres::rejected;

/// How many rows a merge of a case has.
const ROWS: usize = 200;

/// A constraint, and rows that violate it.
struct Case {
    name: &'static str,
    /// Adds the constraint.
    sql: &'static str,
    /// Makes a good row violate the constraint.
    spoil: fn(&mut Cells),
    code: &'static str,
    constraint: Option<&'static str>,
    column: Option<&'static str>,
}

const CASES: [Case; 8] = [
    Case {
        name: "not null",
        sql: "ALTER TABLE datasets.prices ALTER COLUMN day SET NOT NULL",
        spoil: |cells| cells[2] = None,
        code: "not_null_violation",
        constraint: None,
        column: Some("day"),
    },
    Case {
        name: "check",
        sql: "ALTER TABLE datasets.prices ADD CONSTRAINT positive CHECK (price > 0)",
        spoil: |cells| cells[1] = Some("-1".to_owned()),
        code: "check_violation",
        constraint: Some("positive"),
        column: Some("price"),
    },
    Case {
        name: "unique",
        sql: "ALTER TABLE datasets.prices ADD CONSTRAINT one_day UNIQUE (day)",
        spoil: |cells| cells[2] = Some("1001-01-01".to_owned()),
        code: "unique_violation",
        constraint: Some("one_day"),
        column: Some("day"),
    },
    Case {
        name: "deferred unique",
        sql: "ALTER TABLE datasets.prices ADD CONSTRAINT one_day UNIQUE (day) DEFERRABLE INITIALLY DEFERRED",
        spoil: |cells| cells[2] = Some("1001-01-01".to_owned()),
        code: "unique_violation",
        constraint: Some("one_day"),
        column: Some("day"),
    },
    Case {
        name: "foreign key",
        sql: "CREATE TABLE days (day date PRIMARY KEY);
              INSERT INTO days SELECT make_date(1000 + number, 1, 1) FROM generate_series(1, 200) AS number;
              ALTER TABLE datasets.prices ADD CONSTRAINT known_day FOREIGN KEY (day) REFERENCES days",
        spoil: |cells| cells[2] = Some("2024-01-01".to_owned()),
        code: "foreign_key_violation",
        constraint: Some("known_day"),
        column: Some("day"),
    },
    Case {
        name: "exclusion",
        sql: "ALTER TABLE datasets.prices ADD CONSTRAINT one_day EXCLUDE USING btree (day WITH =)",
        spoil: |cells| cells[2] = Some("1001-01-01".to_owned()),
        code: "exclusion_violation",
        constraint: Some("one_day"),
        column: Some("day"),
    },
    Case {
        name: "generated column",
        sql: "ALTER TABLE datasets.prices ADD COLUMN rest numeric GENERATED ALWAYS AS (1 / price) STORED",
        spoil: |cells| cells[1] = Some("0".to_owned()),
        code: "data_exception",
        constraint: None,
        column: None,
    },
    Case {
        name: "trigger",
        sql: "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
              BEGIN
                  IF NEW.price < 0 THEN RAISE EXCEPTION 'too cheap'; END IF;
                  RETURN NEW;
              END
              $$;
              CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON datasets.prices
              FOR EACH ROW EXECUTE FUNCTION refuse()",
        spoil: |cells| cells[1] = Some("-1".to_owned()),
        code: "trigger_exception",
        constraint: None,
        column: None,
    },
];

/// Merges rows. Those with these numbers violate the constraint. In the mode `update`, the table
/// has the first half of the rows already; otherwise it is empty.
async fn check(
    scope: &Scope,
    store: &PostgresStore,
    case: &Case,
    mode: Mode,
    bad: &[usize],
) -> Result<()> {
    sqlx::query("DELETE FROM datasets.prices")
        .execute(&scope.pool())
        .await?;
    let known = if mode == Mode::Update { ROWS / 2 } else { 0 };
    if known > 0 {
        merge(store, Mode::Ignore, &rows(1..=known, "1.50")).await?;
    }
    let mut rows = rows(1..=ROWS, "2.50");
    for number in bad {
        (case.spoil)(&mut rows[number - 1]);
    }
    let upload = merge(store, mode, &rows).await?;
    let rejected = rejected(store, upload.id).await?;
    let numbers = rejected.iter().map(|row| row.row as usize);
    ensure!(numbers.eq(bad.iter().copied()), "{rejected:?}");
    for row in &rejected {
        let reason = (
            row.code.as_str(),
            row.constraint.as_deref(),
            row.column.as_deref(),
        );
        ensure!(
            reason == (case.code, case.constraint, case.column),
            "{row:?}"
        );
        ensure!(row.line == row.row + 1 && row.offset == row.row * 100);
        let cells = &rows[row.row as usize - 1];
        let texts = cells.iter().map(|cell| cell.as_deref().unwrap_or(""));
        ensure!(texts.eq(row.fields.iter().flatten()), "{row:?}");
    }
    let count = |of: &dyn Fn(usize) -> bool| bad.iter().filter(|number| of(**number)).count();
    let not_updated = count(&|number| number <= known);
    let not_inserted = count(&|number| number > known);
    let expected = [
        ROWS - known - not_inserted,
        known - not_updated,
        0,
        bad.len(),
    ];
    let expected = expected.map(|count| Some(count as u64));
    ensure!(figures(&upload) == expected, "{upload:?}");
    ensure!(table(scope).await?.len() == ROWS - not_inserted);
    Ok(())
}

#[tokio::test]
async fn every_violating_row_of_a_merge_is_rejected_and_all_others_are_merged() -> Result<()> {
    let many: Vec<usize> = (2..=ROWS).filter(|number| number % 3 == 0).collect();
    for case in &CASES {
        let scope = Scope::new().await?;
        let store = declare(&scope, case.sql).await?;
        for mode in [Mode::Append, Mode::Ignore, Mode::Update] {
            let spoiled: [&[usize]; 4] = [&[], &[7], &many, &[2, 150, 200]];
            for bad in spoiled {
                let checked = check(&scope, &store, case, mode, bad).await;
                checked.with_context(|| format!("{}, {mode}, {} rows", case.name, bad.len()))?;
            }
        }
        scope.close().await?;
    }
    Ok(())
}

/// In the mode `append`, a row is rejected if its key is in the table or in an earlier row of the
/// file.
#[tokio::test]
async fn an_atomic_append_rejects_repeated_keys() -> Result<()> {
    let scope = Scope::new().await?;
    let store = declare(&scope, "").await?;
    merge(&store, Mode::Append, &rows(1..=100, "1.50")).await?;
    let numbers = (51..=150).chain([150, 120]);
    let upload = merge(&store, Mode::Append, &rows(numbers, "2.50")).await?;
    let expected = [50, 0, 0, 52].map(Some);
    ensure!(figures(&upload) == expected, "{upload:?}");
    let rejected = rejected(&store, upload.id).await?;
    let numbers = rejected.iter().map(|row| row.row);
    ensure!(numbers.eq((1..=50).chain([101, 102])), "{rejected:?}");
    ensure!(rejected.iter().all(|row| row.code == "unique_violation"));
    scope.close().await
}

/// A replaced row keeps its value in a column that was added by hand. A new row has none.
#[tokio::test]
async fn a_column_without_a_value_that_was_added_by_hand_rejects_new_rows() -> Result<()> {
    const SQL: &str = "ALTER TABLE datasets.prices ADD COLUMN shop text;
        UPDATE datasets.prices SET shop = 'north';
        ALTER TABLE datasets.prices ALTER COLUMN shop SET NOT NULL";
    let scope = Scope::new().await?;
    let store = declare(&scope, "").await?;
    merge(&store, Mode::Update, &rows(1..=20, "1.50")).await?;
    sqlx::raw_sql(SQL).execute(&scope.pool()).await?;
    let upload = merge(&store, Mode::Update, &rows(11..=30, "2.50")).await?;
    ensure!(figures(&upload) == [0, 10, 0, 10].map(Some), "{upload:?}");
    scope.close().await
}

/// A condition that raises an exception for one row cannot be evaluated for all rows together.
#[tokio::test]
async fn a_check_that_raises_an_exception_for_a_row_rejects_this_row_alone() -> Result<()> {
    const SQL: &str =
        "CREATE FUNCTION is_valid(price numeric) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            IF price > 100 THEN RAISE EXCEPTION 'too high'; END IF;
            RETURN price > 0;
        END
        $$;
        ALTER TABLE datasets.prices ADD CONSTRAINT valid CHECK (is_valid(price))";
    let scope = Scope::new().await?;
    let store = declare(&scope, SQL).await?;
    let mut rows = rows(1..=20, "2.50");
    for (number, price) in [(5, "-1"), (10, "101"), (15, "-1")] {
        rows[number - 1][1] = Some(price.to_owned());
    }
    let upload = merge(&store, Mode::Update, &rows).await?;
    ensure!(figures(&upload) == [17, 0, 0, 3].map(Some), "{upload:?}");
    let rejected = rejected(&store, upload.id).await?;
    let reasons = rejected.iter().map(|row| (row.row, row.code.as_str()));
    let expected = [
        (5, "check_violation"),
        (10, "trigger_exception"),
        (15, "check_violation"),
    ];
    ensure!(reasons.eq(expected), "{rejected:?}");
    scope.close().await
}
