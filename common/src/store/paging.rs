//! Divides the rows of an upload into pages of whole batches, by the sizes in the ledger.

use super::{LedgerEntry, RowPage, StoredRow};
use crate::error::{ErrorKind, PortError, PortResult};
use crate::upload::Upload;

/// The number of an upload's first batch, which is a page by itself so that the first rows arrive
/// soon.
pub(super) const FIRST_SEQ: u32 = 1;

/// How many ledger entries are read for one page: its batches, and one more that bounds their row
/// numbers.
pub(super) const LEDGER_LOOKAHEAD: i64 = 17;

/// A page takes batches until their objects have this many bytes. Their size without compression
/// counts, because the rows are not compressed in memory. A batch that is larger is a page by
/// itself.
const PAGE_BYTES: u64 = 4 << 20;

/// Higher than every row number.
const LAST_ROW: u64 = i64::MAX.cast_unsigned();

/// The rows of one or more consecutive batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LedgerRange {
    /// The number of the last batch.
    pub(super) last_seq: u32,
    /// The first row number, or 0 if no batch has rows.
    pub(super) first_row: u64,
    /// An upper bound of the row numbers.
    pub(super) last_row: u64,
    /// The number of rows.
    pub(super) rows: u64,
}

/// Takes the batches of the next page from the ledger entries after `after_seq`. Rejected rows
/// leave gaps between row numbers, so the last row number of a batch is not known; it is below the
/// first row number of the next batch.
pub(super) fn page_of(ledger: &[LedgerEntry], after_seq: u32) -> Option<LedgerRange> {
    let is_first = after_seq < FIRST_SEQ;
    let may_have_more = ledger.len() as i64 == LEDGER_LOOKAHEAD;
    let max_batches = match (is_first, may_have_more) {
        (true, _) => 1,
        (false, true) => ledger.len() - 1,
        (false, false) => ledger.len(),
    };
    let first = ledger.first()?;
    let (mut taken, mut bytes) = (1, first.object_bytes);
    while taken < max_batches && bytes + ledger[taken].object_bytes <= PAGE_BYTES {
        bytes += ledger[taken].object_bytes;
        taken += 1;
    }
    let batches = &ledger[..taken];
    let with_rows = batches.iter().find(|batch| batch.rows > 0);
    let mut page = LedgerRange {
        last_seq: batches.last().unwrap_or(first).seq,
        first_row: with_rows.map_or(0, |batch| batch.first_row),
        last_row: LAST_ROW,
        rows: batches.iter().map(stored_rows).sum(),
    };
    if let Some(next) = ledger[taken..].iter().find(|next| next.rows > 0) {
        page.last_row = next.first_row.saturating_sub(1);
    }
    Some(page)
}

/// How many rows of a batch were written to the table.
fn stored_rows(batch: &LedgerEntry) -> u64 {
    let others = batch.rejected.saturating_add(batch.duplicate);
    u64::from(batch.rows.saturating_sub(others))
}

/// The rows that were read for a range.
#[derive(Debug)]
pub(super) enum Found {
    /// The upload keeps no rows any more.
    Removed,
    /// Rows of the landing table.
    Landing(Vec<StoredRow>),
    /// Rows in the table of a dataset. Later uploads may have replaced others, even if this upload
    /// only appended rows.
    Dataset(Vec<StoredRow>),
}

impl LedgerRange {
    /// Makes a page of the rows that were read for this range. Fewer rows of the landing table than
    /// in the ledger mean that rows were removed in the meantime.
    pub(super) fn page(&self, operation: &'static str, found: Found) -> PortResult<RowPage> {
        let rows = match found {
            Found::Landing(rows) if rows.len() as u64 == self.rows => rows,
            Found::Dataset(rows) => rows,
            Found::Landing(_) | Found::Removed => return Err(removed(operation)),
        };
        let last_seq = self.last_seq;
        Ok(RowPage { rows, last_seq })
    }
}

/// Checks that the ledger has no further entries because all rows were read, and not because the
/// rows expired, or were removed between two pages.
pub(super) fn check_ended(
    operation: &'static str,
    upload: Option<Upload>,
    after_seq: u32,
) -> PortResult<()> {
    match upload {
        Some(upload) if upload.keeps_rows() => Ok(()),
        Some(upload) if upload.expired_at.is_some() => Err(expired(operation)),
        _ if after_seq == 0 => Ok(()),
        _ => Err(removed(operation)),
    }
}

fn removed(operation: &'static str) -> PortError {
    let reason = "the rows were removed while they were being read";
    PortError::new(ErrorKind::Conflict, operation, reason)
}

fn expired(operation: &'static str) -> PortError {
    let reason = "the rows have expired (CARGA_RETENTION_DAYS); send the file again";
    PortError::new(ErrorKind::Conflict, operation, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::ArchiveCompression;

    const MIB: u64 = 1 << 20;

    /// A ledger of `first_row`, `rows` and `object_bytes`, whose objects are compressed to a
    /// hundredth.
    fn ledger(batches: &[(u64, u32, u64)]) -> Vec<LedgerEntry> {
        let numbered = batches.iter().zip(1..);
        let entry = |(&(first_row, rows, object_bytes), seq)| LedgerEntry {
            seq,
            first_row,
            rows,
            rejected: 0,
            updated: 0,
            duplicate: 0,
            archive_compression: ArchiveCompression::Zstd,
            archive_bytes: object_bytes / 100,
            archive_crc32: 0,
            object_bytes,
        };
        numbered.map(entry).collect()
    }

    fn shape(page: Option<LedgerRange>) -> Option<(u32, u64, u64, u64)> {
        page.map(|page| (page.last_seq, page.first_row, page.last_row, page.rows))
    }

    #[test]
    fn the_first_page_has_one_batch_and_later_pages_have_several_small_ones() {
        let ledger = ledger(&[
            (1, 10, MIB),
            (11, 10, MIB),
            (21, 10, 2 * MIB),
            (31, 10, MIB),
        ]);
        assert_eq!(shape(page_of(&ledger, 0)), Some((1, 1, 10, 10)));
        assert_eq!(shape(page_of(&ledger[1..], 1)), Some((4, 11, LAST_ROW, 30)));
        assert_eq!(shape(page_of(&ledger, 9)), Some((3, 1, 30, 30)));
        assert_eq!(shape(page_of(&[], 4)), None);
    }

    #[test]
    fn a_large_batch_is_a_page_by_itself() {
        let ledger = ledger(&[(1, 10, 9 * MIB), (11, 10, 1)]);
        assert_eq!(shape(page_of(&ledger, 9)), Some((1, 1, 10, 10)));
    }

    #[test]
    fn row_numbers_of_rejected_rows_belong_to_the_preceding_batch() {
        let ledger = ledger(&[(5, 10, 1), (0, 0, 0), (40, 10, 4 * MIB)]);
        assert_eq!(shape(page_of(&ledger, 9)), Some((2, 5, 39, 10)));
    }

    #[test]
    fn rows_that_were_not_written_are_not_expected() {
        let mut ledger = ledger(&[(1, 10, 1), (11, 10, 1)]);
        (ledger[0].rejected, ledger[1].rejected) = (1, 10);
        (ledger[0].duplicate, ledger[0].updated) = (2, 4);
        assert_eq!(shape(page_of(&ledger, 9)), Some((2, 1, LAST_ROW, 7)));
    }

    #[test]
    fn only_rows_of_the_landing_table_must_be_as_many_as_in_the_ledger() {
        let range = page_of(&ledger(&[(1, 1, 1)]), 0).unwrap();
        let page = |found| range.page("test", found).map(|page| page.rows.len()).ok();
        let row = || StoredRow {
            row_number: 1,
            fields: Vec::new(),
        };
        assert_eq!(page(Found::Landing(vec![row()])), Some(1));
        assert_eq!(page(Found::Landing(Vec::new())), None);
        assert_eq!(page(Found::Dataset(Vec::new())), Some(0));
        assert_eq!(page(Found::Removed), None);
    }

    #[test]
    fn the_last_of_17_entries_bounds_the_page_and_is_not_part_of_it() {
        let batches: Vec<_> = (0..17).map(|batch| (batch * 10 + 1, 10, 1)).collect();
        assert_eq!(
            shape(page_of(&ledger(&batches), 9)),
            Some((16, 1, 160, 160))
        );
    }
}
