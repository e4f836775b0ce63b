//! The promises about a preview: every complete record before its cut is counted, however the file
//! arrives, and it does not take the option `dataset`.

#![allow(clippy::unwrap_used)]

use std::io;

use bytes::Bytes;
use carga_common::settings::{Mode, Settings};
use carga_intake::preview::{Preview, preview_file};
use carga_intake::refusal::{Refusal, RefusalKind};
use futures::{FutureExt, stream};

/// How many bytes a preview reads.
const MEBIBYTE: usize = 1 << 20;

/// The sizes of the pieces that a socket may yield. A reader that scans a long record only when it
/// has doubled scans it at other lengths for each of them.
const PIECE_BYTES: [usize; 3] = [10_000, 16 << 10, 64 << 10];

/// The preview of a file that arrives in pieces of this size.
fn preview_of(file: &str, piece_bytes: usize) -> Result<Preview, Refusal> {
    preview_with(&[], file, piece_bytes)
}

fn preview_with(
    options: &[(String, String)],
    file: &str,
    piece_bytes: usize,
) -> Result<Preview, Refusal> {
    let settings = Settings::read(Mode::Embedded, &|_| None);
    let settings = settings.unwrap_or_else(|error| panic!("{error}"));
    let pieces = file.as_bytes().chunks(piece_bytes);
    let pieces: Vec<io::Result<Bytes>> = pieces
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let preview = preview_file(options, &settings.intake, stream::iter(pieces));
    // Nothing here waits, so the future is ready at once.
    preview
        .now_or_never()
        .unwrap_or_else(|| panic!("reading from memory waited"))
}

/// A header and a row with a cell of 610,000 bytes, which is more than half of the preview.
fn start_with_a_long_cell() -> String {
    format!("a,b\n1,\"{}\"\n", "text\n".repeat(122_000))
}

#[test]
fn the_rows_after_a_long_cell_are_shown_and_counted() {
    let start = start_with_a_long_cell();
    let rows = (MEBIBYTE - start.len()) / "2,x\n".len();
    let file = start + &"2,x\n".repeat(2 * rows);
    for piece_bytes in PIECE_BYTES {
        let preview = preview_of(&file, piece_bytes).unwrap();
        assert_eq!(preview.looked_at.bytes, MEBIBYTE as u64);
        assert!(!preview.looked_at.whole);
        let read = preview.looked_at.rows;
        assert_eq!(read, 1 + rows as u64, "{piece_bytes}");
        assert_eq!(preview.looked_at.rejected, 0, "{piece_bytes}");
        assert_eq!(preview.rows.len(), 20, "{piece_bytes}");
        assert_eq!(
            preview.rows[19],
            ["2", "x"].map(|cell| Some(cell.to_owned()))
        );
        assert!(preview.warnings.is_empty(), "{:?}", preview.warnings);
    }
}

#[test]
fn a_quote_that_is_open_at_the_cut_is_reported_after_the_rows_before_it() {
    let start = start_with_a_long_cell() + &"2,x\n".repeat(1000);
    let file = start + "3,\"oops\n" + &"4,x\n".repeat(MEBIBYTE / 4);
    for piece_bytes in PIECE_BYTES {
        let preview = preview_of(&file, piece_bytes).unwrap();
        let [rejected] = &preview.rejected[..] else {
            panic!("{piece_bytes}: {} rejected rows", preview.rejected.len());
        };
        let found = (rejected.row, rejected.code.as_str());
        assert_eq!(found, (1002, "unclosed_quote"), "{piece_bytes}");
        assert_eq!(rejected.raw.as_deref(), Some("3,\"oops"));
        assert_eq!(preview.looked_at.rows, 1002, "{piece_bytes}");
        assert_eq!(preview.looked_at.rejected, 1, "{piece_bytes}");
    }
}

#[test]
fn a_preview_for_a_dataset_is_refused_because_it_does_not_convert() {
    let dataset = ("dataset".to_owned(), "sales".to_owned());
    let refused = preview_with(&[dataset], "a,b\n1,2\n", MEBIBYTE).unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Malformed);
    assert_eq!(refused.failure.code, "malformed_option");
    assert!(refused.failure.message.contains("does not convert"));
}
