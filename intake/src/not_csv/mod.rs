//! Recognises files of other formats by their first bytes, and says how to make CSV of them.
//!
//! `magic` knows binary formats, `archives` ZIP and tar, `markup` HTML and XML, and `json` JSON.
//! Nothing here does I/O.

mod archives;
mod json;
mod magic;
mod markup;

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};
use memchr::memchr2;

use crate::csv::is_control;
use crate::refusal::{Refusal, RefusalKind};

/// How many bytes are examined. Comments and blanks in front of HTML and JSON fit, and more bytes
/// are never examined, so that the result does not depend on how the bytes arrive.
const SAMPLE_BYTES: usize = 4 << 10;

/// The least number of bytes that are examined, unless the file is shorter.
const LEAST_BYTES: usize = 8;

/// What the first bytes of a file show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    MayBeCsv,
    NeedsMore,
}

/// A format that is not CSV.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The format, with its article.
    what: &'static str,
    /// How to make CSV of it, as an imperative.
    remedy: Cow<'static, str>,
}

impl Found {
    fn new(what: &'static str, remedy: impl Into<Cow<'static, str>>) -> Self {
        let remedy = remedy.into();
        Self { what, remedy }
    }

    fn refusal(&self, compression: Option<&str>) -> Refusal {
        let Self { what, remedy } = self;
        let message = match compression {
            None => format!("the file is {what}, not CSV; {remedy}"),
            Some(format) => format!(
                "the {format} file contains {what}, not CSV; decompress it ({format} -d FILE), then {remedy}"
            ),
        };
        Refusal::new(RefusalKind::Unsupported, "not_csv", message)
    }
}

/// Examines the first bytes of a file, after its `compression` was removed. Refuses a file whose
/// format is not CSV. Asks for more bytes only while they can change the result; once the file
/// has `ended`, it never does.
pub(crate) fn check(
    beginning: &[u8],
    ended: bool,
    compression: Option<&str>,
) -> Result<Verdict, Refusal> {
    let sample = &beginning[..beginning.len().min(SAMPLE_BYTES)];
    let text = text(sample);
    let text = text.trim_ascii_start();
    if !ended && needs_more(sample, text) {
        return Ok(Verdict::NeedsMore);
    }
    let whole = ended && sample.len() == beginning.len();
    let found = magic::find(sample)
        .or_else(|| archives::find(sample))
        .or_else(|| markup::find(text))
        .or_else(|| json::find(text, whole));
    match found {
        None => Ok(Verdict::MayBeCsv),
        Some(found) => Err(found.refusal(compression)),
    }
}

/// The sample without its byte order mark, in an encoding that extends ASCII.
fn text(sample: &[u8]) -> Cow<'_, [u8]> {
    let Some((encoding, mark_bytes)) = Encoding::for_bom(sample) else {
        return Cow::Borrowed(sample);
    };
    let text = &sample[mark_bytes..];
    if encoding == UTF_8 {
        return Cow::Borrowed(text);
    }
    // The last byte may be half of a UTF-16 unit.
    let units = &text[..text.len() / 2 * 2];
    let (decoded, _) = encoding.decode_without_bom_handling(units);
    Cow::Owned(decoded.into_owned().into_bytes())
}

/// Whether more bytes can change the result. A client that sends a header and waits must not wait
/// in vain, so a complete line is enough unless another format may begin with it.
fn needs_more(sample: &[u8], text: &[u8]) -> bool {
    if sample.len() < LEAST_BYTES {
        return true;
    }
    if sample.len() >= SAMPLE_BYTES {
        return false;
    }
    let is_ambiguous = text.is_empty()
        || text.starts_with(b"<")
        || json::may_be(text)
        || sample.starts_with(archives::ZIP)
        // A line with a control character may be the beginning of a binary format.
        || sample.iter().any(|byte| is_control(*byte));
    is_ambiguous || (sample.len() < archives::TAR_BYTES && memchr2(b'\n', b'\r', sample).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message of the refusal of a whole file.
    fn message(file: &[u8]) -> Option<String> {
        let refusal = check(file, true, None).err()?;
        assert_eq!(refusal.kind, RefusalKind::Unsupported);
        assert_eq!(refusal.failure.code, "not_csv");
        Some(refusal.failure.message)
    }

    fn utf16(text: &str) -> Vec<u8> {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        [0xff, 0xfe].into_iter().chain(units).collect()
    }

    #[test]
    fn the_refusal_names_the_format_and_a_remedy() {
        assert_eq!(
            message(b"BZh91AY&SY\0\0").unwrap(),
            "the file is bzip2 data, not CSV; decompress it: bzip2 -dc FILE | carga import -"
        );
    }

    #[test]
    fn the_refusal_of_a_compressed_file_names_the_compression() {
        let refusal = check(b"\x1f\x8b\x08\0\0\0\0\0\0\x03", true, Some("zstd")).unwrap_err();
        assert_eq!(
            refusal.failure.message,
            "the zstd file contains gzip data, not CSV; decompress it (zstd -d FILE), then send the result"
        );
    }

    #[test]
    fn html_and_json_are_recognised_in_utf16_and_after_a_byte_order_mark() {
        for text in [
            "<html><body>x</body></html>",
            "{\"error\": \"no such file\"}\n",
        ] {
            assert!(message(&utf16(text)).is_some(), "{text}");
            assert!(
                message(format!("\u{feff}{text}").as_bytes()).is_some(),
                "{text}"
            );
        }
    }

    #[test]
    fn utf16_csv_is_not_refused() {
        assert_eq!(message(&utf16("id;näme\n1;[x]\n")), None);
    }

    #[test]
    fn files_that_only_begin_like_another_format_are_not_refused() {
        let files = [
            "",
            "\n",
            "PK,name\n1,x\n",
            "PAR1,PAR2\n1,2\n",
            "ORC,b\n1,2\n",
            "BZh,b\n1,2\n",
            "[a],b\n1,2\n",
            "{x};y\n1;2\n",
            "<5,>5\n1,2\n",
            "<html>,<body>\n1,2\n",
            "BM,b\n1,2\n",
            "[1,2]\n[3,4]\n",
            "{\"a\":1},x\n{\"a\":2},y\n",
            "ID;P\n1;2\n",
            "GIF,a\n",
            "x^2,y\n",
        ];
        for file in files {
            assert_eq!(message(file.as_bytes()), None, "{file}");
        }
    }

    #[test]
    fn a_complete_line_needs_no_more_bytes() {
        assert_eq!(check(b"id,n\n1,2", false, None).unwrap(), Verdict::MayBeCsv);
        assert_eq!(
            check(b"id,name,pr", false, None).unwrap(),
            Verdict::NeedsMore
        );
        assert_eq!(check(b"{x},yyy\n", false, None).unwrap(), Verdict::MayBeCsv);
    }

    #[test]
    fn more_bytes_are_awaited_after_an_ambiguous_beginning_up_to_the_limit() {
        for start in ["<!-- a -->\n", "{\"a\": 1,\n", "\n\n\n\n\n\n\n\n\n\n"] {
            let start = start.as_bytes();
            assert_eq!(check(start, false, None).unwrap(), Verdict::NeedsMore);
            assert_eq!(check(start, true, None).unwrap(), Verdict::MayBeCsv);
        }
        let blank = vec![b'\n'; SAMPLE_BYTES];
        assert_eq!(check(&blank, false, None).unwrap(), Verdict::MayBeCsv);
    }
}
