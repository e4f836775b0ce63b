//! Tests of validations without a database.

mod fake_store;
mod trying;

use carga_common::dataset::Definition;
use carga_common::error::PortResult;
use carga_common::rejects::RejectedRow;
use carga_common::settings::{self, Settings};
use carga_common::store::{TRIAL_REJECTS, TrialWarning, Tried};
use futures::stream;
use proptest::prelude::*;

use self::fake_store::FakeStore;
use super::*;

const PRICES: &str = r#"{ "columns": [
    { "name": "sku", "type": "text" }, { "name": "price", "type": "numeric" }
], "key": ["sku"], "mode": "append" }"#;

fn prices() -> Dataset {
    Dataset {
        tenant: Tenant::default(),
        name: "prices".parse().unwrap(),
        definition: Definition::from_json(PRICES.as_bytes()).unwrap(),
        created_at: "2026-11-26T00:00:00Z".parse().unwrap(),
        updated_at: "2026-11-26T00:00:00Z".parse().unwrap(),
    }
}

/// A validator with the default settings and without a store.
fn validator() -> Validator {
    let settings = Settings::read(settings::Mode::Embedded, &|_| None).unwrap();
    Validator::new(Arc::new(settings.intake), None)
}

/// Options of a file. Its delimiter and its header are given, so they are not detected.
fn options(given: &[(&str, &str)]) -> Options {
    let given = [&[("delimiter", ","), ("header", "true")][..], given].concat();
    let given = given.iter();
    let given = given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Options::from_query(&given.collect::<Vec<_>>()).unwrap()
}

async fn validate(given: &[(&str, &str)], file: &str) -> Result<Validation, Refusal> {
    let bytes = stream::iter([Ok(Bytes::copy_from_slice(file.as_bytes()))]);
    validator().validate_file(&options(given), bytes).await
}

/// Reads a file for the dataset of the prices.
async fn read(options: &Options, file: &str) -> Result<ReadFile, Refusal> {
    let pieces = stream::iter([Ok(Bytes::copy_from_slice(file.as_bytes()))]);
    let validator = validator();
    let source = FileSource::new(pieces, SizeLimit::of(&validator.settings));
    validator.read_for(Some(prices()), source, options).await
}

/// Reads a file, and tries its rows on a store.
async fn try_file(
    store: &FakeStore,
    given: &[(&str, &str)],
    file: &str,
) -> Result<Validation, Refusal> {
    let options = options(given);
    let ReadFile {
        mut validation,
        untried,
        ..
    } = read(&options, file).await?;
    let validator = validator();
    let tried = validator.try_rows(untried.unwrap(), store);
    validation.add(tried.await?);
    Ok(validation)
}

fn nothing() -> PortResult<Tried> {
    Ok(Tried::Difference(Difference::default()))
}

fn rejected(row: u64) -> RejectedRow {
    RejectedRow {
        row,
        line: row + 1,
        offset: 0,
        column: Some("sku".to_owned()),
        code: "unique_violation".to_owned(),
        constraint: None,
        message: "the reason".to_owned(),
        raw: None,
        fields: Some(vec!["a".to_owned()]),
    }
}

const DATASET: (&str, &str) = ("dataset", "prices");

#[tokio::test]
async fn every_row_of_a_file_without_a_dataset_is_read_and_would_be_inserted_or_rejected() {
    let rows = (1..=600).map(|row| match row % 2 {
        0 => format!("{row},x\n"),
        _ => format!("{row}\n"),
    });
    let file = "id,name\n".to_owned() + &rows.collect::<String>();
    let validation = validate(&[], &file).await.unwrap();
    let expected = RowOutcomes {
        read: 600,
        would_insert: 300,
        would_update: 0,
        unchanged: 0,
        rejected: 300,
    };
    assert_eq!(validation.rows, expected);
    assert_eq!(validation.columns, ["id", "name"]);
    assert_eq!(validation.dialect.delimiter, ",");
    let numbers: Vec<u64> = validation.rejected.iter().map(|row| row.row).collect();
    let first: Vec<u64> = (1..=200).step_by(2).collect();
    assert_eq!(numbers, first);
    assert!(validation.changed_columns.is_empty() && validation.warnings.is_empty());
}

#[tokio::test]
async fn a_file_that_an_upload_would_refuse_is_refused_with_the_same_code() {
    let sha256 = "0".repeat(64);
    let short = "a,b\n1,2\n3\n4\n";
    for (given, file, code) in [
        (vec![("on_error", "abort")], short, "too_few_fields"),
        (vec![("max_rejects", "1")], short, "too_many_rejects"),
        (vec![("max_rejects", "50%")], short, "too_many_rejects"),
        (vec![], "a,b\n1\n2\n", "no_row_fits"),
        (vec![("sha256", sha256.as_str())], short, "sha256_mismatch"),
        (
            vec![("names", "strict")],
            "a,a\n1,2\n",
            "duplicate_column_name",
        ),
        (vec![DATASET], short, "dataset_not_found"),
        (vec![], "", "empty_file"),
    ] {
        let refusal = validate(&given, file).await.unwrap_err();
        assert_eq!(refusal.failure.code, code, "{given:?}");
    }
}

#[tokio::test]
async fn the_rows_that_are_not_rejected_are_tried_as_an_upload_would_send_them() {
    let store = FakeStore::new(nothing);
    let file = "price,sku\n1.50,a\ncheap,b\n7,c\n";
    try_file(&store, &[DATASET], file).await.unwrap();
    let asked = store.last();
    let row = |number: u64, cells: [&str; 2]| (number, cells.map(str::to_owned).to_vec());
    assert_eq!(asked.rows, [row(1, ["a", "1.50"]), row(3, ["c", "7"])]);
    assert_eq!((asked.read, asked.rejected), (3, 1));
    assert_eq!(asked.columns, ["price", "sku"]);
    assert_eq!(asked.dataset.sources, [Some(1), Some(0)]);
}

#[tokio::test]
async fn rows_that_an_upload_appends_without_staging_them_are_tried_in_the_mode_append() {
    let store = FakeStore::new(nothing);
    for (given, mode) in [
        (vec![DATASET], Mode::Append),
        (vec![DATASET, ("atomic", "true")], Mode::Append),
        (vec![DATASET, ("mode", "update")], Mode::Update),
        (vec![DATASET, ("mode", "ignore")], Mode::Ignore),
    ] {
        try_file(&store, &given, "sku,price\na,1\n").await.unwrap();
        let key = vec!["sku".to_owned()];
        assert_eq!(store.last().dataset.merge, Some(Merge { mode, key }));
    }
}

#[tokio::test]
async fn the_limit_of_rejected_rows_is_that_of_the_upload() {
    let store = FakeStore::new(nothing);
    let limit = async |given: &[(&str, &str)]| {
        let given = [&[DATASET][..], given].concat();
        try_file(&store, &given, "sku,price\na,1\n").await.unwrap();
        store.last().dataset.reject_limit
    };
    assert_eq!(limit(&[("max_rejects", "3")]).await.rows, Some(3));
    assert_eq!(limit(&[("max_rejects", "5%")]).await.percent, Some(5.0));
    assert_eq!(limit(&[]).await.kept, 1_000_000);
    assert!(limit(&[("on_error", "abort")]).await.abort);
}

#[tokio::test]
async fn the_findings_of_the_table_are_added_to_those_of_the_file() {
    let store = FakeStore::new(|| {
        Ok(Tried::Difference(Difference {
            inserted: 1,
            updated: 2,
            duplicate: 3,
            rejected: 150,
            rejects: (1..=100).map(|row| rejected(2 * row)).collect(),
            changed_columns: [("price".to_owned(), 2)].into(),
            warnings: vec![TrialWarning {
                code: "row_triggers".into(),
                message: "slow".to_owned(),
            }],
        }))
    });
    // Rows 1, 3, 5 and so on are rejected while the file is read.
    let row = |row: u64| match row % 2 {
        0 => format!("{row},1\n"),
        _ => format!("{row},cheap\n"),
    };
    let file = "sku,price\n".to_owned() + &(1..=312).map(row).collect::<String>();
    let validation = try_file(&store, &[DATASET], &file).await.unwrap();
    let expected = RowOutcomes {
        read: 312,
        would_insert: 1,
        would_update: 2,
        unchanged: 3,
        rejected: 306,
    };
    assert_eq!(validation.rows, expected);
    let numbers: Vec<u64> = validation.rejected.iter().map(|row| row.row).collect();
    assert_eq!(numbers, (1..=TRIAL_REJECTS as u64).collect::<Vec<_>>());
    assert_eq!(validation.changed_columns, [("price".to_owned(), 2)].into());
    assert_eq!(validation.warnings[0].code, "row_triggers");
}

#[test]
fn the_rejected_rows_of_an_answer_have_a_limited_size() {
    let mut first = FirstRejects::default();
    for number in 1..=3 {
        let mut row = rejected(number);
        row.fields = Some(vec!["x".repeat(1 << 21)]);
        first.push(row);
    }
    let mut validation = Validation {
        dialect: Dialect::rfc4180(false),
        columns: Vec::new(),
        rows: RowOutcomes {
            read: 4,
            would_insert: 1,
            would_update: 0,
            unchanged: 0,
            rejected: 3,
        },
        changed_columns: Default::default(),
        rejected: first.into_rows(),
        warnings: Vec::new(),
    };
    let kept = |validation: &Validation| {
        let rows = validation.rejected.iter();
        rows.map(|row| (row.row, row.fields.is_some()))
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&validation), [(1, true), (2, false), (3, false)]);
    let mut large = rejected(4);
    large.raw = Some("x".repeat(1 << 22));
    validation.add(Difference {
        rejects: vec![large],
        ..Difference::default()
    });
    let expected = [(1, true), (2, false), (3, false), (4, false)];
    assert_eq!(kept(&validation), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_of_any_file_is_tried_or_rejected(
        kinds in prop::collection::vec(0..4_u8, 1..400),
        rows_in_batch in 1..50_u32,
    ) {
        let row = |(number, kind): (usize, &u8)| match kind {
            0 => format!("{number},cheap\n"),
            1 => format!("{number}\n"),
            _ => format!("{number},{number}.5\n"),
        };
        // The first row has no fault, so the file is not refused.
        let rows: String = kinds.iter().enumerate().map(row).collect();
        let file = format!("sku,price\nfirst,1\n{rows}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let store = FakeStore::new(nothing);
        let validator = validator();
        let mut settings = validator.settings.as_ref().clone();
        settings.batch.rows = rows_in_batch;
        let validator = Validator::new(Arc::new(settings), None);
        let options = options(&[DATASET]);
        let pieces = file.as_bytes().chunks(97).map(|piece| Ok(Bytes::copy_from_slice(piece)));
        let pieces = stream::iter(pieces.collect::<Vec<_>>());
        let source = FileSource::new(pieces, SizeLimit::of(&validator.settings));
        runtime.block_on(async {
            let read = validator.read_for(Some(prices()), source, &options).await.unwrap();
            let tried = validator.try_rows(read.untried.unwrap(), &store);
            tried.await.unwrap();
        });
        let asked = store.last();
        let tried: Vec<u64> = asked.rows.iter().map(|(number, _)| *number).collect();
        let good = kinds.iter().enumerate().filter(|(_, kind)| **kind > 1);
        let good = good.map(|(index, _)| index as u64 + 2);
        prop_assert_eq!(&tried, &std::iter::once(1).chain(good).collect::<Vec<_>>());
        prop_assert_eq!(asked.read, kinds.len() as u64 + 1);
        prop_assert_eq!(asked.rejected, asked.read - tried.len() as u64);
    }
}
