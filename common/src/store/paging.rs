//! Which rows make a page: those of whole batches, cut by the size that the ledger records.

use super::{LedgerEntry, RowPage, StoredRow};
use crate::error::{ErrorKind, PortError, PortResult};
use crate::upload::Upload;

/// The number of an upload's first batch. It is a page by itself, so that the first rows come soon.
pub(super) const FIRST_SEQ: u32 = 1;

/// Ledger entries that are read to make one page: its batches, and one that bounds their rows.
pub(super) const LEDGER_LOOKAHEAD: i64 = 17;

/// A page takes batches until their archived objects have this many bytes. A batch that is larger
/// is a page by itself.
const PAGE_BYTES: u64 = 4 << 20;

/// Higher than every row number.
const LAST_ROW: u64 = i64::MAX.cast_unsigned();

/// The rows of one batch or several consecutive ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LedgerRange {
    /// The number of the last batch.
    pub(super) last_seq: u32,
    /// The first row number, or 0 where no batch has rows.
    pub(super) first_row: u64,
    /// No row number of these batches is higher.
    pub(super) last_row: u64,
    /// How many rows there are.
    pub(super) rows: u64,
}

/// The batches of the page that begins the ledger's next entries. A batch's row numbers have gaps
/// where rows were rejected, so its last one is only known to be below the next batch's first.
pub(super) fn page_of(ledger: &[LedgerEntry], after_seq: u32) -> Option<LedgerRange> {
    let is_first = after_seq < FIRST_SEQ;
    let is_cut = ledger.len() as i64 == LEDGER_LOOKAHEAD;
    let most = match (is_first, is_cut) {
        (true, _) => 1,
        (false, true) => ledger.len() - 1,
        (false, false) => ledger.len(),
    };
    let first = ledger.first()?;
    let (mut taken, mut bytes) = (1, first.archive_bytes);
    while taken < most && bytes + ledger[taken].archive_bytes <= PAGE_BYTES {
        bytes += ledger[taken].archive_bytes;
        taken += 1;
    }
    let batches = &ledger[..taken];
    let with_rows = batches.iter().find(|batch| batch.rows > 0);
    let mut page = LedgerRange {
        last_seq: batches.last().unwrap_or(first).seq,
        first_row: with_rows.map_or(0, |batch| batch.first_row),
        last_row: LAST_ROW,
        rows: batches.iter().map(|batch| u64::from(batch.rows)).sum(),
    };
    if let Some(next) = ledger[taken..].iter().find(|next| next.rows > 0) {
        page.last_row = next.first_row.saturating_sub(1);
    }
    Some(page)
}

impl LedgerRange {
    /// Makes a page of the rows that were read for this range. Fewer rows than the ledger records
    /// were removed in the meantime.
    pub(super) fn page(
        &self,
        operation: &'static str,
        rows: Vec<StoredRow>,
    ) -> PortResult<RowPage> {
        if rows.len() as u64 == self.rows {
            let last_seq = self.last_seq;
            return Ok(RowPage { rows, last_seq });
        }
        Err(removed(operation))
    }
}

/// A ledger without further entries is the end, unless the upload lost its rows between two pages.
pub(super) fn check_ended(
    operation: &'static str,
    upload: Option<Upload>,
    after_seq: u32,
) -> PortResult<()> {
    match upload {
        Some(upload) if upload.status.keeps_rows() => Ok(()),
        _ if after_seq == 0 => Ok(()),
        _ => Err(removed(operation)),
    }
}

fn removed(operation: &'static str) -> PortError {
    let reason = "the rows were removed while they were being read";
    PortError::new(ErrorKind::Conflict, operation, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A ledger of `first_row`, `rows` and `archive_bytes`.
    fn ledger(batches: &[(u64, u32, u64)]) -> Vec<LedgerEntry> {
        let numbered = batches.iter().zip(1..);
        let entry = |(&(first_row, rows, archive_bytes), seq)| LedgerEntry {
            seq,
            first_row,
            rows,
            archive_bytes,
            archive_crc32: 0,
        };
        numbered.map(entry).collect()
    }

    fn shape(page: Option<LedgerRange>) -> Option<(u32, u64, u64, u64)> {
        page.map(|page| (page.last_seq, page.first_row, page.last_row, page.rows))
    }

    #[test]
    fn the_first_page_has_one_batch_and_later_ones_as_many_as_are_small() {
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
    fn gaps_of_rejected_rows_belong_to_the_batch_before() {
        let ledger = ledger(&[(5, 10, 1), (0, 0, 0), (40, 10, 4 * MIB)]);
        assert_eq!(shape(page_of(&ledger, 9)), Some((2, 5, 39, 10)));
    }

    #[test]
    fn the_last_entry_in_sight_only_bounds_the_page_when_there_may_be_more() {
        let batches: Vec<_> = (0..17).map(|batch| (batch * 10 + 1, 10, 1)).collect();
        assert_eq!(
            shape(page_of(&ledger(&batches), 9)),
            Some((16, 1, 160, 160))
        );
    }
}
