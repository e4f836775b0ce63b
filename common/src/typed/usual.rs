//! The usual text of a value in a file.
//!
//! A message keeps the text of a cell only if it is not the usual text of its value. So most cells
//! of most files are in a message once, and the text of a rejected row is still exact.
//!
//! The usual text is the canonical text, with two exceptions. The usual text of a timestamp at a
//! whole second has no fraction, and that of NULL is empty.

use std::borrow::Cow;

use crate::dataset::ColumnType;

/// The end of the canonical text of a timestamp at a whole second.
const WHOLE_SECOND: &str = ".000000Z";

/// The usual text of the value with this canonical text. NULL has no canonical text, and its usual
/// text is empty.
pub fn usual_text(kind: ColumnType, canonical: &str) -> Cow<'_, str> {
    match without_fraction(kind, canonical) {
        Some(time) => Cow::Owned(format!("{time}Z")),
        None => Cow::Borrowed(canonical),
    }
}

/// Whether a cell has the usual text of its value. `canonical` is the canonical text of the value,
/// or `None` for NULL.
pub fn is_usual_text(kind: ColumnType, canonical: Option<&str>, cell: &str) -> bool {
    let Some(canonical) = canonical else {
        return cell.is_empty();
    };
    match without_fraction(kind, canonical) {
        Some(time) => cell.strip_suffix('Z') == Some(time),
        None => cell == canonical,
    }
}

/// The canonical text of a timestamp up to its seconds, if it is at a whole second. `None` for
/// every other value.
fn without_fraction(kind: ColumnType, canonical: &str) -> Option<&str> {
    match kind {
        ColumnType::Timestamp => canonical.strip_suffix(WHOLE_SECOND),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_text_of_a_time_has_a_fraction_only_if_the_time_has_one() {
        for (canonical, usual) in [
            ("2013-01-01T10:00:00.000000Z", "2013-01-01T10:00:00Z"),
            ("2013-01-01T10:00:00.500000Z", "2013-01-01T10:00:00.500000Z"),
        ] {
            assert_eq!(usual_text(ColumnType::Timestamp, canonical), usual);
            assert_eq!(usual_text(ColumnType::Text, canonical), canonical);
        }
    }

    #[test]
    fn a_cell_has_the_usual_text_if_the_value_gives_the_cell_back() {
        let time = Some("2013-01-01T10:00:00.000000Z");
        let values = [
            (ColumnType::Numeric, Some("7.50")),
            (ColumnType::Boolean, Some("true")),
            (ColumnType::Text, Some("")),
            (ColumnType::Text, time),
            (ColumnType::Timestamp, time),
            (ColumnType::Timestamp, Some("2013-01-01T10:00:00.000001Z")),
            (ColumnType::Integer, None),
        ];
        let cells = [
            "7.50",
            "7.5",
            "true",
            "t",
            "",
            " ",
            "Z",
            "2013-01-01T10:00:00.000000Z",
            "2013-01-01T10:00:00Z",
            "2013-01-01T10:00:00",
            "2013-01-01T10:00:00.000001Z",
            "NA",
        ];
        for (kind, canonical) in values {
            let usual = canonical.map_or(Cow::Borrowed(""), |text| usual_text(kind, text));
            let mut same = 0;
            for cell in cells {
                let is_usual = is_usual_text(kind, canonical, cell);
                assert_eq!(
                    is_usual,
                    usual == cell,
                    "{kind}: {canonical:?} and {cell:?}"
                );
                same += u32::from(is_usual);
            }
            assert_eq!(same, 1, "{kind}: {canonical:?}");
        }
    }
}
