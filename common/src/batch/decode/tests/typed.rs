//! Messages with rows of a dataset and the origins of these rows.

use super::*;
use crate::batch::RowOrigin;

/// A row of the columns `a` and `b`, and its origin.
#[derive(Debug, Clone)]
struct Row {
    cells: Vec<Option<String>>,
    origin: Origin,
}

impl Row {
    fn push_to(&self, encoder: &mut BatchEncoder, number: u64) -> Option<EncodedBatch> {
        let Origin {
            line,
            offset,
            changed,
        } = &self.origin;
        let changed = changed.iter();
        let changed = changed.map(|(column, text)| (*column, text.as_str()));
        let origin = RowOrigin {
            line: *line,
            offset: *offset,
            changed,
        };
        let cells = self.cells.iter().map(Option::as_deref);
        encoder.push_typed(number, cells, origin).unwrap()
    }
}

fn encode_typed(rows: &[Row], limits: BatchLimits) -> Vec<EncodedBatch> {
    let columns = ["a", "b"].map(String::from);
    let upload = UploadKey::first(UploadId::generate());
    let mut encoder = BatchEncoder::typed(upload, &columns, "00-trace", limits);
    let mut batches = Vec::new();
    for (number, row) in (1..).zip(rows) {
        batches.extend(row.push_to(&mut encoder, number));
    }
    batches.extend(encoder.finish().0);
    batches
}

/// The text of a cell, or `None` for NULL.
fn text(cell: Cell<'_>) -> Option<String> {
    let text = cell.text().unwrap();
    text.map(|text| String::from_utf8(text.into_owned()).unwrap())
}

/// The bytes of the rows in a message.
fn rows_bytes(body: &[u8]) -> usize {
    let start = memchr::memmem::find(body, ROWS).unwrap() + ROWS.len();
    let end = memchr::memmem::rfind(body, b"\n],\"runs\":").unwrap();
    end - start
}

/// The bytes of the origins in a message.
fn origins_bytes(body: &[u8]) -> usize {
    let start = memchr::memmem::rfind(body, b",\"origins\":[").unwrap();
    body.len() - "\n]}".len() - start - ",\"origins\":[".len()
}

/// Rows whose texts may look like the parts of a message. The positions of a file ascend.
fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    let any_text =
        || "\\PC{0,20}|[\"\\\\\n,]{0,9}|null|,\"origins\":\\[|\\],\"runs\":\\[\\[1,1\\]\\]\\}";
    let cells = prop::collection::vec(prop::option::of(any_text()), 2);
    let changed = prop::collection::vec((0_u32..2000, any_text()), 0..3);
    let row = (cells, 0_u64..4, 0_u64..1000, changed);
    prop::collection::vec(row, 0..40).prop_map(|rows| {
        let (mut line, mut offset) = (1, u64::from(u32::MAX));
        let rows = rows.into_iter();
        rows.map(|(cells, lines, bytes, changed)| {
            line += lines;
            offset += bytes;
            let origin = Origin {
                line,
                offset,
                changed,
            };
            Row { cells, origin }
        })
        .collect()
    })
}

proptest! {
    #[test]
    fn every_typed_cell_and_origin_is_decoded_as_it_was_pushed(
        rows in any_rows(),
        max_rows in 1u32..12,
        max_bytes in 600usize..1500,
    ) {
        let limits = BatchLimits { rows: max_rows, bytes: max_bytes };
        let (mut cells, mut origins) = (Vec::new(), Vec::new());
        for encoded in encode_typed(&rows, limits) {
            let message_bytes = rows_bytes(&encoded.body) + origins_bytes(&encoded.body);
            prop_assert!(message_bytes <= max_bytes, "{}", message_bytes);
            let batch = Batch::decode(encoded.body).unwrap();
            prop_assert_eq!(batch.row_count(), encoded.rows as usize);
            prop_assert!(batch.row_count() <= max_rows as usize);
            let indexes: Vec<usize> = (0..batch.row_count()).collect();
            origins.extend(batch.origins(&indexes).unwrap());
            let last = *indexes.last().unwrap();
            let only = batch.origins(&[last]).unwrap();
            prop_assert_eq!(only.first(), origins.last());
            let by_index = indexes.iter().map(|index| batch.row(*index).map(text).collect::<Vec<_>>());
            let in_order = batch.rows().map(|row| row.map(text).collect::<Vec<_>>());
            prop_assert!(by_index.clone().eq(in_order));
            prop_assert!(batch.row(batch.row_count()).next().is_none());
            cells.extend(by_index);
        }
        let (expected_cells, expected_origins): (Vec<_>, Vec<_>) =
            rows.into_iter().map(|row| (row.cells, row.origin)).unzip();
        prop_assert_eq!(cells, expected_cells);
        prop_assert_eq!(origins, expected_origins);
    }
}

#[test]
fn a_typed_batch_differs_from_a_landing_batch_in_its_version_and_origins() {
    let limits = BatchLimits {
        rows: 10,
        bytes: 1000,
    };
    let columns = ["a".to_owned()];
    let upload = UploadKey::first(UploadId::generate());
    let mut landing = BatchEncoder::new(upload, &columns, "00-trace", limits);
    let mut typed = BatchEncoder::typed(upload, &columns, "00-trace", limits);
    let changed: [&[(u32, &str)]; 2] = [&[], &[(7, "NA"), (18, "x")]];
    let rows = [(1, "7", 2, 120), (3, "say \"hi\"", 3, 214)];
    for ((number, text, line, offset), changed) in rows.into_iter().zip(changed) {
        assert!(landing.push(number, [text].into_iter()).unwrap().is_none());
        let origin = RowOrigin {
            line,
            offset,
            changed: changed.iter().copied(),
        };
        let full = typed.push_typed(number, [Some(text)].into_iter(), origin);
        assert!(full.unwrap().is_none());
    }
    let body = |encoder: BatchEncoder| encoder.finish().0.unwrap().body;
    let (landing, typed) = (body(landing), body(typed));
    assert!(landing.starts_with(b"{\"v\":2,"));
    assert!(typed.starts_with(b"{\"v\":3,"));
    let origins = b",\"origins\":[\n[2,120],\n[1,94,[[7,\"NA\"],[18,\"x\"]]]\n]}";
    let end = typed.len() - origins.len();
    assert_eq!(typed[end..], origins[..]);
    assert_eq!(landing[6..landing.len() - 1], typed[6..end]);
    assert_eq!(Batch::decode(typed).unwrap().runs(), [(1, 1), (3, 1)]);
}

#[test]
fn a_typed_row_that_is_too_large_is_reported_with_its_size_and_not_added() {
    let limits = BatchLimits {
        rows: 10,
        bytes: 80,
    };
    let upload = UploadKey::first(UploadId::generate());
    let mut encoder = BatchEncoder::typed(upload, &["a".to_owned()], "", limits);
    let wide = "y".repeat(60);
    let mut push = |number: u64, text: Option<&str>, changed: &[(u32, &str)]| {
        let origin = RowOrigin {
            line: number + 1,
            offset: 10 * number,
            changed: changed.iter().copied(),
        };
        encoder.push_typed(number, [text].into_iter(), origin)
    };
    // The row has 65 bytes, and its origin `[2,10,[[0,"z"]]]` with a line end has 17.
    let error = push(1, Some(wide.as_str()), &[(0, "z")]).unwrap_err();
    assert_eq!((error.limit, error.actual), (80, 82));
    assert!(push(2, None, &[]).unwrap().is_none());
    // The same row fits without the changed cell, in a batch of its own.
    let full = push(3, Some(wide.as_str()), &[]).unwrap().unwrap();
    let batch = Batch::decode(full.body).unwrap();
    assert!(batch.rows_json().eq([b"null"]));
    assert_eq!(batch.first_row(), 2);
    let origin = batch.origins(&[0]).unwrap().remove(0);
    assert_eq!((origin.line, origin.offset), (3, 20));
    let batch = Batch::decode(encoder.finish().0.unwrap().body).unwrap();
    let origin = batch.origins(&[0]).unwrap().remove(0);
    assert_eq!((origin.line, origin.offset), (4, 30));
}

/// A typed message with one row and this text after the runs.
fn message_after_runs(v: u32, rest: &str) -> Bytes {
    let message = message_with(v, r#"[["1","2"]]"#, "[[1,1]]");
    let message = String::from_utf8(message.to_vec()).unwrap();
    let message = message.strip_suffix('}').unwrap();
    Bytes::from(format!("{message}{rest}}}"))
}

#[test]
fn origins_are_not_read_until_they_are_wanted() {
    let batch = Batch::decode(message_after_runs(3, "")).unwrap();
    assert!(matches!(
        batch.origins(&[0]),
        Err(DecodeError::Malformed(_))
    ));
    for origins in ["7", "[[1]]", "[]", "[[1,2],[3,4]]", "[[1,2],"] {
        let message = message_after_runs(3, &format!(",\"origins\":{origins}"));
        let batch = Batch::decode(message).unwrap();
        let found = batch.origins(&[0]);
        assert!(matches!(found, Err(DecodeError::Malformed(_))), "{origins}");
    }
}

#[test]
fn origins_of_a_landing_batch_and_unknown_fields_are_malformed() {
    for (v, rest) in [
        (2, ",\"origins\":[[1,2]]"),
        (3, ",\"other\":1,\"origins\":[[1,2]]"),
        (3, ",\"other\":1"),
    ] {
        let decoded = Batch::decode(message_after_runs(v, rest));
        assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{rest}");
    }
}
