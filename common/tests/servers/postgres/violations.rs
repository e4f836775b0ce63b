//! Rows that violate a constraint of a dataset's table, for every kind of constraint that a user
//! may add by hand.

mod kinds;
mod mixed;
mod older_version;
mod together;

use anyhow::{Context, Result, ensure};
use carga_common::archive::ArchiveCompression;
use carga_common::batch::{Batch, BatchEncoder, BatchLimits, RowOrigin};
use carga_common::dataset::Definition;
use carga_common::rejects::RejectedRow;
use carga_common::store::{
    ArchivedBatch, BatchStore, DatasetStore, NewUpload, PostgresStore, StoreOutcome, UploadStore,
};
use carga_common::upload::{RejectLimit, UploadDataset, UploadId, UploadKey};
use carga_testkit::Scope;

use self::kinds::{CASES, Case};
use super::{connect, dataset_key, new_upload};

const DEFINITION: &[u8] = br#"{ "columns": [
    { "name": "sku", "type": "text" },
    { "name": "price", "type": "numeric" },
    { "name": "day", "type": "date" }
] }"#;

/// How many rows the batch of a case has.
const ROWS: usize = 200;

/// The cells of a row: `sku`, `price` and `day`, or NULL.
type Cells = [Option<String>; 3];

/// The row with this number, which violates no constraint.
fn good(number: usize) -> Cells {
    let sku = format!("a{number}");
    let (price, day) = (
        format!("{number}.50"),
        format!("{:04}-01-01", 1000 + number),
    );
    [sku, price, day].map(Some)
}

/// A trigger that refuses rows at the end of the statement, where the error names no row.
const REFUSE_AFTERWARDS: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.price < 0 THEN RAISE EXCEPTION 'too cheap'; END IF;
        RETURN NULL;
    END
    $$;
    CREATE TRIGGER refuse AFTER INSERT ON datasets.prices
    FOR EACH ROW EXECUTE FUNCTION refuse()";

/// A trigger that leaves rows out without an error.
const LEAVE_OUT: &str = "CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.price < 0 THEN RETURN NULL; END IF;
        RETURN NEW;
    END
    $$;
    CREATE TRIGGER leave_out BEFORE INSERT ON datasets.prices
    FOR EACH ROW EXECUTE FUNCTION leave_out()";

/// Declares the dataset `prices`, and adds a constraint by hand.
async fn declare(scope: &Scope, sql: &str) -> Result<PostgresStore> {
    let store = connect(scope.database_url()).await?;
    let definition = Definition::from_json(DEFINITION)?;
    store
        .put_dataset(&dataset_key("prices")?, &definition)
        .await?;
    sqlx::raw_sql(sql).execute(&scope.pool()).await?;
    Ok(store)
}

/// Creates an upload, and makes a batch of rows of its dataset.
async fn begin(store: &PostgresStore, rows: &[Cells]) -> Result<ArchivedBatch> {
    let columns = Definition::from_json(DEFINITION)?.typed_columns();
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let dataset = UploadDataset {
        name: "prices".parse()?,
        tenant: Default::default(),
        columns,
        missing: Vec::new(),
        ignored: vec!["Note".to_owned()],
        sources: vec![Some(1), Some(2), Some(3)],
        reject_limit: RejectLimit::default(),
        merge: None,
        table: None,
    };
    let upload = NewUpload {
        columns: ["Note", "Article", "Price", "Day"]
            .map(String::from)
            .to_vec(),
        dataset: Some(dataset),
        ..new_upload()
    };
    let id = store.create(&upload).await?.id;
    Ok(ArchivedBatch {
        batch: batch(id, &names, rows)?,
        archive_compression: ArchiveCompression::None,
        archive_bytes: 1,
        archive_crc32: 1,
        object_bytes: 1,
    })
}

fn batch(id: UploadId, columns: &[String], rows: &[impl AsRef<[Option<String>]>]) -> Result<Batch> {
    let limits = BatchLimits {
        rows: u32::MAX,
        bytes: 4 << 20,
    };
    let mut encoder = BatchEncoder::typed(UploadKey::first(id), columns, "00-trace", limits);
    for (number, cells) in (1..).zip(rows) {
        let origin = RowOrigin {
            line: number + 1,
            offset: number * 100,
            changed: [(0, "a note")].into_iter(),
        };
        encoder.push_typed(number, cells.as_ref().iter().map(Option::as_deref), origin)?;
    }
    let encoded = encoder.finish().0.context("the batch has no row")?;
    Ok(Batch::decode(encoded.body)?)
}

/// Stores rows as one batch. Returns the rejected rows.
async fn store(store: &PostgresStore, rows: &[Cells]) -> Result<Vec<RejectedRow>> {
    let archived = begin(store, rows).await?;
    let outcome = store.store(std::slice::from_ref(&archived)).await?;
    let rejected = super::rejected(store, archived.batch.id.upload.id).await?;
    let count = rejected.len() as u32;
    ensure!(
        outcome == [StoreOutcome::Stored { rejected: count }],
        "{count} rows are rejected: {outcome:?}"
    );
    Ok(rejected)
}

/// The numbers of the rows in the table, of all uploads.
async fn stored(scope: &Scope) -> Result<Vec<i64>> {
    let numbers = sqlx::query_scalar("SELECT row_number FROM datasets.prices ORDER BY 1");
    Ok(numbers.fetch_all(&scope.pool()).await?)
}

/// Stores a batch in which the rows with these numbers violate the constraint.
async fn check(
    scope: &Scope,
    prices: &PostgresStore,
    case: &Case,
    violating: &[usize],
) -> Result<()> {
    sqlx::query("DELETE FROM datasets.prices")
        .execute(&scope.pool())
        .await?;
    let mut rows: Vec<Cells> = (1..=ROWS).map(good).collect();
    for number in violating {
        (case.spoil)(&mut rows[number - 1]);
    }
    let rejected = store(prices, &rows).await?;
    let numbers = rejected.iter().map(|row| row.row as usize);
    ensure!(numbers.eq(violating.iter().copied()), "{rejected:?}");
    for row in &rejected {
        let reason = (
            row.code.as_str(),
            row.constraint.as_deref(),
            row.column.as_deref(),
        );
        let expected = (case.code, case.constraint, case.column);
        ensure!(reason == expected, "{row:?}");
        ensure!(row.line == row.row + 1 && row.offset == row.row * 100);
        let cells = &rows[row.row as usize - 1];
        let texts = cells.iter().map(|cell| cell.as_deref().unwrap_or(""));
        let texts = ["a note"].into_iter().chain(texts);
        ensure!(texts.eq(row.fields.iter().flatten()), "{row:?}");
        ensure!(!row.message.is_empty() && row.raw.is_none());
    }
    let kept = (1..=ROWS).filter(|number| !violating.contains(number));
    let kept: Vec<i64> = kept.map(|number| number as i64).collect();
    ensure!(stored(scope).await? == kept);
    Ok(())
}

/// Few violating rows are found by the line of the COPY. Many are found together, or by dividing
/// the rows. The first row is never one of them, since others are its duplicates.
#[tokio::test]
async fn every_violating_row_is_rejected_and_all_others_are_stored() -> Result<()> {
    let many: Vec<usize> = (2..=ROWS).filter(|number| number % 3 == 0).collect();
    for case in &CASES {
        let scope = Scope::new().await?;
        let prices = declare(&scope, case.sql).await?;
        // The store tries another way first after a batch with violating rows.
        let batches: [&[usize]; 7] = [&[], &[7], &many, &many, &[2, 200], &[], &many];
        for violating in batches {
            let checked = check(&scope, &prices, case, violating).await;
            checked.with_context(|| format!("{}, {} rows", case.name, violating.len()))?;
        }
        scope.close().await?;
    }
    Ok(())
}

#[tokio::test]
async fn rows_that_a_trigger_refuses_at_the_end_of_the_statement_are_rejected() -> Result<()> {
    let scope = Scope::new().await?;
    let prices = declare(&scope, REFUSE_AFTERWARDS).await?;
    let case = Case {
        name: "trigger after",
        sql: REFUSE_AFTERWARDS,
        spoil: |cells| cells[1] = Some("-1".to_owned()),
        code: "trigger_exception",
        constraint: None,
        column: None,
    };
    let batches: [&[usize]; 3] = [&[3], &[1, 2, 50, 51, 199, 200], &[]];
    for violating in batches {
        check(&scope, &prices, &case, violating).await?;
    }
    scope.close().await
}

#[tokio::test]
async fn rows_that_a_trigger_leaves_out_are_rejected() -> Result<()> {
    let scope = Scope::new().await?;
    let prices = declare(&scope, LEAVE_OUT).await?;
    let case = Case {
        name: "trigger leaves out",
        sql: LEAVE_OUT,
        spoil: |cells| cells[1] = Some("-1".to_owned()),
        code: "trigger_exception",
        constraint: None,
        column: None,
    };
    let batches: [&[usize]; 4] = [&[3], &[1, 2, 50, 51, 199, 200], &[], &[200]];
    for violating in batches {
        check(&scope, &prices, &case, violating).await?;
    }
    scope.close().await
}

#[tokio::test]
async fn a_column_without_a_value_that_was_added_by_hand_rejects_all_rows() -> Result<()> {
    const SQL: &str = "ALTER TABLE datasets.prices ADD COLUMN shop text NOT NULL";
    let scope = Scope::new().await?;
    let prices = declare(&scope, SQL).await?;
    let rows: Vec<Cells> = (1..=ROWS).map(good).collect();
    for _ in 0..2 {
        let rejected = store(&prices, &rows).await?;
        ensure!(rejected.len() == ROWS);
        let shop = |row: &RejectedRow| row.column.as_deref() == Some("shop");
        ensure!(rejected.iter().all(shop), "{rejected:?}");
    }
    ensure!(stored(&scope).await?.is_empty());
    scope.close().await
}
