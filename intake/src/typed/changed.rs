//! The cells of a row whose text is not the usual text of their value.

/// The texts of the changed cells, in the file's order. All rows use the same buffers, so that a
/// row allocates nothing.
#[derive(Debug, Default)]
pub(super) struct ChangedCells {
    text: String,
    /// The index of the file's column, and the end of the cell in `text`.
    ends: Vec<(u32, usize)>,
}

impl ChangedCells {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// Adds the cell of a column of the file.
    pub(super) fn push(&mut self, column: usize, cell: &str) {
        self.text.push_str(cell);
        // The limit of columns is far below 2^32.
        self.ends.push((column as u32, self.text.len()));
    }

    /// The columns and texts of the cells.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |(column, end)| {
            let cell = &self.text[start..*end];
            start = *end;
            (*column, cell)
        })
    }
}
