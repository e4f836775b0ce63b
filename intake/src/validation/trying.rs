//! Tries the rows of a file in the table of their dataset.

use std::time::Duration;

use carga_common::dataset::DatasetName;
use carga_common::error::{ErrorKind, PortError};
use carga_common::lifecycle::reject_failure;
use carga_common::rejects::RejectedRow;
use carga_common::store::{Difference, Trial, Tried, ValidationStore};
use carga_common::upload::UploadDataset;

use crate::refusal::Refusal;
use crate::spool::Spool;

/// The rows of a file that were not tried yet.
#[derive(Debug)]
pub(super) struct Untried {
    /// The dataset, as an upload with merged rows would have it.
    pub(super) dataset: UploadDataset,
    /// The columns of the file.
    pub(super) columns: Vec<String>,
    /// Rows read, including rejected rows.
    pub(super) rows_read: u64,
    pub(super) rows_rejected: u64,
    /// The first of them.
    pub(super) first_reject: Option<RejectedRow>,
    /// The rows that were not rejected.
    pub(super) spool: Spool,
}

impl Untried {
    /// Tries the rows. Refused if an upload would fail because of its rejected rows or because of
    /// the table.
    pub(super) async fn try_on(
        self,
        store: &dyn ValidationStore,
        time_limit: Duration,
    ) -> Result<Difference, Refusal> {
        let batches = self.spool.into_batches().await?;
        let trial = Trial {
            dataset: self.dataset,
            columns: self.columns,
            rows_read: self.rows_read,
            rows_rejected: self.rows_rejected,
            time_limit,
        };
        let name = &trial.dataset.name;
        let tried = store.validate(&trial, batches).await;
        match tried.map_err(|error| refusal(name, error))? {
            Tried::Difference(difference) => Ok(difference),
            Tried::TooManyRejects { rejected, first } => {
                let first = self.first_reject.into_iter().chain(first);
                let first = first.min_by_key(|reject| reject.row);
                let (dataset, read) = (Some(&trial.dataset), trial.rows_read);
                let failure = reject_failure(dataset, rejected, read, first.as_ref());
                Err(Refusal::failing(failure))
            }
            Tried::TooLong => Err(too_long(name, time_limit)),
        }
    }
}

/// The refusal of a file whose rows cannot be tried.
fn refusal(name: &DatasetName, error: PortError) -> Refusal {
    match error.kind() {
        // An upload has the same failure.
        ErrorKind::Invalid => {
            let reason = error.chain();
            tracing::warn!(error = reason, "the rows of a validation cannot be merged");
            let message =
                format!("the rows cannot be merged into the table of the dataset: {reason}");
            Refusal::unprocessable("merge_failed", message)
        }
        // The dataset was deleted while the file was read.
        ErrorKind::NotFound => Refusal::no_such_dataset(name),
        ErrorKind::Unavailable => {
            tracing::warn!(
                error = error.chain(),
                "the rows of a validation cannot be tried now"
            );
            let message = format!(
                "the rows cannot be tried in the table of dataset `{name}` now: the database does not answer, another transaction locks the table, or rows of another upload must be removed first; retry later"
            );
            Refusal::unavailable("dependency_unavailable", message)
        }
        _ => error.into(),
    }
}

fn too_long(name: &DatasetName, limit: Duration) -> Refusal {
    let message = format!(
        "the rows could not be tried in the table of dataset `{name}` within {} s (CARGA_VALIDATE_SECS); validate the file in parts, or raise the limit",
        limit.as_secs()
    );
    Refusal::unprocessable("validation_too_long", message)
}
