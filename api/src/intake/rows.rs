//! Records: the header, then row by row, each whole and sound or refused with its place.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Bytes;
use csv_async::{AsyncReader, AsyncReaderBuilder, ByteRecord, ErrorKind};
use futures::Stream;

use super::live::LiveUpload;
use super::source::FileSource;
use crate::problem::Refusal;

/// What the parser reads at once.
const BUFFER_BYTES: usize = 128 << 10;

/// How much a row may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowLimits {
    /// A record as it stands in the file.
    pub(crate) row_bytes: u64,
    /// A field without its quotes.
    pub(crate) field_bytes: usize,
    /// The header as it stands in the file.
    pub(crate) header_bytes: u64,
    /// Columns of the header.
    pub(crate) columns: usize,
}

impl Default for RowLimits {
    fn default() -> Self {
        Self {
            row_bytes: 4 << 20,
            field_bytes: 1 << 20,
            header_bytes: 1 << 20,
            columns: 10_000,
        }
    }
}

impl RowLimits {
    pub(crate) fn header(&self) -> RecordLimit {
        RecordLimit {
            bytes: self.header_bytes,
            code: "header_too_large",
            name: "header",
        }
    }

    fn row(&self) -> RecordLimit {
        RecordLimit {
            bytes: self.row_bytes,
            code: "row_too_large",
            name: "row",
        }
    }
}

/// How long a record may be, and what it is called when it is longer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordLimit {
    bytes: u64,
    code: &'static str,
    name: &'static str,
}

impl RecordLimit {
    /// Refuses a record of which `actual` bytes have been read. Its place is added where it is known.
    pub(crate) fn check(self, actual: u64) -> Result<(), Refusal> {
        let Self {
            bytes: limit,
            code,
            name,
        } = self;
        if actual <= limit {
            return Ok(());
        }
        let message = format!(
            "the {name} has at least {actual} bytes, the limit is {limit}; an opening quote that is never closed is a common cause"
        );
        Err(Refusal::unprocessable(code, message).limit(limit, actual))
    }
}

/// Reads records one by one.
#[derive(Debug)]
pub(crate) struct RowReader<S> {
    csv: AsyncReader<FileSource<S>>,
    record: ByteRecord,
    limits: RowLimits,
    columns: Vec<String>,
    rows_read: u64,
}

impl<S: Stream<Item = Result<Bytes, Refusal>> + Unpin + Send> RowReader<S> {
    /// Reads and checks the header. Faults here are faults of the request: no upload exists yet.
    pub(crate) async fn open(source: FileSource<S>, limits: RowLimits) -> Result<Self, Refusal> {
        let csv = AsyncReaderBuilder::new()
            // Width is checked here, where the place is known; the header is ours to read.
            .flexible(true)
            .has_headers(false)
            .buffer_capacity(BUFFER_BYTES)
            .create_reader(source);
        let mut reader = Self {
            csv,
            record: ByteRecord::new(),
            limits,
            columns: Vec::new(),
            rows_read: 0,
        };
        if !reader.read_record().await? {
            let message = "the file is empty: there is no header line";
            return Err(Refusal::unprocessable("empty_file", message));
        }
        limits
            .header()
            .check(reader.record_bytes())
            .map_err(|refusal| reader.here(refusal))?;
        let (found, limit) = (reader.record.len(), limits.columns);
        if found > limit {
            let message = format!("the header names {found} columns, the limit is {limit}");
            let refusal = Refusal::unprocessable("too_many_columns", message);
            return Err(refusal.limit(limit as u64, found as u64));
        }
        reader.columns = column_names(&reader.record)?;
        reader.csv.get_mut().limit_records(limits.row());
        reader.record_done();
        Ok(reader)
    }

    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    pub(crate) fn source(&self) -> &FileSource<S> {
        self.csv.get_ref()
    }

    pub(crate) fn report_to(&mut self, live: Arc<LiveUpload>) {
        self.csv.get_mut().report_to(live);
    }

    /// The next row's cells, or none at the end of the file. Call [`Self::row_done`] when they have been used.
    pub(crate) async fn next(&mut self) -> Result<Option<impl Iterator<Item = &str>>, Refusal> {
        if !self.read_record().await? {
            return Ok(None);
        }
        let text = self.check()?;
        let record = &self.record;
        // Every range is on character boundaries: `check` made sure.
        let cell = move |index| {
            record
                .range(index)
                .and_then(|range| text.get(range))
                .unwrap_or_default()
        };
        Ok(Some((0..record.len()).map(cell)))
    }

    /// The row at hand is used: the next one begins here.
    pub(crate) fn row_done(&mut self) {
        self.rows_read += 1;
        self.record_done();
    }

    /// Adds the place of the record at hand. The header is on a line, but it is no row.
    pub(crate) fn here(&self, mut refusal: Refusal) -> Refusal {
        refusal.failure.line = Some(self.source().record_line());
        refusal.failure.row = (!self.columns.is_empty()).then_some(self.rows_read + 1);
        refusal
    }

    /// The record at hand as it stands in the file, with its line end.
    fn record_bytes(&self) -> u64 {
        self.csv.position().byte() - self.source().record_offset()
    }

    fn record_done(&mut self) {
        let position = self.csv.position();
        let (offset, line) = (position.byte(), position.line());
        self.csv.get_mut().record_ended(offset, line);
    }

    /// True with a record of the file in `self.record`, false at the end of the file.
    async fn read_record(&mut self) -> Result<bool, Refusal> {
        let read = self.csv.read_byte_record(&mut self.record).await;
        let found = read.map_err(|error| match error.into_kind() {
            ErrorKind::Io(error) => match error.downcast::<Refusal>() {
                Ok(refusal)
                    if matches!(
                        refusal.failure.code.as_str(),
                        "row_too_large" | "header_too_large"
                    ) =>
                {
                    self.here(refusal)
                }
                Ok(refusal) => refusal,
                Err(error) => super::body::incomplete(&error.to_string()),
            },
            // The reader is flexible and gives bytes, so nothing else can fail; if it does, say so and stop.
            other => self.here(Refusal::unprocessable(
                "unreadable_row",
                format!("{other:?}"),
            )),
        })?;
        let consumed = self.csv.position().byte();
        match self.source().end() {
            // The sentinel, by itself: the file ended outside quotes.
            Some(end) if self.source().record_offset() > end => Ok(false),
            // The sentinel in the record, or nothing where the sentinel should be. One byte of it, the line break, ends a
            // last line that has none.
            Some(end) if !found || consumed > end + 1 => {
                let message = "a quote is opened and never closed";
                Err(self.here(Refusal::unprocessable("unclosed_quote", message)))
            }
            _ => Ok(found),
        }
    }

    /// The record's text, if the record is sound.
    fn check(&self) -> Result<&str, Refusal> {
        let bytes = self.record.as_slice();
        let refuse = |code: &str, message: String| self.here(Refusal::unprocessable(code, message));
        let column = |index: usize| self.columns.get(index).map_or("", String::as_str);

        let too_large = |refusal| self.here(refusal);
        self.limits
            .row()
            .check(self.record_bytes())
            .map_err(too_large)?;
        let (found, expected) = (self.record.len(), self.columns.len());
        if found != expected {
            let few = found < expected;
            let code = if few {
                "too_few_fields"
            } else {
                "too_many_fields"
            };
            let message = format!("the row has {found} fields, the header has {expected}");
            return Err(refuse(code, message));
        }
        // Only a record larger than the limit can have a field larger than it.
        if bytes.len() > self.limits.field_bytes
            && let Some((index, field)) = self
                .record
                .iter()
                .enumerate()
                .find(|(_, field)| field.len() > self.limits.field_bytes)
        {
            let (limit, actual) = (self.limits.field_bytes, field.len());
            let message = format!("the field has {actual} bytes, the limit is {limit}");
            let refusal = refuse("field_too_large", message).in_column(column(index));
            return Err(refusal.limit(limit as u64, actual as u64));
        }
        let in_field = |code: &str, message: &str, fault: &dyn Fn(&[u8]) -> bool| {
            let index = self.record.iter().position(fault).unwrap_or(0);
            refuse(code, message.to_owned()).in_column(column(index))
        };
        if memchr::memchr(0, bytes).is_some() {
            let message = "the field has a NUL character, which Postgres does not store";
            return Err(in_field("nul_character", message, &|field| {
                field.contains(&0)
            }));
        }
        let not_utf8 = || {
            let message =
                "the field is not valid UTF-8; convert the file to UTF-8 and send it again";
            in_field("invalid_utf8", message, &|field| {
                std::str::from_utf8(field).is_err()
            })
        };
        let text = std::str::from_utf8(bytes).map_err(|_| not_utf8())?;
        // Two broken fields side by side can look like a sound text.
        let sound = (0..found).all(|index| {
            self.record
                .range(index)
                .is_some_and(|range| text.is_char_boundary(range.end))
        });
        if sound { Ok(text) } else { Err(not_utf8()) }
    }
}

fn column_names(header: &ByteRecord) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::with_capacity(header.len());
    let mut seen = HashSet::with_capacity(header.len());
    for (index, name) in header.iter().enumerate() {
        let number = index + 1;
        let refuse = |code: &str, message: String| Refusal::unprocessable(code, message);
        let name = std::str::from_utf8(name).map_err(|_| {
            refuse(
                "invalid_utf8",
                format!("the name of column {number} is not valid UTF-8"),
            )
        })?;
        if name.trim().is_empty() {
            return Err(refuse(
                "empty_column_name",
                format!("column {number} has no name"),
            ));
        }
        if name.contains('\0') {
            return Err(refuse(
                "nul_character",
                format!("the name of column {number} has a NUL character"),
            ));
        }
        if !seen.insert(name) {
            let message = format!("column {number} has the same name as an earlier one: `{name}`");
            return Err(refuse("duplicate_column_name", message).in_column(name));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
