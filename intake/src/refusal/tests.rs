//! Tests of the messages of refusals.

use carga_common::upload::{Dialect, Epoch, RejectLimit, UploadDataset};

use super::*;

fn name() -> DatasetName {
    "my sales".parse().unwrap()
}

#[test]
fn only_a_request_that_needs_a_dataset_names_the_ways_to_declare_it() {
    let needed = Refusal::no_such_dataset(&name());
    let deleted = Refusal::no_dataset_to_delete(&name());
    assert_eq!(needed.failure.code, deleted.failure.code);
    let message = needed.failure.message;
    assert!(message.contains("`PUT /datasets/my%20sales`"), "{message}");
    assert!(message.contains("`carga dataset put`"), "{message}");
    let message = deleted.failure.message;
    assert_eq!(message, "dataset `my sales` does not exist");
}

#[test]
fn the_refusal_to_delete_a_dataset_has_a_remedy_for_each_kind_of_upload() {
    let message = Refusal::dataset_in_use(&name(), 3).failure.message;
    for part in [
        ": 3;",
        "cancel uploads that have not ended",
        "undo those that have rows",
        "`GET /uploads?dataset=my%20sales`",
    ] {
        assert!(message.contains(part), "no {part}: {message}");
    }
}

#[test]
fn a_refused_repetition_says_whether_the_first_request_is_still_running() {
    let receiving = Upload {
        status: Status::Receiving,
        ..ended(None)
    };
    for (first, part) in [
        (ended(None), "repeat the request to get its answer"),
        (receiving, "repeat the request when it has ended"),
    ] {
        let refusal = Refusal::idempotency_in_progress(Some(&first));
        assert_eq!(refusal.upload_status, Some(first.status));
        assert_eq!(refusal.upload, Some(first.public_id));
        let message = refusal.failure.message;
        assert!(message.contains(part), "{message}");
    }
}

/// An upload that has ended, into this table of the user or into a table of Carga.
fn ended(table: Option<&str>) -> Upload {
    Upload {
        id: UploadId::generate(),
        public_id: UploadId::generate(),
        tenant: Default::default(),
        created_by: None,
        epoch: Epoch::FIRST,
        status: Status::Completed,
        filename: None,
        dialect: Dialect::rfc4180(false),
        columns: Vec::new(),
        dataset: Some(UploadDataset {
            name: name(),
            tenant: Default::default(),
            columns: Vec::new(),
            missing: Vec::new(),
            ignored: Vec::new(),
            sources: Vec::new(),
            reject_limit: RejectLimit::default(),
            merge: None,
            table: table.map(|table| table.parse().unwrap()),
        }),
        bytes_total: None,
        bytes_received: 0,
        rows_read: 0,
        rows_rejected: 0,
        rows_violating: None,
        blank_lines: None,
        batches_total: None,
        batches_dead: 0,
        batches_retrying: 0,
        rows_dead: 0,
        rows_inserted: None,
        rows_updated: None,
        rows_duplicate: None,
        sha256: None,
        duplicate_of: None,
        failure: None,
        cleanup_pending: false,
        is_reversible: false,
        undone: None,
        created_at: "2026-11-26T00:00:00Z".parse().unwrap(),
        updated_at: "2026-11-26T00:00:00Z".parse().unwrap(),
        finished_at: None,
        missing_since: None,
        expired_at: None,
    }
}

#[test]
fn the_refusal_to_undo_names_every_possible_reason() {
    let message = |upload: &Upload| {
        let refusal = Refusal::not_reversible(upload);
        assert_eq!(refusal.failure.code, "not_reversible");
        assert_eq!(refusal.kind, RefusalKind::Conflict);
        refusal.failure.message
    };
    let own = message(&ended(None));
    assert!(own.contains("CARGA_UNDO_DAYS"), "{own}");
    assert!(!own.contains("primary key"), "{own}");
    let mut of_user = ended(Some("shop.prices"));
    let shown = message(&of_user);
    for part in [
        "table shop.prices",
        "no primary key",
        "CARGA_UNDO_DAYS",
        "dataset was deleted",
    ] {
        assert!(shown.contains(part), "no {part}: {shown}");
    }
    of_user.expired_at = Some("2026-11-27T00:00:00Z".parse().unwrap());
    let expired = message(&of_user);
    assert!(expired.contains("CARGA_RETENTION_DAYS"), "{expired}");
    assert!(!expired.contains("primary key"), "{expired}");
}

#[test]
fn a_refusal_about_a_table_of_the_user_names_the_table_and_its_dataset_or_upload() {
    let fault = TableFault::new(
        "column_type",
        "columns of table shop.prices have other types",
    );
    let refusal = Refusal::unfit_table(&name(), &fault);
    assert_eq!(refusal.kind, RefusalKind::Unprocessable);
    assert_eq!(
        refusal.to_string(),
        "column_type: dataset `my sales`: columns of table shop.prices have other types"
    );
    let upload = ended(Some("shop.prices"));
    let table = "shop.prices".parse().unwrap();
    let refusal = Refusal::rows_in_user_table(&upload, &table);
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert_eq!(refusal.failure.code, "rows_in_user_table");
    assert_eq!(refusal.upload, Some(upload.public_id));
    assert!(!refusal.failure.message.contains(&upload.id.to_string()));
    assert!(
        refusal.failure.message.contains("table shop.prices"),
        "{refusal}"
    );
}
