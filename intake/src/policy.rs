//! Decides when rejected rows fail an upload, and whether a file may be imported twice.

use std::fmt;

use carga_common::dataset::DatasetName;
use carga_common::rejects::RejectedRow;
use carga_common::upload::UploadId;

use crate::csv::Rejection;
use crate::refusal::Refusal;
use crate::typed::wording::quoted;

/// The most characters of a column's name in the message about the first rejected row.
const NAME_CHARS: usize = 100;

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

/// The first rejected row of an upload. If no row fits, its reason is probably that of all rows.
#[derive(Debug)]
pub(crate) struct FirstReject {
    row: u64,
    code: String,
    column: Option<String>,
    message: String,
}

impl FirstReject {
    pub(crate) fn of(rejected: &RejectedRow) -> Self {
        Self {
            row: rejected.row,
            code: rejected.code.clone(),
            column: rejected.column.clone(),
            message: rejected.message.clone(),
        }
    }
}

impl fmt::Display for FirstReject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} is rejected as `{}`", self.row, self.code)?;
        if let Some(column) = &self.column {
            write!(f, " in column {}", quoted(column, NAME_CHARS))?;
        }
        write!(f, ": {}", self.message)
    }
}

impl Policy {
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
            let message = format!("more than {max} rows were rejected (max_rejects)");
            return Err(too_many_rejects(message).exceeding(max, rejected));
        }
        if rejected > kept {
            let message = format!(
                "more than {kept} rows were rejected, the most that are kept of an upload (CARGA_MAX_REJECTS)"
            );
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
    /// upload with a dataset.
    pub(crate) fn check_share_of_upload(
        &self,
        rejected: u64,
        read: u64,
        first: Option<&FirstReject>,
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
            let hint = hint();
            let message = format!("none of the {read} rows fits the columns; {hint}");
            return Err(Refusal::unprocessable("no_row_fits", message));
        }
        match self.max_rejects {
            MaxRejects::Percent(max) if rejected as f64 * 100.0 > max * read as f64 => {
                let message = format!(
                    "{rejected} of {read} rows were rejected, more than {max}% (max_rejects)"
                );
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

    fn rejected(code: &str, column: Option<&str>) -> RejectedRow {
        RejectedRow {
            row: 2,
            line: 4,
            offset: 30,
            column: column.map(str::to_owned),
            code: code.to_owned(),
            message: "the reason".to_owned(),
            raw: None,
            fields: None,
        }
    }

    #[test]
    fn if_no_row_of_an_upload_fits_the_message_has_the_first_reason_and_its_remedy() {
        let message = |row: &RejectedRow, dataset: Option<&DatasetName>| {
            let first = FirstReject::of(row);
            let policy = Policy::default();
            let checked = policy.check_share_of_upload(3, 3, Some(&first), dataset);
            let failure = checked.unwrap_err().failure;
            assert_eq!(failure.code, "no_row_fits");
            failure.message
        };
        let sales: DatasetName = "sales".parse().unwrap();
        assert_eq!(
            message(&rejected("wrong_type", Some("Price")), Some(&sales)),
            "none of the 3 rows fits the columns; row 2 is rejected as `wrong_type` in column `Price`: the reason; compare the file with the definition of dataset `sales`"
        );
        assert_eq!(
            message(&rejected("too_few_fields", None), None),
            "none of the 3 rows fits the columns; row 2 is rejected as `too_few_fields`: the reason; a preview of the file proposes options"
        );
        let long = "é".repeat(4000);
        let long = message(&rejected("undecodable", Some(&long)), None);
        assert!(long.len() < 500, "{} bytes", long.len());
    }
}
