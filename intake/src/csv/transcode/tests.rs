//! Tests of the transcoder, with text in many encodings and in pieces of any size.

use super::*;
use crate::csv::source_length::SourceLength;

const UTF_8: Charset = Charset::UTF_8;
const UTF_16LE: Charset = Charset::UTF_16LE;
const WINDOWS_1252: Charset = Charset::WINDOWS_1252;
const SHIFT_JIS: Charset = Charset::SHIFT_JIS;

fn decoded(charset: Charset, bytes: &[u8], piece: usize) -> Vec<u8> {
    decoded_by(&mut Transcoder::new(charset), bytes, piece)
}

fn decoded_by(transcoder: &mut Transcoder, bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for piece in bytes.chunks(piece) {
        transcoder.decode(piece, false, &mut text);
    }
    transcoder.decode(b"", true, &mut text);
    text
}

#[test]
fn decoded_text_does_not_depend_on_how_its_bytes_arrive() {
    let cases: [(Charset, &[u8], &str); 6] = [
        (UTF_8, "näme".as_bytes(), "näme"),
        (WINDOWS_1252, b"caf\xe9 \x80", "café €"),
        (UTF_16LE, b"a\0\xac\x20=\xd8\x00\xde", "a€😀"),
        (SHIFT_JIS, b"\x93\xfa\x96\x7b", "日本"),
        (Charset::CP850, b"J\x81rgen \x9b \xff.", "Jürgen ø \u{a0}."),
        (Charset::CP437, b"J\x81rgen \x9b \xff.", "Jürgen ¢ \u{a0}."),
    ];
    for (encoding, bytes, text) in cases {
        for piece in 1..=bytes.len() {
            assert_eq!(decoded(encoding, bytes, piece), text.as_bytes());
        }
        assert_eq!(
            SourceLength::of(encoding).measure(text.as_bytes()),
            bytes.len() as u64
        );
    }
}

#[test]
fn an_undecodable_byte_is_escaped_and_counted_as_one_byte() {
    // In Shift_JIS, 0x81 begins a character that 0xff does not end. The UTF-16 cases are
    // half a surrogate pair, and an odd byte at the end.
    let cases: [(Charset, &[u8], &str); 4] = [
        (UTF_8, b"a\xffb\0", "a\\xFFb\\x00"),
        (SHIFT_JIS, b"a\x81\xffb", "a\\x81\\xFFb"),
        (UTF_16LE, b"a\0\x00\xd8b\0", "a\\x00\\xD8b"),
        (UTF_16LE, b"a\0b", "a\\x62"),
    ];
    for (encoding, bytes, text) in cases {
        for piece in 1..=bytes.len() {
            let decoded = decoded(encoding, bytes, piece);
            assert_eq!(escaped(&decoded, encoding), text, "{piece}");
            assert_eq!(
                SourceLength::of(encoding).measure(&decoded),
                bytes.len() as u64
            );
        }
    }
}

/// Decodes with an undecided transcoder, which is the same however the bytes arrive.
fn decided(bytes: &[u8]) -> (Transcoder, Vec<u8>) {
    let mut transcoder = Transcoder::undecided();
    let text = decoded_by(&mut transcoder, bytes, bytes.len());
    for piece in [1, 7, 1000] {
        let mut other = Transcoder::undecided();
        assert!(decoded_by(&mut other, bytes, piece) == text, "{piece}");
        assert_eq!(other.charset(), transcoder.charset());
        assert_eq!(other.fault(), transcoder.fault());
    }
    (transcoder, text)
}

#[test]
fn an_undecided_transcoder_decides_at_the_first_byte_that_is_not_ascii() {
    let rows = "1,plain\n".repeat(20_000);
    let (mut utf8, text) = decided(&[rows.as_bytes(), "2,née".as_bytes()].concat());
    assert_eq!((text.len(), utf8.charset()), (rows.len() + 6, UTF_8));
    assert_eq!(utf8.take_decision().unwrap().value, UTF_8);
    assert_eq!(utf8.take_decision(), None);
    let late = b"2,n\xe9e \xe0 Besan\xe7on\n";
    let (mut western, text) = decided(&[rows.as_bytes(), late, rows.as_bytes()].concat());
    assert!(text == format!("{rows}2,née à Besançon\n{rows}").as_bytes());
    assert_eq!(western.take_decision().unwrap().value, WINDOWS_1252);
    let (mut ascii, text) = decided(rows.as_bytes());
    assert!(text == rows.as_bytes() && ascii.take_decision().is_none());
}

#[test]
fn only_the_bytes_after_the_first_one_that_is_not_ascii_decide() {
    // The second name is beyond them, and alone it would be Cyrillic.
    let first = b"\xe9t\xe9 \xe0 Besan\xe7on\n";
    let cyrillic = b"\xcc\xee\xf1\xea\xe2\xe0\n".repeat(40_000);
    let filler = vec![b'x'; SAMPLE_BYTES];
    let (transcoder, _) = decided(&[first, &filler[..], &cyrillic].concat());
    assert_eq!(transcoder.charset(), WINDOWS_1252);
}

#[test]
fn the_text_of_a_refused_file_ends_before_the_first_byte_that_is_not_ascii() {
    // It may be Japanese or Russian.
    let (transcoder, text) = decided(b"id,name\n1,\x93\x8c\x8b\x9e\n");
    assert_eq!(text, b"id,name\n1,");
    assert_eq!(transcoder.fault().unwrap().code, "unknown_encoding");
}
