//! Recognises rows of a reject report that were not corrected before the report was sent again.
//!
//! A record that did not fit the columns has empty cells in the report, and its text is in
//! `_carga_raw`. An undecodable cell has its bytes as `\xNN`. A cell that a short row lacks is
//! empty, also in a required column of a dataset. Without a correction, the stored row would be
//! empty, or would have `\xNN` or an empty text in place of a value.

/// The codes of rows that may have cells with bytes written as `\xNN`.
const ESCAPED_CODES: [&[u8]; 4] = [
    b"undecodable",
    b"nul_character",
    b"field_too_large",
    b"not_corrected",
];

/// The code of rows that lack a cell of a required column.
pub(super) const MISSING_VALUE: &str = "missing_value";

/// The columns of a reject report that show whether a row was corrected, as indexes of fields.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ReportColumns {
    pub(super) raw: Option<usize>,
    pub(super) code: Option<usize>,
    pub(super) column: Option<usize>,
}

impl ReportColumns {
    /// Records a column whose name begins with `_carga_`.
    pub(super) fn add(&mut self, name: &str, field: usize) {
        match name {
            "_carga_raw" => self.raw = Some(field),
            "_carga_code" => self.code = Some(field),
            "_carga_column" => self.column = Some(field),
            _ => {}
        }
    }
}

/// Whether the cells of a row with these texts in `_carga_code` and `_carga_raw` may have bytes
/// written as `\xNN`.
pub(super) fn may_have_escaped_bytes(code: &[u8], raw: &[u8]) -> bool {
    ESCAPED_CODES.contains(&code) || has_escaped_byte(raw)
}

/// Whether the text has a byte written as `\xNN`, with upper-case digits as the report writes them.
pub(super) fn has_escaped_byte(text: &[u8]) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    text.windows(4)
        .any(|part| part.starts_with(b"\\x") && part[2..].iter().all(is_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_byte_is_recognised_by_its_two_digits() {
        assert!(has_escaped_byte(br"Zo\xE9"));
        for text in [r"Zo\x", r"\xG0", r"C:\xdata", "Zoé", ""] {
            assert!(!has_escaped_byte(text.as_bytes()), "{text}");
        }
    }
}
