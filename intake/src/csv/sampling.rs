//! Chooses the part of a file's text that is examined to detect its syntax.

use super::fault::{Exceeded, FileFault};
use super::limits::Limit;
use super::stated::CsvOptions;
use super::syntax::{Fields, Scan, Syntax, line_end};

/// How much text detection examines. It never examines more, even if more has arrived, because the
/// result must not depend on how the bytes arrive.
pub(super) const SAMPLE_BYTES: usize = 64 << 10;

/// How many records are examined if the client states everything. They show whether rows have a
/// trailing delimiter, and a slow client's header is read almost as soon as it arrives.
const STATED_RECORDS: usize = 12;

/// The range of the text that is examined; `None` if more text is needed. `limit` is the limit of
/// the lines above the header, and `ended` means that the text is the whole file.
pub(super) fn sample(
    text: &[u8],
    options: &CsvOptions,
    limit: Limit,
    ended: bool,
) -> Result<Option<(usize, usize)>, FileFault> {
    let skip = options.skip.unwrap_or(0);
    // Looking beyond the limit would make the result depend on how the bytes arrive.
    let window = &text[..text.len().min(limit.value.saturating_add(1))];
    let Some(start) = line_start(window, skip) else {
        if text.len() <= limit.value {
            return Ok(ended.then_some((text.len(), text.len())));
        }
        let message = format!(
            "the first {skip} lines have more than {} bytes; the limit is {0} ({})",
            limit.value, limit.setting
        );
        let fault = FileFault::new("header_too_large", message);
        return Err(fault.exceeding(Exceeded::new(limit, window.len() as u64)));
    };
    let rest = &text[start..];
    if let Some(syntax) = options.stated_syntax() {
        let found = records_end(rest, syntax, ended, STATED_RECORDS);
        let end = found.or(ended.then_some(rest.len()));
        if let Some(end) = end.filter(|end| *end <= SAMPLE_BYTES) {
            return Ok(Some((start, start + end)));
        }
    }
    let is_enough = rest.len() >= SAMPLE_BYTES || ended;
    Ok(is_enough.then(|| (start, start + rest.len().min(SAMPLE_BYTES))))
}

/// The index at which the line after the first `lines` lines begins; `None` if the text ends
/// before.
fn line_start(text: &[u8], lines: u64) -> Option<usize> {
    let mut start = 0;
    for _ in 0..lines {
        let (at, next) = line_end(&text[start..])?;
        // A CR at the end may be half of a CRLF.
        if text[start + at..] == *b"\r" {
            return None;
        }
        start += next;
    }
    Some(start)
}

/// The end of the first `count` records, without blank lines; `None` if the text ends before.
fn records_end(text: &[u8], syntax: Syntax, whole: bool, count: usize) -> Option<usize> {
    let mut fields = Fields::new(0);
    let mut at = 0;
    for _ in 0..count {
        while let Some((0, next)) = line_end(&text[at..]) {
            at += next;
        }
        at += match syntax.scan(&text[at..], whole, &mut fields) {
            Scan::Whole(extent) => extent.next,
            Scan::Stray { open_quote, .. } => open_quote + line_end(&text[at + open_quote..])?.1,
            Scan::Cut { .. } => return None,
        };
    }
    Some(at)
}
