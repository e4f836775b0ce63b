//! Makes the message of a batch again from its object in the archive.
//!
//! An object has the cells of the rows, and not their numbers. All rows that the intake did not
//! reject are in the batches, in the order of the file. So the rows of a batch are the last ones
//! before the first row of the next batch.
//!
//! This is for uploads without a dataset. The message of a dataset's batch has the position of each
//! row in the file, which no object has.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::TryStreamExt;

use crate::archive::{ArchiveCompression, ArchiveKey, BatchArchive};
use crate::backends::Backends;
use crate::batch::{BatchEncoder, BatchId, BatchLimits, EncodedBatch};
use crate::error::{ErrorKind, PortError, PortResult};
use crate::store::{Store, rejected_rows};
use crate::upload::{Upload, UploadKey};

const OPERATION: &str = "archive.replay";

/// A row of an object: its cells by the names of their columns.
type Row = HashMap<String, Option<String>>;

/// The message of a batch that is not in the ledger, if the archive has enough objects to make it.
pub(super) async fn message(backends: &Backends, id: BatchId) -> PortResult<Option<EncodedBatch>> {
    match ArchivedBatches::read(backends, id.upload).await? {
        Some(archived) => archived.message(id.seq).await,
        None => Ok(None),
    }
}

/// The archived batches of a sealed upload.
#[derive(Debug)]
struct ArchivedBatches<'a> {
    archive: &'a dyn BatchArchive,
    upload: Upload,
    /// How many batches the upload has.
    total: u32,
    /// The first row of each batch whose rows are known. A batch without rows is not here.
    first_rows: BTreeMap<u32, u64>,
    /// The numbers of the rejected rows, in order.
    rejected: Vec<u64>,
}

impl<'a> ArchivedBatches<'a> {
    /// Reads what is known about the batches. Returns `None` if no message of this upload can be
    /// made.
    async fn read(backends: &'a Backends, key: UploadKey) -> PortResult<Option<Self>> {
        let store = &backends.store;
        let Some(upload) = store.upload(key.id).await? else {
            return Ok(None);
        };
        let Some(total) = upload.batches_total else {
            return Ok(None);
        };
        if upload.key() != key || upload.dataset.is_some() {
            return Ok(None);
        }
        let ledger = store.ledger(key).await?;
        let rejected = rejected_rows(Arc::<dyn Store>::clone(store), key.id);
        let with_rows = ledger.iter().filter(|entry| entry.rows > 0);
        Ok(Some(Self {
            archive: backends.archive.as_ref(),
            total,
            first_rows: with_rows
                .map(|entry| (entry.seq, entry.first_row))
                .collect(),
            rejected: rejected.map_ok(|row| row.row).try_collect().await?,
            upload,
        }))
    }

    /// The message of a batch that is not in the ledger. `None` if its object, or that of a batch
    /// behind it, is not in the archive.
    async fn message(&self, seq: u32) -> PortResult<Option<EncodedBatch>> {
        let known = self.first_rows.range(seq + 1..).next();
        let (mut end, next) = match known {
            Some((next, first_row)) => (*first_row, *next),
            None => (self.upload.rows_read + 1, self.total + 1),
        };
        let mut found = None;
        for current in (seq..next).rev() {
            let id = BatchId {
                upload: self.upload.key(),
                seq: current,
            };
            let Some(rows) = object(self.archive, id).await? else {
                return Ok(None);
            };
            let numbers = self.numbers_before(end, rows.len())?;
            end = numbers.first().copied().unwrap_or(end);
            if current == seq {
                found = self.encode(id, &numbers, &rows)?;
            }
        }
        Ok(found)
    }

    /// The numbers of the last `count` rows before row `end` that were not rejected, in order.
    fn numbers_before(&self, end: u64, count: usize) -> PortResult<Vec<u64>> {
        let is_accepted = |number: &u64| self.rejected.binary_search(number).is_err();
        let numbers = (1..end).rev().filter(is_accepted).take(count);
        let mut numbers: Vec<u64> = numbers.collect();
        if numbers.len() < count {
            return Err(PortError::invalid(
                OPERATION,
                "the objects of the upload have more rows than its file",
            ));
        }
        numbers.reverse();
        Ok(numbers)
    }

    fn encode(
        &self,
        id: BatchId,
        numbers: &[u64],
        rows: &[Row],
    ) -> PortResult<Option<EncodedBatch>> {
        let limits = BatchLimits {
            rows: u32::MAX,
            bytes: usize::MAX / 4,
        };
        let columns = self.upload.stored_columns();
        let mut encoder = BatchEncoder::at(id, &columns, limits);
        for (number, row) in numbers.iter().zip(rows) {
            let cells = cells(row, &columns)?;
            let missing = columns.len() - cells.len();
            encoder
                .push_short(*number, cells.into_iter(), missing)
                .map_err(|error| PortError::invalid(OPERATION, error))?;
        }
        let (batch, _) = encoder.finish();
        Ok(batch)
    }
}

/// The cells of a row in the order of the columns. Only cells at its end may be NULL, because a row
/// of the file that is too short lacks them, and no other cell of such an upload is NULL.
fn cells<'a>(row: &'a Row, columns: &[String]) -> PortResult<Vec<&'a str>> {
    let refuse = |reason| PortError::invalid(OPERATION, reason);
    let cells = columns.iter().map(|name| row.get(name));
    let cells: Option<Vec<&Option<String>>> = cells.collect();
    let cells = cells.ok_or_else(|| refuse("the object has other columns than its upload"))?;
    let present = cells.iter().map_while(|cell| cell.as_deref());
    let present: Vec<&str> = present.collect();
    let rest_is_null = cells[present.len()..].iter().all(|cell| cell.is_none());
    match rest_is_null && !present.is_empty() {
        true => Ok(present),
        false => Err(refuse(
            "a row of the object has no value before another one",
        )),
    }
}

/// The rows of a batch's object, whatever its compression is.
async fn object(archive: &dyn BatchArchive, id: BatchId) -> PortResult<Option<Vec<Row>>> {
    for compression in ArchiveCompression::ALL {
        let key = ArchiveKey::batch(id, compression);
        let body = match archive.get(&key).await {
            Ok(body) => body,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let damaged = |error: &dyn std::fmt::Display| {
            PortError::invalid(OPERATION, format!("{key} is damaged: {error}"))
        };
        let body = compression
            .decompress(&body)
            .map_err(|error| damaged(&error))?;
        let rows = serde_json::from_slice(&body).map_err(|error| damaged(&error))?;
        return Ok(Some(rows));
    }
    Ok(None)
}
