//! The fields of a record.

/// The span of a field's text without its quotes, in bytes from the start of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::csv) struct Field {
    pub(in crate::csv) start: usize,
    pub(in crate::csv) end: usize,
    /// The field contains doubled quotes, or escape characters.
    pub(in crate::csv) doubled: bool,
}

impl Field {
    pub(in crate::csv) fn unquoted(start: usize, end: usize) -> Self {
        Self {
            start,
            end,
            doubled: false,
        }
    }
}

/// Which blanks around unquoted fields are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::csv) enum Trim {
    #[default]
    Nothing,
    /// One blank at the beginning of each field but the first.
    AfterDelimiters,
    All,
}

/// The fields of a record. Fields beyond a maximum are counted but not kept, because a record of
/// nothing but delimiters would otherwise take 24 times its own memory.
#[derive(Debug)]
pub(in crate::csv) struct Fields {
    kept: Vec<Field>,
    count: usize,
    max: usize,
}

impl Fields {
    pub(in crate::csv) fn new(max: usize) -> Self {
        Self {
            kept: Vec::new(),
            count: 0,
            max,
        }
    }

    pub(in crate::csv) fn clear(&mut self) {
        self.kept.clear();
        self.count = 0;
    }

    #[inline(always)]
    pub(in crate::csv) fn push(&mut self, field: Field) {
        if self.count < self.max {
            self.kept.push(field);
        }
        self.count += 1;
    }

    /// Removes blanks around the unquoted fields of a record.
    pub(in crate::csv) fn trim(&mut self, trim: Trim, record: &[u8], quote: Option<u8>) {
        for (index, field) in self.kept.iter_mut().enumerate() {
            let before = field.start.checked_sub(1).map(|at| record[at]);
            if before.is_some() && before == quote {
                continue;
            }
            let text = &record[field.start..field.end];
            match trim {
                Trim::Nothing => {}
                Trim::AfterDelimiters => {
                    field.start += usize::from(index > 0 && text.starts_with(b" "));
                }
                Trim::All => {
                    field.end -= text.len() - text.trim_ascii_end().len();
                    field.start += text.len() - text.trim_ascii_start().len();
                    field.start = field.start.min(field.end);
                }
            }
        }
    }

    /// The first fields, up to the maximum.
    pub(in crate::csv) fn kept(&self) -> &[Field] {
        &self.kept
    }

    /// The number of all fields.
    pub(in crate::csv) fn count(&self) -> usize {
        self.count
    }
}
