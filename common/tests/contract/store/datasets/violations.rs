//! A row that violates a constraint of the table is rejected, and the other rows are stored.

use anyhow::{Result, ensure};
use carga_common::error::ErrorKind;
use carga_common::progress::{Counters, StoredBatch};
use carga_common::rejects::RejectedRow;
use carga_common::store::{
    ArchivedBatch, Completed, Completion, NewUpload, Seal, Store, StoreOutcome,
};
use carga_common::tenant::Tenant;
use carga_common::upload::{RejectLimit, Status, UploadDataset, UploadId};

use super::{create, key, sample_definition};
use crate::sample::{self, TypedRow, first, position};
use crate::store::{
    REPLAY, Relation, STORED, StoreFixture, fail, find, new_upload, remove_all, rows, seal,
};

/// The columns of the file. The note is not stored.
const FILE_COLUMNS: [&str; 3] = ["Number", "note", "Name"];

/// The outcome of a new batch with this many rejected rows.
pub(super) fn stored(rejected: u32) -> StoreOutcome {
    StoreOutcome::Stored { rejected }
}

pub(super) async fn create_dataset(store: &dyn Store) -> Result<()> {
    create(store, &key("sales")?, &sample_definition()?).await
}

/// Creates an upload of the dataset.
pub(super) async fn begin(store: &dyn Store, reject_limit: RejectLimit) -> Result<UploadId> {
    let id = UploadId::generate();
    let dataset = UploadDataset {
        name: key("sales")?.name,
        tenant: Tenant::default(),
        columns: sample_definition()?.typed_columns(),
        missing: Vec::new(),
        ignored: vec!["note".to_owned()],
        sources: vec![Some(0), Some(2)],
        reject_limit,
        merge: None,
        table: None,
    };
    let new = NewUpload {
        dataset: Some(dataset),
        ..new_upload(id, FILE_COLUMNS.map(String::from).to_vec())
    };
    store.create(&new).await?;
    Ok(id)
}

/// Batches of five rows each. The rows with these numbers have `NA` and no value in the required
/// column.
pub(super) fn batches(id: UploadId, count: u64, violating: &[u64]) -> Result<Vec<ArchivedBatch>> {
    let row = |number| {
        let mut row: TypedRow = sample::cells(number)
            .into_iter()
            .map(Some)
            .collect::<Vec<_>>()
            .into();
        if violating.contains(&number) {
            row.cells[0] = None;
            row.changed = vec![(0, "NA".to_owned()), (1, format!("note {number}"))];
        }
        row
    };
    sample::typed_batches_of(id, &sample::columns(), (1..=count).map(row), 5)
}

/// The numbers of an upload's rows in the table.
async fn in_table<F: StoreFixture>(fixture: &F, id: UploadId) -> Result<Vec<u64>> {
    let key = key("sales")?;
    let rows = fixture.typed_rows(&key, Relation::Table, &[]).await?;
    let of_upload = rows.into_iter().filter(|(upload, _)| *upload == id);
    Ok(of_upload.map(|(_, row)| row.row_number).collect())
}

/// Checks the rejected rows of `batches`.
fn check_rejected(found: &[RejectedRow], numbers: &[u64]) -> Result<()> {
    ensure!(found.len() == numbers.len(), "{found:?}");
    for (row, number) in found.iter().zip(numbers) {
        let (line, offset) = position(*number);
        let name = sample::cells(*number).swap_remove(1);
        let fields = vec!["NA".to_owned(), format!("note {number}"), name];
        let expected = RejectedRow {
            row: *number,
            line,
            offset,
            column: Some("Number".to_owned()),
            code: "not_null_violation".to_owned(),
            // The words are those of the database, and only some versions name the constraint.
            constraint: row.constraint.clone(),
            message: row.message.clone(),
            raw: None,
            fields: Some(fields),
        };
        ensure!(*row == expected, "expected {expected:?}, found {row:?}");
        ensure!(!row.message.is_empty());
    }
    Ok(())
}

/// A row that the intake rejected.
pub(super) fn rejected_by_intake(row: u64) -> RejectedRow {
    RejectedRow {
        row,
        line: row + 1,
        offset: row * 100,
        column: None,
        code: "too_few_fields".to_owned(),
        constraint: None,
        message: "expected 3 fields, found 1".to_owned(),
        raw: Some("a".to_owned()),
        fields: None,
    }
}

/// The seal of a file with this many rows in batches of five, behind which the intake has rejected
/// some.
pub(super) fn seal_with(rows: u64, rejected: u64) -> Seal {
    Seal {
        rejected,
        ..seal((rows / 5) as u32, rows + rejected)
    }
}

pub(crate) async fn a_row_that_violates_a_constraint_is_rejected_and_the_others_are_stored<
    F: StoreFixture,
>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    // The violating rows are at the beginning, in the middle, at the end, and together.
    for violating in [&[1][..], &[2, 4], &[5], &[1, 3, 5], &[2, 3, 4, 5]] {
        let id = begin(store, RejectLimit::default()).await?;
        let outcomes = store.store(&batches(id, 5, violating)?).await?;
        ensure!(
            outcomes == [stored(violating.len() as u32)],
            "{violating:?}: {outcomes:?}"
        );
        let expected: Vec<u64> = (1..=5).filter(|row| !violating.contains(row)).collect();
        let found = in_table(fixture, id).await?;
        ensure!(found == expected, "{violating:?}: {found:?}");
        check_rejected(&store.rejected_page(id, 0).await?, violating)?;
    }
    Ok(())
}

pub(crate) async fn of_rows_with_one_unique_value_the_first_is_stored<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let table = F::table(&key("sales")?);
    // The name of an index is in the schema of its table.
    let index = format!("CREATE UNIQUE INDEX one_of_a_name ON {table} (name)");
    fixture.execute(&index).await?;
    let earlier = begin(store, RejectLimit::default()).await?;
    ensure!(store.store(&batches(earlier, 2, &[])?).await? == [STORED]);

    let id = begin(store, RejectLimit::default()).await?;
    let names = ["a", "name of 2", "b", "a", "c"];
    let row = |(number, name): (u64, &str)| vec![Some(number.to_string()), Some(name.to_owned())];
    let given = (1..).zip(names).map(row);
    let batch = sample::typed_batches_of(id, &sample::columns(), given, 5)?;
    ensure!(store.store(&batch).await? == [stored(2)]);
    ensure!(in_table(fixture, earlier).await? == [1, 2]);
    ensure!(in_table(fixture, id).await? == [1, 3, 5]);
    let rejected = store.rejected_page(id, 0).await?;
    ensure!(rejected.len() == 2, "{rejected:?}");
    for (row, (number, name)) in rejected.iter().zip([(2, "name of 2"), (4, "a")]) {
        ensure!((row.row, row.line) == (number, number + 1), "{row:?}");
        ensure!(row.code == "unique_violation", "{row:?}");
        ensure!(row.column.as_deref() == Some("Name"), "{row:?}");
        ensure!(row.constraint.is_some(), "{row:?}");
        let number = number.to_string();
        let fields = [number.as_str(), "", name].map(str::to_owned);
        ensure!(row.fields == Some(fields.to_vec()), "{row:?}");
    }
    Ok(())
}

pub(crate) async fn rejected_rows_of_a_group_are_counted_for_each_batch<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let one = begin(store, RejectLimit::default()).await?;
    let other = begin(store, RejectLimit::default()).await?;
    let landing = crate::store::begin(store).await?;
    let group = [
        batches(one, 10, &[1, 2, 9])?,
        sample::batches(landing, 1, 10)?,
        batches(other, 15, &[6, 7, 8, 9, 10])?,
    ]
    .concat();
    let outcomes = store.store(&group).await?;
    let expected = [stored(2), stored(1), STORED, STORED, stored(5), STORED];
    ensure!(outcomes == expected, "{outcomes:?}");
    ensure!(in_table(fixture, one).await? == [3, 4, 5, 6, 7, 8, 10]);
    ensure!(in_table(fixture, other).await? == [1, 2, 3, 4, 5, 11, 12, 13, 14, 15]);
    ensure!(fixture.rows_in_table(landing).await? == 10);
    check_rejected(&store.rejected_page(one, 0).await?, &[1, 2, 9])?;
    check_rejected(&store.rejected_page(other, 0).await?, &[6, 7, 8, 9, 10])?;

    let ledger = store.ledger(first(one)).await?;
    let counts = ledger.iter().map(|entry| (entry.rows, entry.rejected));
    ensure!(counts.eq([(5, 2), (5, 1)]), "{ledger:?}");
    let mut progress = store.progress(first(one)).await?;
    progress.stored.sort_unstable_by_key(|batch| batch.seq);
    let batch = |(seq, rows, rejected)| StoredBatch {
        seq,
        rows,
        rejected,
    };
    let expected = [(1, 3, 2), (2, 4, 1)].map(batch);
    ensure!(progress.stored == expected, "{progress:?}");
    let sums = store.sums(first(one)).await?;
    let expected = Counters {
        rows_stored: 7,
        rows_rejected: 3,
        batches_stored: 2,
        ..sums
    };
    ensure!(sums == expected, "{sums:?}");
    Ok(())
}

pub(crate) async fn a_replay_reports_the_rejected_rows_again<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let (store, other) = (fixture.open().await?, fixture.open().await?);
    create_dataset(store.as_ref()).await?;
    let id = begin(store.as_ref(), RejectLimit::default()).await?;
    let batches = batches(id, 10, &[2, 4])?;
    let replay = StoreOutcome::Replay { rejected: 2 };
    // The same batch is twice in one group.
    let twice = [batches[0].clone(), batches[0].clone()];
    ensure!(store.store(&twice).await? == [stored(2), replay]);
    ensure!(other.store(&batches).await? == [replay, STORED]);
    ensure!(store.seal(first(id), &seal_with(10, 0)).await?);
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    ensure!(other.store(&batches).await? == [replay, REPLAY]);
    ensure!(in_table(fixture, id).await?.len() == 8);
    check_rejected(&store.rejected_page(id, 0).await?, &[2, 4])
}

pub(crate) async fn rows_that_the_table_rejects_are_counted_to_the_end<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let id = begin(store, RejectLimit::default()).await?;
    // No row of the first batch is stored.
    let violating = [1, 2, 3, 4, 5, 9];
    let outcomes = store.store(&batches(id, 10, &violating)?).await?;
    ensure!(outcomes == [stored(5), stored(1)], "{outcomes:?}");
    ensure!(store.reject(first(id), &[rejected_by_intake(11)]).await?);
    let seal = seal_with(10, 1);
    ensure!(store.seal(first(id), &seal).await?);
    let completion = store.completion(id).await?;
    let is_ready = matches!(completion, Completion::Ready { violating: 6, .. });
    ensure!(is_ready, "{completion:?}");
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    // The seal is the same as before, since it has the figures of the intake.
    ensure!(store.seal(first(id), &seal).await?);

    let upload = find(store, id).await?;
    ensure!(upload.status == Status::Partial, "{upload:?}");
    ensure!((upload.rows_read, upload.rows_rejected) == (11, 1));
    ensure!(upload.rows_inserted == Some(4), "{upload:?}");
    ensure!(upload.rows_violating == Some(6), "{upload:?}");
    let visible = rows(store, id).await?.into_iter();
    let visible: Vec<u64> = visible.map(|row| row.row_number).collect();
    ensure!(visible == [6, 7, 8, 10], "{visible:?}");
    let rejected = store.rejected_page(id, 0).await?;
    check_rejected(&rejected[..6], &violating)?;
    ensure!(rejected[6..] == [rejected_by_intake(11)], "{rejected:?}");
    Ok(())
}

/// A violating row cannot be reported without its place in the file. Carga sends no such message.
pub(crate) async fn a_violating_row_without_its_origin_is_invalid<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let id = begin(store, RejectLimit::default()).await?;
    let other = begin(store, RejectLimit::default()).await?;
    let violating = r#"[["1","a"],[null,"b"]]"#;
    let invalid = sample::by_hand(id, 1, &sample::columns(), violating)?;
    let good = batches(other, 5, &[])?;
    let group = [good.clone(), vec![sample::archived(invalid)]].concat();
    let outcome = store.store(&group).await;
    ensure!(
        outcome
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Invalid),
        "{outcome:?}"
    );
    for id in [id, other] {
        ensure!(in_table(fixture, id).await?.is_empty());
        ensure!(store.ledger(first(id)).await?.is_empty());
        ensure!(store.rejected_page(id, 0).await?.is_empty());
    }
    ensure!(store.store(&good).await? == [STORED]);
    Ok(())
}

pub(crate) async fn a_failed_upload_keeps_its_rejected_rows_and_no_others<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let id = begin(store, RejectLimit::default()).await?;
    ensure!(store.reject(first(id), &[rejected_by_intake(11)]).await?);
    let outcomes = store.store(&batches(id, 10, &[2, 4, 6])?).await?;
    ensure!(outcomes == [stored(2), stored(1)], "{outcomes:?}");
    fail(store, id).await?;
    let upload = find(store, id).await?;
    ensure!(upload.rows_read == 11, "{upload:?}");
    ensure!(upload.rows_rejected == 1, "{upload:?}");
    ensure!(upload.rows_violating == Some(3), "{upload:?}");
    remove_all(store, id).await?;
    ensure!(in_table(fixture, id).await?.is_empty());
    let rejected = store.rejected_page(id, 0).await?;
    check_rejected(&rejected[..3], &[2, 4, 6])?;
    ensure!(rejected.len() == 4, "{rejected:?}");
    Ok(())
}

pub(crate) async fn an_undone_upload_keeps_its_rejected_rows_and_no_others<F: StoreFixture>(
    fixture: &F,
) -> Result<()> {
    let handle = fixture.open().await?;
    let store = handle.as_ref();
    create_dataset(store).await?;
    let id = begin(store, RejectLimit::default()).await?;
    store.store(&batches(id, 10, &[2, 4, 6])?).await?;
    ensure!(store.seal(first(id), &seal_with(10, 0)).await?);
    ensure!(store.complete(first(id), 0).await? == Completed::Yes);
    ensure!(in_table(fixture, id).await?.len() == 7);
    ensure!(store.undo(first(id)).await?);
    remove_all(store, id).await?;
    ensure!(in_table(fixture, id).await?.is_empty());
    ensure!(store.ledger(first(id)).await?.is_empty());
    check_rejected(&store.rejected_page(id, 0).await?, &[2, 4, 6])
}
