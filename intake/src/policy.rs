//! Decides when rejected rows fail an upload, and whether a file may be imported twice.

use carga_common::dataset::DatasetName;
use carga_common::rejects;
use carga_common::upload::{RejectLimit, UploadId};

use crate::csv::Rejection;
use crate::refusal::Refusal;

/// What happens when a row is rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum OnError {
    /// The upload continues.
    #[default]
    Reject,
    /// The upload fails.
    Abort,
}

/// How many rows may be rejected before the upload fails.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum MaxRejects {
    #[default]
    Any,
    /// A number of rows, checked after each rejected row.
    Rows(u64),
    /// A percentage of all rows, checked at the end of the file.
    Percent(f64),
}

/// What happens to a file that was imported before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum OnDuplicate {
    /// The file is imported again.
    #[default]
    Allow,
    /// The upload fails.
    Reject,
}

/// The options about rejected rows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Policy {
    pub(crate) on_error: OnError,
    pub(crate) max_rejects: MaxRejects,
}

impl Policy {
    /// The limit that is recorded for an upload with a dataset, because rows that violate a
    /// constraint of the table are found later. `kept` is the largest number of rejected rows that
    /// is kept of any upload.
    pub(crate) fn reject_limit(&self, kept: u64) -> RejectLimit {
        let (rows, percent) = match self.max_rejects {
            MaxRejects::Any => (None, None),
            MaxRejects::Rows(max) => (Some(max), None),
            MaxRejects::Percent(max) => (None, Some(max)),
        };
        RejectLimit {
            abort: self.on_error == OnError::Abort,
            rows,
            percent,
            kept,
        }
    }

    /// Checks after each rejected row whether the upload may continue. `kept` is the largest
    /// number of rejected rows that is kept of any upload.
    pub(crate) fn check_rejected(
        &self,
        latest: &Rejection,
        rejected: u64,
        kept: u64,
    ) -> Result<(), Refusal> {
        if self.on_error == OnError::Abort {
            let Rejection {
                row: latest,
                exceeded,
            } = latest;
            let mut refusal = Refusal::unprocessable(&latest.code, latest.message.clone());
            refusal.failure.row = Some(latest.row);
            refusal.failure.line = Some(latest.line);
            refusal.failure.column.clone_from(&latest.column);
            refusal.exceeded = *exceeded;
            return Err(refusal);
        }
        if let MaxRejects::Rows(max) = self.max_rejects
            && rejected > max
        {
            let message = rejects::more_than_max(max);
            return Err(too_many_rejects(message).exceeding(max, rejected));
        }
        if rejected > kept {
            let message = rejects::more_than_kept(kept);
            return Err(too_many_rejects(message).exceeding(kept, rejected));
        }
        Ok(())
    }

    /// Checks at the end of the file whether too many rows were rejected. If no row at all fits,
    /// the file was read in a wrong way.
    pub(crate) fn check_share(&self, rejected: u64, read: u64) -> Result<(), Refusal> {
        let hint = "the rejected rows say why, and a preview of the file proposes options";
        self.check_share_with(rejected, read, || hint.to_owned())
    }

    /// Checks the same for an upload. A preview does not convert cells, so it has no advice for an
    /// upload with a dataset. `first` is the reason of the first rejected row, which is probably
    /// that of all rows.
    pub(crate) fn check_share_of_upload(
        &self,
        rejected: u64,
        read: u64,
        first: Option<&str>,
        dataset: Option<&DatasetName>,
    ) -> Result<(), Refusal> {
        self.check_share_with(rejected, read, || {
            let advice = match dataset {
                None => "a preview of the file proposes options".to_owned(),
                Some(name) => format!("compare the file with the definition of dataset `{name}`"),
            };
            match first {
                Some(first) => format!("{first}; {advice}"),
                None => advice,
            }
        })
    }

    /// `hint` is the rest of the message if no row fits.
    fn check_share_with(
        &self,
        rejected: u64,
        read: u64,
        hint: impl FnOnce() -> String,
    ) -> Result<(), Refusal> {
        if read > 0 && rejected == read {
            let message = rejects::no_row_fits(read, &hint());
            return Err(Refusal::unprocessable("no_row_fits", message));
        }
        match self.max_rejects {
            MaxRejects::Percent(max) if rejected as f64 * 100.0 > max * read as f64 => {
                let message = rejects::larger_share(rejected, read, max);
                Err(too_many_rejects(message))
            }
            _ => Ok(()),
        }
    }
}

impl OnDuplicate {
    pub(crate) fn check(self, earlier: Option<UploadId>) -> Result<(), Refusal> {
        match (self, earlier) {
            (Self::Reject, Some(earlier)) => {
                let message =
                    format!("upload {earlier} has the same content (on_duplicate=reject)");
                Err(Refusal::conflict("duplicate_file", message))
            }
            _ => Ok(()),
        }
    }
}

fn too_many_rejects(message: String) -> Refusal {
    Refusal::unprocessable("too_many_rejects", message)
}

#[cfg(test)]
mod tests {
    use carga_common::rejects::RejectedRow;

    use super::*;

    #[test]
    fn max_rejects_percent_allows_exactly_that_share_and_ignores_empty_files() {
        let policy = |percent| Policy {
            max_rejects: MaxRejects::Percent(percent),
            ..Policy::default()
        };
        assert!(policy(10.0).check_share(1, 10).is_ok());
        assert!(policy(9.9).check_share(1, 10).is_err());
        assert!(policy(0.0).check_share(0, 0).is_ok());
        assert!(policy(0.0).check_share(1, 1_000_000_000).is_err());
        let none = policy(100.0).check_share(3, 3).unwrap_err();
        assert_eq!(none.failure.code, "no_row_fits");
    }

    #[test]
    fn the_recorded_limit_is_exceeded_by_as_many_rows_as_the_policy_refuses() {
        for (max_rejects, percent) in [
            (MaxRejects::Any, None),
            (MaxRejects::Rows(3), None),
            (MaxRejects::Percent(10.0), Some(10.0)),
        ] {
            let policy = Policy {
                max_rejects,
                ..Policy::default()
            };
            let limit = policy.reject_limit(5);
            assert_eq!((limit.percent, limit.kept), (percent, 5));
            assert!(!limit.abort);
            for rejected in 1..10 {
                let row = rejected_as("wrong_type", None);
                let latest = Rejection {
                    row,
                    exceeded: None,
                };
                let is_refused = policy.check_rejected(&latest, rejected, 5).is_err();
                assert_eq!(limit.is_exceeded(rejected), is_refused, "{max_rejects:?}");
                let is_refused = is_refused || policy.check_share(rejected, 40).is_err();
                assert_eq!(limit.is_exceeded_at_end(rejected, 40), is_refused);
            }
        }
        let policy = Policy {
            on_error: OnError::Abort,
            ..Policy::default()
        };
        let limit = policy.reject_limit(5);
        assert!(limit.is_exceeded(1) && !limit.is_exceeded(0));
    }

    fn rejected_as(code: &str, column: Option<&str>) -> RejectedRow {
        RejectedRow {
            row: 2,
            line: 4,
            offset: 30,
            column: column.map(str::to_owned),
            code: code.to_owned(),
            constraint: None,
            message: "the reason".to_owned(),
            raw: None,
            fields: None,
        }
    }

    #[test]
    fn if_no_row_of_an_upload_fits_the_message_has_the_first_reason_and_its_remedy() {
        let message = |row: &RejectedRow, dataset: Option<&DatasetName>| {
            let first = row.reason();
            let policy = Policy::default();
            let checked = policy.check_share_of_upload(3, 3, Some(&first), dataset);
            let failure = checked.unwrap_err().failure;
            assert_eq!(failure.code, "no_row_fits");
            failure.message
        };
        let sales: DatasetName = "sales".parse().unwrap();
        assert_eq!(
            message(&rejected_as("wrong_type", Some("Price")), Some(&sales)),
            "none of the 3 rows fits the columns; row 2 is rejected as `wrong_type` in column `Price`: the reason; compare the file with the definition of dataset `sales`"
        );
        assert_eq!(
            message(&rejected_as("too_few_fields", None), None),
            "none of the 3 rows fits the columns; row 2 is rejected as `too_few_fields`: the reason; a preview of the file proposes options"
        );
        let long = "é".repeat(4000);
        let long = message(&rejected_as("undecodable", Some(&long)), None);
        assert!(long.len() < 500, "{} bytes", long.len());
    }
}
