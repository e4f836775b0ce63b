//! The rows for one table, numbered in the order in which they are sent.

use std::collections::BTreeMap;
use std::ops::Range;

use uuid::Uuid;

use super::Violations;
use super::copy::Segment;
use crate::batch::Batch;
use crate::store::violations::Violation;
use crate::upload::UploadDataset;

/// The rows of several batches for the same columns of one table. The index of a row counts from 0
/// through all batches.
#[derive(Debug)]
pub(super) struct TableRows<'a> {
    /// The dataset of the first upload. Those of the others have the same name and columns.
    pub(super) dataset: &'a UploadDataset,
    parts: Vec<Part<'a>>,
    len: usize,
}

/// The rows of one batch.
#[derive(Debug)]
struct Part<'a> {
    /// The index of the batch in the caller's list.
    position: usize,
    batch: &'a Batch,
    dataset: &'a UploadDataset,
    /// The indexes of the rows.
    range: Range<usize>,
}

impl<'a> TableRows<'a> {
    pub(super) fn new(dataset: &'a UploadDataset) -> Self {
        Self {
            dataset,
            parts: Vec::new(),
            len: 0,
        }
    }

    /// Adds a batch, which is at this position of the caller's list.
    pub(super) fn push(&mut self, position: usize, batch: &'a Batch, dataset: &'a UploadDataset) {
        let range = self.len..self.len + batch.row_count();
        self.len = range.end;
        self.parts.push(Part {
            position,
            batch,
            dataset,
            range,
        });
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The parts of the batches that these runs of rows cover.
    pub(super) fn segments(&self, runs: &[Range<usize>]) -> Vec<Segment<'a>> {
        let mut segments = Vec::new();
        for run in runs {
            let first = self
                .parts
                .partition_point(|part| part.range.end <= run.start);
            for part in &self.parts[first..] {
                if part.range.start >= run.end {
                    break;
                }
                let start = run.start.max(part.range.start) - part.range.start;
                let end = run.end.min(part.range.end) - part.range.start;
                segments.push(Segment {
                    batch: part.batch,
                    columns: &part.dataset.columns,
                    rows: start..end,
                });
            }
        }
        segments
    }

    /// The index of the row of an upload with this number. A group has few batches, and a batch has
    /// few runs.
    pub(super) fn index_of(&self, upload: Uuid, number: i64) -> Option<usize> {
        let number = u64::try_from(number).ok()?;
        self.parts.iter().find_map(|part| {
            let batch = part.batch;
            let numbers = batch.first_row()..=batch.last_row();
            let may_have = batch.id.upload.id.as_uuid() == upload && numbers.contains(&number);
            let index = may_have.then(|| index_in(batch, number)).flatten()?;
            Some(part.range.start + index)
        })
    }

    /// Divides the violations among the batches.
    pub(super) fn divide(&self, violations: BTreeMap<usize, Violation>, batches: &mut Violations) {
        for (index, violation) in violations {
            let at = self.parts.partition_point(|part| part.range.end <= index);
            if let Some(part) = self.parts.get(at) {
                let batch = batches.entry(part.position).or_default();
                batch.insert(index - part.range.start, violation);
            }
        }
    }
}

/// The index of the row with this number in its batch.
fn index_in(batch: &Batch, number: u64) -> Option<usize> {
    let mut before = 0;
    for (first, count) in batch.runs() {
        let offset = number.checked_sub(*first);
        if let Some(offset) = offset.filter(|offset| *offset < u64::from(*count)) {
            return Some(before + offset as usize);
        }
        before += *count as usize;
    }
    None
}

/// The runs without a gap of ascending indexes.
pub(super) fn runs(indexes: &[usize]) -> Vec<Range<usize>> {
    let runs = indexes.chunk_by(|index, next| index + 1 == *next);
    let runs = runs.filter_map(|run| Some(*run.first()?..run.last()? + 1));
    runs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchEncoder, BatchLimits};
    use crate::dataset::{ColumnType, TypedColumn};
    use crate::store::sql::signed;
    use crate::upload::{RejectLimit, UploadId, UploadKey};

    fn dataset() -> UploadDataset {
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
            merge: None,
            table: None,
        }
    }

    /// A batch of rows with these numbers.
    fn batch(numbers: &[u64]) -> Batch {
        let limits = BatchLimits {
            rows: 100,
            bytes: 10_000,
        };
        let upload = UploadKey::first(UploadId::generate());
        let mut encoder = BatchEncoder::new(upload, &["sku".to_owned()], "", limits);
        for number in numbers {
            encoder.push(*number, ["A1"].into_iter()).unwrap();
        }
        Batch::decode(encoder.finish().0.unwrap().body).unwrap()
    }

    /// Calls `check` with the rows of three batches: 0 and 1, 2 to 4, 5.
    fn with_rows(check: impl Fn(&TableRows<'_>)) {
        let (dataset, batches) = (dataset(), [batch(&[1, 2]), batch(&[1, 5, 6]), batch(&[7])]);
        let mut rows = TableRows::new(&dataset);
        for (position, batch) in [4, 2, 7].into_iter().zip(&batches) {
            rows.push(position, batch, &dataset);
        }
        check(&rows);
    }

    #[test]
    fn runs_have_no_gap() {
        assert!(runs(&[]).is_empty());
        assert_eq!(runs(&[0, 1, 2, 4, 7, 8]), [0..3, 4..5, 7..9]);
    }

    #[test]
    fn a_run_covers_parts_of_several_batches() {
        with_rows(|rows| {
            assert_eq!(rows.len(), 6);
            // The indexes, then the number of rows of each batch and the range of its rows.
            type Case<'a> = (&'a [usize], Vec<(usize, Range<usize>)>);
            let cases: [Case<'_>; 5] = [
                (&[0, 1, 2, 3, 4, 5], vec![(2, 0..2), (3, 0..3), (1, 0..1)]),
                (&[1, 2, 5], vec![(2, 1..2), (3, 0..1), (1, 0..1)]),
                (&[2, 3, 4], vec![(3, 0..3)]),
                (&[3], vec![(3, 1..2)]),
                (&[], vec![]),
            ];
            for (indexes, expected) in cases {
                let segments = rows.segments(&runs(indexes)).into_iter();
                let found: Vec<_> = segments
                    .map(|segment| (segment.batch.row_count(), segment.rows))
                    .collect();
                assert_eq!(found, expected);
            }
        });
    }

    #[test]
    fn a_row_is_found_by_its_number() {
        with_rows(|rows| {
            let mut found = Vec::new();
            for part in &rows.parts {
                let upload = part.batch.id.upload.id.as_uuid();
                let numbers = part.batch.row_numbers().map(signed);
                found.extend(numbers.map(|number| rows.index_of(upload, number)));
                // Before, in the gap of the second batch, and after all rows.
                for number in [0, 3, 1_000_000] {
                    assert_eq!(rows.index_of(upload, number), None);
                }
            }
            assert_eq!(found, (0..6).map(Some).collect::<Vec<_>>());
            let other = UploadId::generate().as_uuid();
            assert_eq!(rows.index_of(other, 5), None);
        });
    }

    #[test]
    fn violations_are_divided_among_the_batches() {
        let violation = |message: &str| Violation {
            code: "check_violation",
            message: message.to_owned(),
            column: None,
            constraint: None,
        };
        with_rows(|rows| {
            let violations = [1, 2, 4, 5].map(|index| (index, violation(&index.to_string())));
            let mut batches = Violations::new();
            rows.divide(violations.into(), &mut batches);
            let expected = [
                (2, [(0, violation("2")), (2, violation("4"))].into()),
                (4, [(1, violation("1"))].into()),
                (7, [(0, violation("5"))].into()),
            ];
            assert_eq!(batches, Violations::from(expected));
        });
    }
}
