//! Reads the origins of a batch's rows: their positions in the file, and their changed cells.
//!
//! A worker needs the origins only if a row violates a constraint, so `decode` does not parse them.

use serde::Deserialize;
use serde::de::Error as _;

/// A row's position in its file and its changed cells, read back from a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The physical line on which the row begins, from 1.
    pub line: u64,
    /// The byte of the decompressed file at which the row begins, from 0.
    pub offset: u64,
    /// The cells whose text is not the usual one (see [`crate::typed::usual_text`]), each with the
    /// index of the file's column, from 0.
    pub changed: Vec<(u32, String)>,
}

/// The lines and the bytes since the previous row, and the changed cells.
#[derive(Deserialize)]
struct Entry(u64, u64, #[serde(default)] Vec<(u32, String)>);

/// Reads the origins of the rows at these indexes, which must ascend. `json` is the list of the
/// origins of all rows.
pub(super) fn read(
    json: &[u8],
    rows: usize,
    indexes: &[usize],
) -> Result<Vec<Origin>, serde_json::Error> {
    let entries: Vec<Entry> = serde_json::from_slice(json)?;
    if entries.len() != rows {
        let message = format!("expected {rows} origins, found {}", entries.len());
        return Err(serde_json::Error::custom(message));
    }
    let mut origins = Vec::with_capacity(indexes.len());
    let mut indexes = indexes.iter().peekable();
    let (mut line, mut offset) = (0_u64, 0_u64);
    for (index, Entry(lines, bytes, changed)) in entries.into_iter().enumerate() {
        line = line.wrapping_add(lines);
        offset = offset.wrapping_add(bytes);
        if indexes.next_if(|wanted| **wanted == index).is_some() {
            origins.push(Origin {
                line,
                offset,
                changed,
            });
        }
    }
    match indexes.next() {
        None => Ok(origins),
        Some(index) => {
            let message = format!("expected ascending indexes below {rows}, found {index}");
            Err(serde_json::Error::custom(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &[u8] = br#"[[2,120],[1,94,[[7,"NA"],[18,"say \"x\""]]],[3,7,[]]]"#;

    fn origin(line: u64, offset: u64, changed: &[(u32, &str)]) -> Origin {
        let changed = changed.iter();
        Origin {
            line,
            offset,
            changed: changed
                .map(|(column, text)| (*column, (*text).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn the_wanted_origins_are_read() {
        let first = origin(2, 120, &[]);
        let second = origin(3, 214, &[(7, "NA"), (18, "say \"x\"")]);
        let third = origin(6, 221, &[]);
        assert!(read(THREE, 3, &[]).unwrap().is_empty());
        let all = read(THREE, 3, &[0, 1, 2]).unwrap();
        assert_eq!(all, [first.clone(), second.clone(), third.clone()]);
        assert_eq!(read(THREE, 3, &[0, 2]).unwrap(), [first, third]);
        assert_eq!(read(THREE, 3, &[1]).unwrap(), [second]);
        assert!(read(b"[]", 0, &[]).unwrap().is_empty());
    }

    #[test]
    fn rows_that_do_not_exist_or_do_not_ascend_are_a_fault() {
        for indexes in [&[3][..], &[1, 1], &[2, 0]] {
            assert!(read(THREE, 3, indexes).is_err(), "{indexes:?}");
        }
    }

    #[test]
    fn malformed_origins_are_a_fault() {
        for (json, rows) in [
            ("[[2,120]]", 2),
            ("[[2,120],[1,1]]", 1),
            ("[[2]]", 1),
            ("[[2,-1]]", 1),
            ("[[2,1,[[0]]]]", 1),
            ("[[2,1,[[0,null]]]]", 1),
            ("[[2,1,[],4]]", 1),
            ("[[2,1]", 1),
            ("{}", 1),
        ] {
            assert!(read(json.as_bytes(), rows, &[]).is_err(), "{json}");
        }
    }
}
