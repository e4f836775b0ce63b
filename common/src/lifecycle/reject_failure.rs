//! The failure of an upload that has too many rejected rows. Its codes are those with which the
//! intake refuses a file for the same reason. A validation is refused with the same failure.

use crate::rejects::{self, RejectedRow};
use crate::upload::{Failure, UploadDataset};

/// The failure of an upload with this many rejected rows among its `read` rows. `first` is the
/// first rejected row.
///
/// While the file is received, `read` is a floor. Then a limit of rows is exceeded, so the number
/// is not looked at.
pub fn reject_failure(
    dataset: Option<&UploadDataset>,
    rejected: u64,
    read: u64,
    first: Option<&RejectedRow>,
) -> Failure {
    let limit = dataset.map(|dataset| dataset.reject_limit);
    let limit = limit.unwrap_or_default();
    if limit.abort
        && let Some(first) = first
    {
        return failure_of(first);
    }
    if let Some(max) = limit.rows
        && rejected > max
    {
        return too_many(rejects::more_than_max(max));
    }
    if rejected > limit.kept {
        return too_many(rejects::more_than_kept(limit.kept));
    }
    if rejected == read
        && let Some(dataset) = dataset
    {
        let reason = first.map(RejectedRow::reason);
        let message = rejects::no_row_stored(read, &dataset.name, reason.as_deref());
        return Failure::new("no_row_fits", message);
    }
    too_many(match limit.percent {
        Some(max) => rejects::larger_share(rejected, read, max),
        None => format!("{rejected} of {read} rows were rejected"),
    })
}

fn failure_of(row: &RejectedRow) -> Failure {
    let failure = Failure::new(&row.code, row.message.clone()).at(row.row, row.line);
    match &row.column {
        Some(column) => failure.in_column(column.clone()),
        None => failure,
    }
}

fn too_many(message: String) -> Failure {
    Failure::new("too_many_rejects", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::RejectLimit;

    fn failure(limit: RejectLimit, rejected: u64, read: u64) -> Failure {
        let dataset = UploadDataset {
            name: "sales".parse().unwrap(),
            tenant: Default::default(),
            columns: Vec::new(),
            missing: Vec::new(),
            ignored: Vec::new(),
            sources: Vec::new(),
            reject_limit: limit,
            merge: None,
            table: None,
        };
        let first = RejectedRow {
            row: 2,
            line: 4,
            offset: 30,
            column: Some("Code".to_owned()),
            code: "unique_violation".to_owned(),
            constraint: Some("one_sku".to_owned()),
            message: "the reason".to_owned(),
            raw: None,
            fields: None,
        };
        reject_failure(Some(&dataset), rejected, read, Some(&first))
    }

    #[test]
    fn an_aborted_upload_fails_with_the_reason_and_the_position_of_its_first_rejected_row() {
        let limit = RejectLimit {
            abort: true,
            ..RejectLimit::default()
        };
        let failure = failure(limit, 1, 1);
        let expected = Failure::new("unique_violation", "the reason").at(2, 4);
        assert_eq!(failure, expected.in_column("Code"));
    }

    #[test]
    fn the_message_names_the_limit_that_is_exceeded() {
        let any = RejectLimit::default();
        let message = |limit, rejected| {
            let failure = failure(limit, rejected, 10);
            assert_eq!(failure.code, "too_many_rejects");
            failure.message
        };
        let rows = RejectLimit {
            rows: Some(3),
            ..any
        };
        assert_eq!(
            message(rows, 4),
            "more than 3 rows were rejected (max_rejects)"
        );
        let kept = RejectLimit { kept: 2, ..any };
        assert_eq!(
            message(kept, 3),
            "more than 2 rows were rejected, the most that are kept of an upload (CARGA_MAX_REJECTS)"
        );
        let percent = RejectLimit {
            percent: Some(0.5),
            ..any
        };
        assert_eq!(
            message(percent, 1),
            "1 of 10 rows were rejected, more than 0.5% (max_rejects)"
        );
    }

    #[test]
    fn if_no_row_fits_the_message_has_the_first_reason() {
        let failure = failure(RejectLimit::default(), 3, 3);
        assert_eq!(failure.code, "no_row_fits");
        assert_eq!(
            failure.message,
            "none of the 3 rows could be stored in dataset `sales`; row 2 is rejected as `unique_violation` in column `Code`: the reason; compare the file with the constraints of its table"
        );
    }
}
