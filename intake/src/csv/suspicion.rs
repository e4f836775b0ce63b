//! Recognises quoted fields with lines that look like rows.
//!
//! A quote that opens a field by mistake can be closed by a second mistake far below. The record
//! is then valid CSV: all rows in between are the text of one cell. A cell may also contain such
//! text on purpose, so the reader warns and does not reject the row.

use super::syntax::{Fields, Scan, Syntax, line_end};

/// The smallest number of lines that is suspicious.
const MIN_LINES: u64 = 3;

/// A field with fewer line ends does not have so many whole lines.
pub(super) const MIN_LINE_ENDS: u64 = MIN_LINES + 1;

/// At most one line in this many may look different.
const LINES_PER_MISFIT: u64 = 10;

/// The number of whole lines in a quoted field's text that look like rows with `width` fields, if
/// there are several and almost all lines do.
pub(super) fn row_like_lines(text: &[u8], syntax: Syntax, width: usize) -> Option<u64> {
    // If there is one column, any line looks like a row.
    if width < 2 {
        return None;
    }
    // The text before the first line end is on the line of the opening quote.
    let (_, start) = line_end(text)?;
    let mut rest = &text[start..];
    // The fields are counted and not kept.
    let mut fields = Fields::new(0);
    let (mut fits, mut misfits) = (0, 0);
    while let Some((content, next)) = line_end(rest) {
        let scan = syntax.scan(&rest[..content], true, &mut fields);
        let is_row = matches!(scan, Scan::Whole(_)) && fields.count() == width;
        fits += u64::from(is_row);
        misfits += u64::from(!is_row);
        if misfits * LINES_PER_MISFIT > fits + misfits {
            return None;
        }
        rest = &rest[next..];
    }
    (fits >= MIN_LINES).then_some(fits)
}
