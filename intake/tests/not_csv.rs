//! The promises about files of other formats: they are refused however they arrive, compressed or
//! not, and no byte of a CSV file is lost while its first bytes are examined.

#![allow(clippy::unwrap_used)]

use std::io;

use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};
use bytes::Bytes;
use carga_common::settings::{Mode, Settings};
use carga_intake::preview::{Preview, preview_file};
use carga_intake::refusal::Refusal;
use futures::{FutureExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The sizes of the pieces in which a file arrives.
const PIECE_BYTES: [usize; 5] = [1, 7, 300, 5000, 1 << 20];

fn preview_of(file: &[u8], piece_bytes: usize) -> Result<Preview, Refusal> {
    let settings = Settings::read(Mode::Embedded, &|_| None);
    let settings = settings.unwrap_or_else(|error| panic!("{error}"));
    let pieces = file.chunks(piece_bytes);
    let pieces: Vec<io::Result<Bytes>> = pieces
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let preview = preview_file(&[], &settings.intake, stream::iter(pieces));
    // Nothing here waits, so the future is ready at once.
    preview.now_or_never().unwrap()
}

fn read(mut encoder: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut compressed = Vec::new();
    let reading = encoder.read_to_end(&mut compressed);
    reading.now_or_never().unwrap().unwrap();
    compressed
}

fn gzip(file: &[u8]) -> Vec<u8> {
    read(GzipEncoder::new(file))
}

fn zstd(file: &[u8]) -> Vec<u8> {
    read(ZstdEncoder::new(file))
}

/// The first block of a tar archive with one file, and the file.
fn tar(name: &str, content: &str) -> Vec<u8> {
    let mut archive = vec![0; 512];
    archive[..name.len()].copy_from_slice(name.as_bytes());
    archive[100..107].copy_from_slice(b"0000644");
    archive[156] = b'0';
    archive[257..262].copy_from_slice(b"ustar");
    archive.extend_from_slice(content.as_bytes());
    archive
}

/// Checks that a file is refused with a message that begins like this, in pieces of any size.
fn assert_refused(file: &[u8], message: &str) {
    for piece_bytes in PIECE_BYTES {
        let problem = preview_of(file, piece_bytes).unwrap().problem.unwrap();
        let found = &problem.message;
        assert_eq!(problem.code, "not_csv", "{piece_bytes}: {found}");
        assert!(found.starts_with(message), "{piece_bytes}: {found}");
    }
}

#[test]
fn files_of_other_formats_are_refused() {
    let rows = "{\"id\": 1},\n".repeat(2000);
    let json = format!("{{\"data\": [\n{rows}");
    let page = format!("{}<table><tr><td>1,2</td></tr></table>", "\n".repeat(3000));
    assert_refused(b"%PDF-1.7\n", "the file is a PDF document, not CSV; ");
    assert_refused(page.as_bytes(), "the file is a web page (HTML), not CSV; ");
    assert_refused(json.as_bytes(), "the file is JSON, not CSV; ");
    assert_refused(b"[]", "the file is JSON, not CSV; ");
    assert_refused(
        &tar("a.csv", "a,b\n1,2\n"),
        "the file is a tar archive, not CSV; ",
    );
}

#[test]
fn compressed_files_of_other_formats_are_refused() {
    let archive = tar("a.csv", "a,b\n1,2\n");
    let workbook = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0b\0\0\0xl/work.xml";
    let cases = [
        (archive, "a tar archive"),
        (workbook.to_vec(), "an Excel workbook"),
        (gzip(b"a,b\n1,2\n"), "gzip data"),
        (zstd(b"a,b\n1,2\n"), "zstd data"),
        (b"<html>".to_vec(), "a web page (HTML)"),
    ];
    for (content, what) in cases {
        let message = format!("the gzip file contains {what}, not CSV; decompress it (gzip -d");
        assert_refused(&gzip(&content), &message);
        let message = format!("the zstd file contains {what}, not CSV; decompress it (zstd -d");
        assert_refused(&zstd(&content), &message);
    }
}

#[test]
fn a_csv_file_that_begins_like_another_format_is_read_to_its_last_byte() {
    let starts = ["<5", "[1", "{x}", "\n\n\n\n\n\n\n\n\na", "PK", "a"];
    for start in starts {
        for rows in [1, 2000] {
            let file = format!("{start},b\n{}", "1,2\n".repeat(rows));
            for sent in [
                file.clone().into_bytes(),
                gzip(file.as_bytes()),
                zstd(file.as_bytes()),
            ] {
                for piece_bytes in PIECE_BYTES {
                    let preview = preview_of(&sent, piece_bytes).unwrap();
                    assert_eq!(preview.columns, [start.trim_start(), "b"]);
                    assert_eq!(
                        preview.looked_at.rows, rows as u64,
                        "{start}: {piece_bytes}"
                    );
                    assert_eq!(preview.looked_at.rejected, 0);
                    assert_eq!(preview.looked_at.bytes, sent.len() as u64);
                    assert!(preview.looked_at.whole);
                }
            }
        }
    }
}
