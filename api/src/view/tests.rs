//! Tests of the figures of an upload.

use carga_common::dataset::{ColumnType, Mode, TypedColumn};
use carga_common::upload::{Epoch, Merge, RejectLimit};
use serde_json::{Value, json};

use super::*;

/// A dataset whose rows are updated by their key.
fn updated_dataset() -> UploadDataset {
    UploadDataset {
        name: "sales".parse().unwrap(),
        tenant: Default::default(),
        columns: vec![TypedColumn {
            name: "sku".to_owned(),
            kind: ColumnType::Text,
        }],
        missing: Vec::new(),
        ignored: Vec::new(),
        sources: vec![Some(0)],
        reject_limit: RejectLimit::default(),
        merge: Some(Merge {
            mode: Mode::Update,
            key: vec!["sku".to_owned()],
        }),
        table: None,
    }
}

/// A staged upload of 100 rows, of which the intake has rejected 5. Once it has ended, the record
/// has the outcomes of the others.
fn staged(status: Status) -> Upload {
    let outcome = |rows| status.keeps_rows().then_some(rows);
    Upload {
        id: UploadId::generate(),
        public_id: UploadId::generate(),
        tenant: Default::default(),
        created_by: None,
        epoch: Epoch::FIRST,
        status,
        filename: None,
        dialect: Dialect::rfc4180(false),
        columns: vec!["sku".to_owned()],
        dataset: Some(updated_dataset()),
        bytes_total: None,
        bytes_received: 700,
        rows_read: 100,
        rows_rejected: 5,
        rows_violating: outcome(3),
        blank_lines: Some(0),
        batches_total: Some(2),
        batches_dead: 0,
        batches_retrying: 0,
        rows_dead: 0,
        rows_inserted: outcome(60),
        rows_updated: outcome(25),
        rows_duplicate: outcome(7),
        sha256: None,
        duplicate_of: None,
        failure: None,
        cleanup_pending: false,
        is_reversible: true,
        undone: None,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        finished_at: None,
        missing_since: None,
        expired_at: None,
    }
}

/// The view of an upload of which the workers have staged this many rows.
fn view(upload: Upload, staged: u64) -> Value {
    let live = Counters {
        rows_stored: staged,
        batches_stored: 1,
        ..Counters::default()
    };
    serde_json::to_value(UploadView::new(upload, live, false)).unwrap()
}

#[test]
fn the_rows_of_a_staged_upload_are_pending_until_it_has_ended() {
    let rows = json!({
        "read": 100, "inserted": 0, "updated": 0, "duplicate": 0, "rejected": 5, "dead": 0,
        "discarded": 0, "pending": 95,
    });
    let shown = view(staged(Status::Processing), 50);
    assert_eq!(shown["rows"], rows);
    assert_eq!(shown["batches"]["stored"], 1);
    assert_eq!(shown["percent"], 5.0);
}

#[test]
fn the_outcomes_of_merged_rows_add_up_to_the_rows_that_were_read() {
    let rows = json!({
        "read": 100, "inserted": 60, "updated": 25, "duplicate": 7, "rejected": 8, "dead": 0,
        "discarded": 0, "pending": 0,
    });
    let shown = view(staged(Status::Partial), 0);
    assert_eq!(shown["rows"], rows);
    assert_eq!(shown["percent"], 100.0);
    assert_eq!(shown["reversible"], true);
    assert_eq!(shown["undone"], Value::Null);
}

#[test]
fn an_undone_upload_shows_what_the_undo_took_back() {
    let mut upload = staged(Status::Undone);
    upload.undone = Some(UndoneRows {
        reversed: 80,
        kept: 4,
        errored: 1,
    });
    let shown = view(upload, 0);
    let undone = json!({ "reversed": 80, "kept": 4, "errored": 1 });
    assert_eq!(shown["undone"], undone);
    assert_eq!(shown["rows"]["inserted"], 0);
    assert_eq!(shown["rows"]["discarded"], 95);
}

#[test]
fn a_merged_upload_is_reversible_until_its_previous_values_are_gone_or_it_expires() {
    let mut forgotten = staged(Status::Completed);
    forgotten.is_reversible = false;
    assert_eq!(view(forgotten, 0)["reversible"], false);
    let mut expired = staged(Status::Completed);
    expired.expired_at = Some(Timestamp::UNIX_EPOCH);
    assert_eq!(view(expired.clone(), 0)["reversible"], false);
    // The rows of an upload without a merge are removed when it expires. Its undo changes no other
    // row.
    expired.dataset = None;
    assert_eq!(view(expired, 0)["reversible"], true);
}

#[test]
fn an_upload_is_shown_with_the_id_that_its_tenant_knows() {
    let upload = staged(Status::Processing);
    let (id, public_id) = (upload.id, upload.public_id);
    let view = view(upload, 0);
    assert_eq!(view["id"], json!(public_id));
    let text = view.to_string();
    assert!(!text.contains(&id.to_string()), "{text}");
}
