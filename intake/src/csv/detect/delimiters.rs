//! Detects the delimiter by the shape that it gives to the records.

use super::super::syntax::{Field, Syntax};
use super::kinds::Kind;
use super::nearly_all;
use super::sample::{Sample, SampleRecord, most_frequent_width, without_footer};
use super::table::table;

/// The delimiters that are tried. The first one wins a tie.
const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];

/// The text, split at the delimiter that suits it best, with the evidence: most records have the
/// width of the table, and the fewest fields contain another delimiter. `names` is the number of
/// names that are given.
pub(super) fn delimited(
    text: &[u8],
    given: Option<char>,
    names: Option<usize>,
    quote: Option<u8>,
    whole: bool,
) -> (Sample<'_>, String) {
    let split = |delimiter| Sample::split(text, Syntax::new(delimiter, quote), whole);
    if let Some(delimiter) = given {
        return (split(delimiter), "given".to_owned());
    }
    let occurring = occurring(text, quote);
    let shaped = occurring.iter().map(|delimiter| {
        let sample = split(*delimiter);
        let shape = Shape::of(&sample, &others(&occurring, *delimiter));
        (sample, shape)
    });
    let mut shaped: Vec<(Sample<'_>, Shape)> = shaped.collect();
    // The first record of a table is not a title above the table of another delimiter.
    let is_even = shaped.iter().any(|(_, shape)| shape.is_even_from_first());
    let ranked = shaped
        .iter()
        .enumerate()
        .filter(|(_, (_, shape))| !is_even || shape.start == 0)
        .map(|(index, (_, shape))| (shape.rank(), index));
    // `max_by_key` prefers the last of equals.
    let best = ranked.rev().max_by_key(|(rank, _)| *rank);
    if let Some((_, index)) = best.filter(|(rank, _)| rank.0 > 0) {
        let (sample, shape) = shaped.swap_remove(index);
        return (sample, shape.evidence());
    }
    let blank = Syntax::new(' ', quote);
    let is_blank = [None, Some(b'\\')].into_iter().any(|escape| {
        let sample = Sample::split(text, blank.with_escape(escape), whole);
        quotes_every_row(&sample)
    });
    if is_blank {
        let sample = split(' ');
        let evidence = Shape::of(&sample, &[]).evidence();
        return (sample, evidence);
    }
    if let Some(found) = names.and_then(|names| split_as_named(text, names, quote, whole)) {
        return found;
    }
    let delimiter = delimiter_of_one_column(&shaped, text, quote, whole);
    let evidence = "no delimiter was found: the file has one column".to_owned();
    (split(delimiter), evidence)
}

/// The text, split at the delimiter with which the most records have a field for each given name,
/// and at least a third of them.
fn split_as_named(
    text: &[u8],
    names: usize,
    quote: Option<u8>,
    whole: bool,
) -> Option<(Sample<'_>, String)> {
    let fitting = |sample: &Sample<'_>| {
        let records = sample.records.iter();
        let fits = |record: &&SampleRecord<'_>| record.width() == names && !record.is_malformed;
        records.filter(fits).count()
    };
    let candidates = DELIMITERS.into_iter().chain([' ']);
    let candidates = candidates.filter(|delimiter| Some(*delimiter) != quote.map(char::from));
    let samples = candidates.map(|delimiter| {
        let sample = Sample::split(text, Syntax::new(delimiter, quote), whole);
        (fitting(&sample), sample)
    });
    // `max_by_key` prefers the last of equals.
    let (fitting, sample) = samples.rev().max_by_key(|(fitting, _)| *fitting)?;
    let records = sample.records.len();
    let is_enough = names > 1 && fitting > 0 && 3 * fitting >= records;
    let evidence =
        format!("{fitting} of the first {records} records have a field for each given name");
    is_enough.then_some((sample, evidence))
}

/// The delimiters that occur in a text.
fn occurring(text: &[u8], quote: Option<u8>) -> Vec<char> {
    let mut delimiters = DELIMITERS.to_vec();
    delimiters.retain(|delimiter| {
        let byte = *delimiter as u8;
        Some(byte) != quote && text.contains(&byte)
    });
    delimiters
}

fn others(occurring: &[char], delimiter: char) -> Vec<char> {
    let others = occurring.iter().filter(|other| **other != delimiter);
    others.copied().collect()
}

/// Whether blanks separate the fields, as R's `write.table` writes them: all rows are even, and
/// every field is quoted or a value. Texts that are not quoted may have blanks.
fn quotes_every_row(sample: &Sample<'_>) -> bool {
    const MIN_ROWS: usize = 2;
    let Some((_, rows)) = sample.records.split_first() else {
        return false;
    };
    let width = most_frequent_width(rows);
    let is_row = |row: &SampleRecord<'_>| {
        let is_quoted = |field: &Field| row.is_quoted(field, sample.syntax);
        let is_value = |field: &Field| Kind::of(&row.text[field.start..field.end]) != Kind::Text;
        row.width() == width
            && row.fields.iter().any(is_quoted)
            && row
                .fields
                .iter()
                .all(|field| is_quoted(field) || is_value(field))
    };
    width > 1 && rows.len() >= MIN_ROWS && rows.iter().all(is_row)
}

/// The delimiter of a file with one column: one that does not occur in the texts, because it would
/// reject their rows. The shapes are those of the delimiters that occur in the file.
fn delimiter_of_one_column(
    shaped: &[(Sample<'_>, Shape)],
    text: &[u8],
    quote: Option<u8>,
    whole: bool,
) -> char {
    let single_records = |delimiter: &char| {
        let mut shaped = shaped.iter();
        match shaped.find(|(sample, _)| sample.syntax.delimiter() == *delimiter) {
            Some((_, shape)) => shape.singles,
            None => {
                let syntax = Syntax::new(*delimiter, quote);
                Sample::split(text, syntax, whole).records.len()
            }
        }
    };
    // `max_by_key` prefers the last of equals.
    let candidates = [';', '|', '\t', ','].into_iter();
    let candidates = candidates.filter(|delimiter| Some(*delimiter) != quote.map(char::from));
    candidates.max_by_key(single_records).unwrap_or(',')
}

/// The delimiter that suits the records better than that of this syntax, if there is one. The quote
/// and the escape character stay the same.
pub(super) fn better_delimiter(text: &[u8], syntax: Syntax, whole: bool) -> Option<char> {
    let mut occurring = occurring(text, syntax.quote());
    occurring.retain(|delimiter| Some(*delimiter as u8) != syntax.escape());
    let ranked = occurring.iter().map(|delimiter| {
        let other = Syntax::new(*delimiter, syntax.quote()).with_escape(syntax.escape());
        let sample = Sample::split(text, other, whole);
        let shape = Shape::of(&sample, &others(&occurring, *delimiter));
        (shape.rank(), *delimiter)
    });
    // `max_by_key` prefers the last of equals.
    let best = ranked.rev().max_by_key(|(rank, _)| *rank);
    let (_, better) = best.filter(|(rank, _)| rank.0 > 0)?;
    (better != syntax.delimiter()).then_some(better)
}

/// What the records of a sample look like when they are split at one delimiter.
#[derive(Debug, Default)]
struct Shape {
    /// The index of the table's first record.
    start: usize,
    /// The number of fields that most records of the table have.
    width: usize,
    /// Records of the table.
    rows: usize,
    /// Records with `width` fields.
    equal_rows: usize,
    /// Fields that are unquoted and contain another delimiter.
    dirty_fields: usize,
    /// First fields of their record that are dirty.
    dirty_first: usize,
    /// Unquoted fields after the first that begin with a blank.
    blank_led: usize,
    /// Fields after the first of their record.
    followers: usize,
    /// Whether the first record has one field.
    first_is_single: bool,
    /// Records with one field.
    singles: usize,
    /// Whether a column of an even table has only numbers, or only times; known only if the first
    /// record has one field.
    has_values: bool,
    /// Whether the records below the first one are numbers if they are not split.
    is_numbers: bool,
    /// Whether the delimiter is a decimal comma in fields that another delimiter separates.
    is_decimal: bool,
    is_semicolon: bool,
}

/// The share of even records, reduced by the dirty fields per record, in millionths. Then whether
/// the first record is split. Then whether the delimiter is a semicolon, or else the first fields
/// are clean, because a list of values rarely stands in the first column. Then the share of
/// followers without a leading blank, in thousandths. Then the width.
type Rank = (usize, bool, usize, usize, usize);

impl Shape {
    /// `others` are the other delimiters that occur in the text.
    fn of(sample: &Sample<'_>, others: &[char]) -> Self {
        let mut shape = Self {
            is_semicolon: sample.syntax.delimiter() == ';',
            first_is_single: sample
                .records
                .first()
                .is_some_and(|first| first.width() == 1),
            ..Self::default()
        };
        let records = without_footer(&sample.records);
        match table(records) {
            Some(table) => (shape.width, shape.start) = (table.width, table.start),
            None => shape.width = most_frequent_width(records),
        }
        for record in &records[shape.start..] {
            shape.rows += 1;
            shape.equal_rows += usize::from(record.width() == shape.width && !record.is_malformed);
            shape.singles += usize::from(record.width() == 1);
            shape.followers += record.width().saturating_sub(1);
            let fields = record.fields.iter().enumerate();
            for (index, field) in fields {
                let is_quoted = record.is_quoted(field, sample.syntax);
                let text = &record.text[field.start..field.end];
                let is_dirty = !is_quoted && !is_clean(text, others);
                // A tab hardly ever stands in a cell.
                let has_tab = is_dirty && others.contains(&'\t') && text.contains(&b'\t');
                shape.dirty_fields += usize::from(is_dirty) + usize::from(has_tab);
                shape.dirty_first += usize::from(is_dirty && index == 0);
                let is_led = index > 0 && !is_quoted && text.starts_with(b" ") && text.len() > 1;
                shape.blank_led += usize::from(is_led);
            }
        }
        let below = records.get(shape.start + 1..).unwrap_or_default();
        shape.has_values =
            shape.first_is_single && shape.is_even() && has_value_column(below, shape.width);
        let mut all_below = records.iter().skip(1);
        shape.is_numbers = sample.syntax.delimiter() == ','
            && shape.first_is_single
            && all_below.all(|row| Kind::of(row.text) == Kind::Number);
        shape.is_decimal = sample.syntax.delimiter() == ',' && has_decimal_commas(records, others);
        shape
    }

    /// Whether all records of the table have its width.
    fn is_even(&self) -> bool {
        self.equal_rows == self.rows
    }

    /// Whether every record of the text, from the first one, belongs to an even table.
    fn is_even_from_first(&self) -> bool {
        self.start == 0 && self.is_even() && !self.is_decimal && self.rank().0 > 0
    }

    fn evidence(&self) -> String {
        let Self {
            equal_rows,
            rows,
            width,
            ..
        } = self;
        format!("{equal_rows} of the first {rows} records have {width} fields")
    }

    fn rank(&self) -> Rank {
        let is_one_column = self.is_prose() || self.is_numbers || self.singles > self.equal_rows;
        if self.width < 2 || is_one_column {
            return (0, false, 0, 0, 0);
        }
        let even = self.equal_rows * 1000 / self.rows.max(1);
        let clean = self.rows * 1000 / (self.rows + self.dirty_fields).max(1);
        let tight = 1000 - self.blank_led * 1000 / self.followers.max(1);
        (
            even * clean,
            !self.first_is_single,
            match self.is_semicolon {
                true => 2,
                false => usize::from(2 * self.dirty_first <= self.rows),
            },
            tight,
            self.width,
        )
    }

    /// Whether the delimiter is punctuation in texts: the first record has none, and a blank
    /// follows nearly all others. A table of three columns with numbers or times is not prose.
    fn is_prose(&self) -> bool {
        let is_table = self.width > 2 && self.has_values;
        self.first_is_single && nearly_all(self.blank_led, self.followers) && !is_table
    }
}

/// Whether most commas stand between digits, and another delimiter stands in each record below the
/// first one.
fn has_decimal_commas(records: &[SampleRecord<'_>], others: &[char]) -> bool {
    let is_everywhere = |other: &char| {
        let byte = *other as u8;
        let mut below = records.iter().skip(1);
        below.all(|record| record.text.contains(&byte))
    };
    if !others.iter().any(is_everywhere) {
        return false;
    }
    let (mut commas, mut decimal) = (0, 0);
    for record in records {
        for at in memchr::memchr_iter(b',', record.text) {
            let before = at.checked_sub(1).and_then(|before| record.text.get(before));
            let mut neighbours = [before, record.text.get(at + 1)].into_iter();
            commas += 1;
            decimal += usize::from(neighbours.all(|byte| byte.is_some_and(u8::is_ascii_digit)));
        }
    }
    2 * decimal > commas
}

/// Whether a column of these even rows has only numbers, or only times.
fn has_value_column(rows: &[SampleRecord<'_>], width: usize) -> bool {
    let is_all = |column: usize, kind: Kind| {
        let mut cells = rows.iter().map(|row| row.cell(column));
        !rows.is_empty() && cells.all(|cell| Kind::of(cell) == kind)
    };
    (0..width).any(|column| is_all(column, Kind::Number) || is_all(column, Kind::Time))
}

/// Whether an unquoted field contains no other delimiter. A comma or a semicolon before a blank is
/// punctuation, and a number may have commas.
fn is_clean(text: &[u8], others: &[char]) -> bool {
    let splits = |other: &char| {
        let byte = *other as u8;
        let is_punctuation = matches!(byte, b',' | b';');
        let mut at = memchr::memchr_iter(byte, text);
        at.any(|at| !is_punctuation || text.get(at + 1) != Some(&b' '))
    };
    !others.iter().any(splits) || Kind::of(text) == Kind::Number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_comma_needs_one_other_delimiter_in_every_row() {
        let is_decimal = |text: &str| {
            let sample = Sample::split(text.as_bytes(), Syntax::new(',', Some(b'"')), true);
            has_decimal_commas(&sample.records, &[';', '|'])
        };
        assert!(is_decimal("a;b\n1,5;2\n2,5;3\n"));
        assert!(is_decimal("a|b\n1,5|2\n2,5|3\n"));
        assert!(!is_decimal("a,b\n1,5;2\n2,5\n3,5|4\n"));
    }
}
