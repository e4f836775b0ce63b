//! The binary format of Postgres (PostgreSQL manual, "COPY"; the functions `numeric_recv`,
//! `date_recv`, `timestamptz_recv`, `jsonb_recv` and so on read it).

use uuid::Uuid;

use super::{NotCanonical, calendar, numeric};
use crate::dataset::ColumnType;

/// The version of the format of `jsonb`. The text of the value follows it.
const JSONB_VERSION: u8 = 1;

/// Appends a cell as a field of a binary COPY: the length of the value in bytes, and the value.
/// Nothing is allocated for a cell. If the cell is not canonical text, the buffer may end with a
/// part of it.
///
/// The intake has checked the form of a cell. This function only refuses a text that has no value.
pub fn append_binary(
    buffer: &mut Vec<u8>,
    kind: ColumnType,
    text: &str,
) -> Result<(), NotCanonical> {
    let appended = match kind {
        ColumnType::Text => {
            append(buffer, text.as_bytes());
            Some(())
        }
        ColumnType::Integer => {
            let value = text.parse::<i64>().ok();
            value.map(|value| append(buffer, &value.to_be_bytes()))
        }
        ColumnType::Numeric => numeric::append(buffer, text),
        ColumnType::Float => {
            let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
            value.map(|value| append(buffer, &value.to_be_bytes()))
        }
        ColumnType::Boolean => boolean(text).map(|value| append(buffer, &[u8::from(value)])),
        ColumnType::Date => calendar::days(text).map(|days| append(buffer, &days.to_be_bytes())),
        ColumnType::Timestamp => {
            let time = calendar::microseconds(text);
            time.map(|time| append(buffer, &time.to_be_bytes()))
        }
        ColumnType::Uuid => {
            let id = Uuid::try_parse(text).ok();
            id.map(|id| append(buffer, id.as_bytes()))
        }
        ColumnType::Json => {
            append_length(buffer, 1 + text.len());
            buffer.push(JSONB_VERSION);
            buffer.extend_from_slice(text.as_bytes());
            Some(())
        }
    };
    appended.ok_or(NotCanonical(kind))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn append(buffer: &mut Vec<u8>, value: &[u8]) {
    append_length(buffer, value.len());
    buffer.extend_from_slice(value);
}

/// A message is under 8 MiB, so the length of a cell fits into 32 bits.
fn append_length(buffer: &mut Vec<u8>, length: usize) {
    buffer.extend_from_slice(&(length as u32).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: ColumnType, text: &str) -> Result<Vec<u8>, NotCanonical> {
        let mut buffer = Vec::new();
        append_binary(&mut buffer, kind, text).map(|()| buffer)
    }

    /// Cells, and their fields in a COPY, as `numeric_send`, `date_send` and so on write them.
    const KNOWN: [(ColumnType, &str, &[u8]); 16] = [
        (ColumnType::Text, "", b"\0\0\0\0"),
        (ColumnType::Text, "é\n", b"\0\0\0\x03\xc3\xa9\n"),
        (ColumnType::Integer, "0", b"\0\0\0\x08\0\0\0\0\0\0\0\0"),
        (
            ColumnType::Integer,
            "-9223372036854775808",
            b"\0\0\0\x08\x80\0\0\0\0\0\0\0",
        ),
        (
            ColumnType::Integer,
            "9223372036854775807",
            b"\0\0\0\x08\x7f\xff\xff\xff\xff\xff\xff\xff",
        ),
        (
            ColumnType::Numeric,
            "12345.678",
            b"\0\0\0\x0e\0\x03\0\x01\0\0\0\x03\0\x01\x09\x29\x1a\x7c",
        ),
        (
            ColumnType::Numeric,
            "-0.0001",
            b"\0\0\0\x0a\0\x01\xff\xff\x40\0\0\x04\0\x01",
        ),
        (
            ColumnType::Float,
            "0.1",
            b"\0\0\0\x08\x3f\xb9\x99\x99\x99\x99\x99\x9a",
        ),
        (
            ColumnType::Float,
            "-1e300",
            b"\0\0\0\x08\xfe\x37\xe4\x3c\x88\0\x75\x9c",
        ),
        (ColumnType::Boolean, "true", b"\0\0\0\x01\x01"),
        (ColumnType::Boolean, "false", b"\0\0\0\x01\0"),
        (
            ColumnType::Date,
            "1999-12-31",
            b"\0\0\0\x04\xff\xff\xff\xff",
        ),
        (ColumnType::Date, "2024-02-29", b"\0\0\0\x04\0\0\x22\x79"),
        (
            ColumnType::Timestamp,
            "2024-02-29T12:34:56.789012Z",
            b"\0\0\0\x08\0\x02\xb5\x83\x41\x72\x86\x14",
        ),
        (
            ColumnType::Uuid,
            "00112233-4455-6677-8899-aabbccddeeff",
            b"\0\0\0\x10\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff",
        ),
        (ColumnType::Json, "{\"a\": 1}", b"\0\0\0\x09\x01{\"a\": 1}"),
    ];

    #[test]
    fn a_cell_has_the_bytes_of_postgres() {
        for (kind, text, expected) in KNOWN {
            assert_eq!(field(kind, text).as_deref(), Ok(expected), "{kind}: {text}");
        }
    }

    #[test]
    fn a_cell_is_appended_behind_the_others() {
        let mut buffer = b"before".to_vec();
        append_binary(&mut buffer, ColumnType::Numeric, "7").unwrap();
        append_binary(&mut buffer, ColumnType::Boolean, "true").unwrap();
        assert_eq!(
            buffer,
            b"before\0\0\0\x0a\0\x01\0\0\0\0\0\0\0\x07\0\0\0\x01\x01"
        );
    }

    #[test]
    fn a_text_that_is_not_of_the_type_is_a_fault() {
        for (kind, text) in [
            (ColumnType::Integer, "9223372036854775808"),
            (ColumnType::Integer, "1.0"),
            (ColumnType::Integer, ""),
            (ColumnType::Numeric, "1e3"),
            (ColumnType::Float, "inf"),
            (ColumnType::Float, "NaN"),
            (ColumnType::Float, "1,5"),
            (ColumnType::Boolean, "t"),
            (ColumnType::Date, "2023-02-29"),
            (ColumnType::Timestamp, "2024-02-29"),
            (ColumnType::Uuid, "00112233"),
        ] {
            assert_eq!(field(kind, text), Err(NotCanonical(kind)), "{kind}: {text}");
        }
    }
}
