//! Encodes the origins of a batch's rows: their positions in the file, and their changed cells.
//!
//! Each row has an entry, such as `[1,94,[[7,"NA"]]]`. It has the lines and the bytes since the
//! previous row. If the row has cells whose text is not the usual text of their value, these
//! follow. The first entry of a batch counts from 0.

use crate::batch::write_json;

/// A row's position in its file, and its cells whose text is not the usual text of their value.
#[derive(Debug, Clone)]
pub struct RowOrigin<I> {
    /// The physical line on which the row begins, from 1.
    pub line: u64,
    /// The byte of the decompressed file at which the row begins, from 0.
    pub offset: u64,
    /// The cells whose text is not the usual one (see [`crate::typed::usual_text`]), each with the
    /// index of the file's column, from 0.
    pub changed: I,
}

/// The entries of the open batch. Batches share the buffer, so that a row allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Origins {
    json: Vec<u8>,
    /// The position of the last row.
    last: Position,
}

/// The entry of the row that was added last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    start: usize,
    /// The offset of the part after the two numbers.
    rest: usize,
    position: Position,
    /// The position of the row before.
    before: Position,
}

#[derive(Debug, Default, Clone, Copy)]
struct Position {
    line: u64,
    offset: u64,
}

impl Origins {
    /// The bytes of all entries.
    pub(super) fn len(&self) -> usize {
        self.json.len()
    }

    /// Adds the entry of a row.
    pub(super) fn push<'a>(
        &mut self,
        origin: RowOrigin<impl Iterator<Item = (u32, &'a str)>>,
    ) -> Entry {
        let RowOrigin {
            line,
            offset,
            changed,
        } = origin;
        let position = Position { line, offset };
        let (start, before) = (self.json.len(), self.last);
        self.write_position(position);
        let rest = self.json.len();
        let mut separator: &[u8] = b",[";
        for cell in changed {
            self.json.extend_from_slice(separator);
            write_json(&mut self.json, &cell);
            separator = b",";
        }
        if self.json.len() > rest {
            self.json.push(b']');
        }
        self.json.push(b']');
        Entry {
            start,
            rest,
            position,
            before,
        }
    }

    /// The bytes that the last entry has in a batch of its own.
    pub(super) fn bytes_alone(&self, last: Entry) -> usize {
        let Position { line, offset } = last.position;
        let numbers = digits(line) + digits(offset);
        "\n[,".len() + numbers + self.json.len() - last.rest
    }

    /// Removes the last entry.
    pub(super) fn remove(&mut self, last: Entry) {
        self.json.truncate(last.start);
        self.last = last.before;
    }

    /// Removes the last entry, and returns the part after its numbers for `push_moved`.
    pub(super) fn take_rest(&mut self, last: Entry) -> Vec<u8> {
        let rest = self.json.split_off(last.rest);
        self.remove(last);
        rest
    }

    /// Adds an entry that was removed from the previous batch.
    pub(super) fn push_moved(&mut self, entry: Entry, rest: &[u8]) {
        self.write_position(entry.position);
        self.json.extend_from_slice(rest);
    }

    /// Appends the list of all entries to a message, and begins the next batch.
    pub(super) fn close(&mut self, message: &mut Vec<u8>) {
        message.extend_from_slice(b",\"origins\":[");
        message.extend_from_slice(&self.json);
        message.extend_from_slice(b"\n]");
        self.json.clear();
        self.last = Position::default();
    }

    /// Opens an entry, and writes its numbers. The differences wrap, and so do the decoder's sums.
    /// So the decoder gets every position back.
    fn write_position(&mut self, position: Position) {
        self.json.extend_from_slice(match self.json.is_empty() {
            true => b"\n[",
            false => b",\n[",
        });
        let Position { line, offset } = self.last;
        write_json(&mut self.json, &position.line.wrapping_sub(line));
        self.json.push(b',');
        write_json(&mut self.json, &position.offset.wrapping_sub(offset));
        self.last = position;
    }
}

/// The number of decimal digits.
fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin<'a>(
        line: u64,
        offset: u64,
        changed: &'a [(u32, &'a str)],
    ) -> RowOrigin<impl Iterator<Item = (u32, &'a str)>> {
        RowOrigin {
            line,
            offset,
            changed: changed.iter().copied(),
        }
    }

    fn closed(origins: &mut Origins) -> String {
        let mut message = Vec::new();
        origins.close(&mut message);
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn an_entry_counts_from_the_row_before_and_the_first_entry_of_a_batch_from_zero() {
        let mut origins = Origins::default();
        origins.push(origin(2, 120, &[]));
        origins.push(origin(3, 214, &[(7, "NA"), (18, "say \"x\"")]));
        let expected = ",\"origins\":[\n[2,120],\n[1,94,[[7,\"NA\"],[18,\"say \\\"x\\\"\"]]]\n]";
        assert_eq!(closed(&mut origins), expected);
        origins.push(origin(5, 300, &[]));
        assert_eq!(closed(&mut origins), ",\"origins\":[\n[5,300]\n]");
    }

    #[test]
    fn an_entry_that_moves_to_the_next_batch_has_the_expected_bytes() {
        for (line, offset) in [(1, 0), (9, 10), (100, 99), (u64::MAX, u64::MAX)] {
            let mut origins = Origins::default();
            origins.push(origin(1, 0, &[]));
            let last = origins.push(origin(line, offset, &[(3, "x")]));
            let expected = origins.bytes_alone(last);
            let rest = origins.take_rest(last);
            assert_eq!(closed(&mut origins), ",\"origins\":[\n[1,0]\n]");
            origins.push_moved(last, &rest);
            assert_eq!(origins.len(), expected);
            let moved = format!(",\"origins\":[\n[{line},{offset},[[3,\"x\"]]]\n]");
            assert_eq!(closed(&mut origins), moved);
        }
    }

    #[test]
    fn after_a_removed_entry_the_next_one_counts_from_the_entry_before() {
        let mut origins = Origins::default();
        origins.push(origin(2, 10, &[]));
        let last = origins.push(origin(3, 20, &[(0, "y")]));
        origins.remove(last);
        origins.push(origin(4, 35, &[]));
        assert_eq!(closed(&mut origins), ",\"origins\":[\n[2,10],\n[2,25]\n]");
    }
}
