//! The decisions that all adapters share, as pure functions.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{ArchivedBatch, Completion, StoreOutcome, Tried};
use crate::archive::{PUT_ATTEMPTS, attempt_timeout};
use crate::batch::{Batch, BatchId};
use crate::dataset::Definition;
use crate::error::{ErrorKind, PortError, PortResult};
use crate::upload::{Epoch, Failure, RejectLimit, Status, Upload, UploadDataset, UploadId};

/// How many rows one transaction deletes. A larger number blocks other writers for longer; a
/// smaller number scans dead rows more often.
pub(super) const CHUNK_ROWS: i64 = 50_000;

/// How many uploads of each kind the sweeper takes in one round. Unfinished uploads are chosen at
/// random, so that uploads which wait for the end of an outage do not crowd out the others.
pub(super) const SWEEP_LIMIT: i64 = 100;

/// The most uploads whose expired leases one sweep finds. It is larger, because a sweep must find
/// the same uploads twice.
pub(super) const EXPIRY_LIMIT: i64 = 10_000;

/// The most uploads whose rows expire in one call.
pub(super) const ROW_EXPIRY_LIMIT: i64 = 1000;

/// The most uploads whose previous values are deleted in one call.
pub(super) const FORGET_LIMIT: i64 = 10;

/// The most keys of old requests that are deleted in one call.
pub(super) const FORGOTTEN_REQUESTS: i64 = 1000;

/// The most days of tenants whose usage is deleted in one call.
pub(super) const FORGOTTEN_DAYS: i64 = 1000;

/// How long the workers have to complete a sealed upload before the sweeper checks it.
pub(super) const UNFINISHED_AFTER: Duration = Duration::from_secs(5);

/// How long every sweep deletes the archive of a cancelled or undone upload, since a worker may
/// still write a batch or a manifest to it. Nearly every write ends within this time.
pub(super) const UNARCHIVE_AGAIN: Duration = Duration::from_secs(60);

/// When the archive of a cancelled or undone upload is deleted for the last time. A write that
/// began before the upload ended has ended by then, however slow the archive is. The sweeps in
/// between do not list the objects, because each listing is a paid request.
pub(super) fn unarchive_last() -> Duration {
    // Larger than a batch, and larger than the manifest of an upload of 10 GiB.
    const LARGEST_OBJECT_BYTES: usize = 64 << 20;
    PUT_ATTEMPTS * attempt_timeout(LARGEST_OBJECT_BYTES)
}

/// How long a process has to publish the message of a retried batch that it has claimed.
pub(super) const CLAIM: Duration = Duration::from_secs(60);

/// The reason of a dead letter whose retry was lost.
pub(super) const LOST_RETRY: &str =
    "the message of the retry is neither stored nor in any queue; retry the batch again";

/// The failure of an upload whose lease has expired.
pub(super) fn interrupted(lease: Duration) -> Failure {
    let message = format!(
        "the server that received the file has been silent for {} s; send the file again",
        lease.as_secs()
    );
    Failure::new("interrupted", message)
}

/// The failure of an upload whose batches are lost.
pub(super) fn lost(quiet: Duration) -> Failure {
    let message = format!(
        "some batches are neither stored nor in any queue, and no worker has held a batch of the upload for {} s \
         (CARGA_LOST_SECS); was a queue deleted, or did a server lose its disk? send the file again",
        quiet.as_secs()
    );
    Failure::new("batches_lost", message)
}

/// Whether the table of a dataset takes the rows of an upload. The dataset may have been deleted
/// and declared again after the upload had read its definition. Only such a dataset has another
/// table, or a required column behind those of the upload.
pub(super) fn takes_rows(definition: &Definition, dataset: &UploadDataset) -> bool {
    let mut added = definition.columns.iter().skip(dataset.columns.len());
    definition.table == dataset.table
        && definition.typed_columns().starts_with(&dataset.columns)
        && added.all(|column| !column.required)
}

/// The error of a call for a dataset that does not take rows.
pub(super) fn no_dataset(operation: &'static str) -> PortError {
    const REASON: &str = "the dataset does not exist, or was declared again with other columns";
    PortError::new(ErrorKind::NotFound, operation, REASON)
}

/// The outcome of a trial, or the reason why the rows cannot be tried.
#[derive(Debug)]
pub(super) enum TrialOutcome {
    Tried(Tried),
    /// The dataset does not take the rows.
    NoDataset,
    /// An upload would have to wait.
    MustWait,
}

impl TrialOutcome {
    pub(super) fn into_result(self, operation: &'static str) -> PortResult<Tried> {
        const MUST_WAIT: &str = "rows of another upload must be removed from the table first, or the table has just been changed; \
                                 try again";
        match self {
            Self::Tried(tried) => Ok(tried),
            Self::NoDataset => Err(no_dataset(operation)),
            Self::MustWait => Err(PortError::unavailable(operation, MUST_WAIT)),
        }
    }
}

/// A finding of the fence about an upload. It decides whether batches may be stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Admission {
    /// The status cannot change before the transaction ends.
    Fenced { epoch: Epoch, status: Status },
    /// A newer build wrote a status that this build does not know.
    UnknownStatus,
    /// Another transaction is about to change the status. SQLite has one writer, so only Postgres
    /// knows this.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "only Postgres locks an upload")
    )]
    Locked,
}

impl Admission {
    /// Parses the columns `epoch` and `status`.
    pub(super) fn parse(epoch: i32, status: &str) -> Self {
        let epoch = epoch.into();
        let status = status.parse();
        status.map_or(Self::UnknownStatus, |status| Self::Fenced { epoch, status })
    }

    /// Whether the batch may be stored.
    pub(super) fn admits(self, id: BatchId) -> bool {
        matches!(self, Self::Fenced { epoch, status }
            if epoch == id.upload.epoch && !status.is_terminal())
    }

    /// Whether the upload has ended and keeps its rows. This batch is stored, or it is a dead
    /// letter that was published again.
    fn has_stored(self, id: BatchId) -> bool {
        matches!(self, Self::Fenced { epoch, status }
            if epoch == id.upload.epoch && status.keeps_rows())
    }

    /// Whether the batch should be archived. A batch of an unknown upload should be, so that it
    /// reaches the fence, which reports it. The archive of an expired upload is deleted, and must
    /// not get its batches again.
    pub(super) fn is_worth_archiving(known: Option<Self>, has_expired: bool, id: BatchId) -> bool {
        match known {
            _ if has_expired => false,
            None | Some(Self::UnknownStatus | Self::Locked) => true,
            Some(known) => known.admits(id) || known.has_stored(id),
        }
    }
}

/// Returns the outcome of each batch of a group, and the batches that are new in the ledger, whose
/// rows must be written. The rejected rows are counted later, by [`count_rejected`].
pub(super) fn outcomes<'a>(
    group: &'a [ArchivedBatch],
    admissions: &HashMap<UploadId, Admission>,
    mut entered: HashSet<BatchId>,
) -> (Vec<StoreOutcome>, Vec<&'a Batch>) {
    const REPLAY: StoreOutcome = StoreOutcome::Replay { rejected: 0 };
    let mut new = Vec::with_capacity(entered.len());
    let outcome = |ArchivedBatch { batch, .. }: &'a ArchivedBatch| match admissions
        .get(&batch.id.upload.id)
    {
        None => StoreOutcome::UnknownUpload,
        Some(Admission::UnknownStatus) => StoreOutcome::UnknownStatus,
        Some(Admission::Locked) => StoreOutcome::Locked,
        Some(known) if known.has_stored(batch.id) => REPLAY,
        Some(known) if !known.admits(batch.id) => StoreOutcome::Fenced,
        // Removing the id makes sure that a batch which is in the group twice is written once.
        Some(_) if entered.remove(&batch.id) => {
            new.push(batch);
            StoreOutcome::Stored { rejected: 0 }
        }
        Some(_) => REPLAY,
    };
    let outcomes = group.iter().map(outcome).collect();
    (outcomes, new)
}

/// The batches of a group that earlier calls stored, or that are in the group twice.
pub(super) fn replayed<'a>(
    group: &'a [ArchivedBatch],
    outcomes: &'a [StoreOutcome],
) -> impl Iterator<Item = BatchId> + 'a {
    let outcomes = group.iter().zip(outcomes);
    outcomes.filter_map(|(archived, outcome)| {
        matches!(outcome, StoreOutcome::Replay { .. }).then_some(archived.batch.id)
    })
}

/// Sets how many rows of each batch are rejected, for batches with stored rows. A batch that is not
/// in `rejected` has none.
pub(super) fn count_rejected(
    group: &[ArchivedBatch],
    outcomes: &mut [StoreOutcome],
    rejected: &HashMap<BatchId, u32>,
) {
    for (archived, outcome) in group.iter().zip(outcomes) {
        if let StoreOutcome::Stored { rejected: counted }
        | StoreOutcome::Replay { rejected: counted } = outcome
        {
            *counted = rejected.get(&archived.batch.id).copied().unwrap_or(0);
        }
    }
}

/// The counts of an upload that has not ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// Batches in the ledger.
    pub(super) batches: u64,
    /// Rows of those batches.
    pub(super) rows: u64,
    /// The rows among them that violate a constraint of the table.
    pub(super) violating: u64,
    /// Rejected rows on record. They need not be counted while batches are missing.
    pub(super) rejected: u64,
    /// Batches of the upload that are dead letters, and are not being retried.
    pub(super) dead: u64,
}

/// How many batches the upload has; `None` while it is being received.
pub(super) fn sealed_batches(upload: &Upload) -> Option<u32> {
    let is_sealed = upload.status == Status::Processing;
    upload.batches_total.filter(|_| is_sealed)
}

/// Whether an upload can end that has not ended yet.
///
/// The intake has checked its own rejected rows against the limit. So the limit is checked here
/// only if the table has rejected more. While the upload is being received, the figures of the
/// intake are floors, and only a limit of rows can be exceeded.
pub(super) fn completion(upload: Upload, counted: Counted) -> Completion {
    let Counted {
        batches,
        rows,
        violating,
        rejected,
        dead,
    } = counted;
    let read = upload.rows_read;
    let known = upload.rows_rejected + violating;
    let dataset = upload.dataset.as_ref().filter(|_| violating > 0);
    let limit = dataset.map(|dataset| dataset.reject_limit);
    let is_staged = upload.is_staged();
    let stored = rows.saturating_sub(violating);
    if limit.is_some_and(|limit| limit.is_exceeded(known)) {
        return too_many(upload, known);
    }
    let total = match sealed_batches(&upload).map(u64::from) {
        Some(total) if batches + dead >= total => total,
        _ => return Completion::Incomplete,
    };
    // `known` has the rejected rows of the intake only. A merge that was taken back recorded more.
    if is_staged && rejected > known {
        return too_many(upload, rejected);
    }
    // The messages of dead letters may be unreadable, so their rows are those that are left.
    let adds_up = match dead {
        0 => stored + rejected == read,
        _ => stored + rejected <= read,
    };
    if batches + dead > total || !adds_up || rejected != known {
        return Completion::Mismatch {
            read,
            stored,
            rejected,
        };
    }
    if limit.is_some_and(|limit| rejected == read || limit.is_exceeded_at_end(rejected, read)) {
        return too_many(upload, rejected);
    }
    Completion::Ready {
        upload: Box::new(upload),
        violating,
        dead,
    }
}

fn too_many(upload: Upload, rejected: u64) -> Completion {
    let upload = Box::new(upload);
    Completion::TooManyRejects { upload, rejected }
}

/// The rejected rows of a file whose rows are being merged, if they are too many. `read` counts the
/// rows of the file, `rejected` those that were rejected while it was read, and `violating` those
/// that violate a constraint of the table. A merge can stop at the first number that is too large,
/// because every larger number is too large as well.
pub(super) fn too_many_rejects(
    limit: RejectLimit,
    (read, rejected): (u64, u64),
    violating: u64,
) -> Option<u64> {
    let rejected = rejected + violating;
    let is_too_many =
        violating > 0 && (rejected >= read || limit.is_exceeded_at_end(rejected, read));
    is_too_many.then_some(rejected)
}
