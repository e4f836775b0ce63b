//! Detects the encoding and the delimiter from a file's first bytes, with the evidence for
//! each.

use encoding_rs::{Encoding, UTF_8};

use super::syntax::{Field, Fields, Scan, Syntax, line_end};

/// The delimiters that are tried. The first one wins a tie.
const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];

/// How many records are examined.
const SAMPLE_RECORDS: usize = 1000;

/// A file is UTF-8 with faults if it has at least this many valid sequences per invalid one.
const VALID_PER_INVALID: usize = 10;

/// A decision, and the evidence for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision<T> {
    pub(super) value: T,
    pub(super) evidence: String,
}

pub(super) fn decision<T>(value: T, evidence: impl Into<String>) -> Decision<T> {
    Decision {
        value,
        evidence: evidence.into(),
    }
}

/// Detects the encoding of a file without a byte order mark. Unless the sample is the `whole`
/// file, it may end in the middle of a character.
pub(super) fn encoding(sample: &[u8], whole: bool) -> Decision<&'static Encoding> {
    if sample.is_ascii() {
        return decision(UTF_8, format!("the first {} bytes are ASCII", sample.len()));
    }
    let (mut valid, mut invalid) = (0, 0);
    let mut chunks = sample.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        valid += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        let is_cut = !whole && chunks.peek().is_none();
        invalid += usize::from(!chunk.invalid().is_empty() && !is_cut);
    }
    if valid >= VALID_PER_INVALID * invalid {
        let evidence = format!(
            "{valid} valid and {invalid} invalid UTF-8 sequences at the beginning of the file"
        );
        return decision(UTF_8, evidence);
    }
    let guess = guess(sample);
    let evidence = format!(
        "{invalid} of {} non-ASCII sequences are not UTF-8; their frequencies suggest {}",
        valid + invalid,
        guess.name()
    );
    decision(guess, evidence)
}

/// The most likely encoding of bytes that are not UTF-8.
pub(super) fn guess(bytes: &[u8]) -> &'static Encoding {
    use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(bytes, true);
    detector.guess(None, Utf8Detection::Deny)
}

/// The encoding's label, as the API shows it.
pub(super) fn label(encoding: &'static Encoding) -> String {
    encoding.name().to_ascii_lowercase()
}

/// What the records of a sample look like when they are split at one delimiter.
#[derive(Debug, Default)]
struct Shape {
    /// Fields of the first record.
    width: usize,
    /// Records after the first.
    rows: usize,
    /// Rows with as many fields as the first record.
    equal_rows: usize,
    fields: usize,
    /// Fields that are quoted or contain no other delimiter.
    clean_fields: usize,
}

impl Shape {
    /// The share of rows as wide as the first record, times the share of clean fields, in
    /// millionths.
    fn score(&self) -> usize {
        if self.width < 2 {
            return 0;
        }
        // The first record counts as a row of the right width.
        let even = (self.equal_rows + 1) * 1000 / (self.rows + 1);
        even * (self.clean_fields * 1000 / self.fields.max(1))
    }
}

/// Detects the delimiter: the one with which most rows are as wide as the first record, and the
/// fewest fields contain another delimiter.
pub(super) fn delimiter(text: &[u8], quote: Option<u8>, whole: bool) -> Decision<char> {
    let quote_character = quote.map(char::from);
    let candidates = DELIMITERS.into_iter();
    let candidates = candidates.filter(|delimiter| Some(*delimiter) != quote_character);
    let mut best = (',', Shape::default());
    for delimiter in candidates.clone() {
        let shape = shape(text, delimiter, quote, whole);
        let rank = |shape: &Shape| (shape.score(), shape.width);
        if rank(&shape) > rank(&best.1) {
            best = (delimiter, shape);
        }
    }
    let (delimiter, shape) = best;
    if shape.score() == 0 {
        let any = candidates.clone().next().unwrap_or(',');
        return decision(any, "no delimiter was found: the file has one column");
    }
    let evidence = format!(
        "{} of the first {} rows have {} fields like the first record",
        shape.equal_rows, shape.rows, shape.width
    );
    decision(delimiter, evidence)
}

fn shape(text: &[u8], delimiter: char, quote: Option<u8>, whole: bool) -> Shape {
    let mut shape = Shape::default();
    for_each_record(
        text,
        Syntax::new(delimiter, quote),
        whole,
        |record, fields| {
            shape.fields += fields.len();
            shape.clean_fields += fields
                .iter()
                .filter(|field| is_clean(record, field, delimiter, quote))
                .count();
            if shape.width == 0 {
                shape.width = fields.len();
            } else {
                shape.rows += 1;
                shape.equal_rows += usize::from(fields.len() == shape.width);
            }
        },
    );
    shape
}

fn is_clean(record: &[u8], field: &Field, delimiter: char, quote: Option<u8>) -> bool {
    let is_quoted = field.start > 0 && record.get(field.start - 1).copied() == quote;
    let text = &record[field.start..field.end];
    let others = DELIMITERS.iter().filter(|other| **other != delimiter);
    is_quoted
        || is_decimal(text)
        || others
            .into_iter()
            .all(|other| !text.contains(&(*other as u8)))
}

/// Whether a field is a number that may have a decimal comma.
fn is_decimal(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.,".contains(byte);
    text.iter().all(is_part) && text.iter().filter(|byte| **byte == b',').count() <= 1
}

/// Visits the records of a sample, without blank lines. An incomplete record at the end is
/// visited only if it is the first. Of a line with a stray quote, only the fields before that
/// quote are visited.
pub(super) fn for_each_record(
    text: &[u8],
    syntax: Syntax,
    whole: bool,
    mut visit: impl FnMut(&[u8], &[Field]),
) {
    let mut rest = text;
    // A sample is small.
    let mut fields = Fields::new(usize::MAX);
    for index in 0..SAMPLE_RECORDS {
        while let [b'\n' | b'\r', after @ ..] = rest {
            rest = after;
        }
        if rest.is_empty() {
            return;
        }
        match syntax.scan(rest, whole, &mut fields) {
            Scan::Whole(extent) => {
                visit(&rest[..extent.content], fields.kept());
                rest = &rest[extent.next..];
            }
            Scan::Stray { open_quote, .. } => {
                let Some((content, next)) = line_end(&rest[open_quote..]) else {
                    return;
                };
                visit(&rest[..open_quote + content], fields.kept());
                rest = &rest[open_quote + next..];
            }
            Scan::Cut { .. } => {
                if index == 0 {
                    visit(rest, fields.kept());
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(text: &str) -> char {
        delimiter(text.as_bytes(), Some(b'"'), true).value
    }

    #[test]
    fn the_delimiter_that_makes_rows_of_equal_width_is_detected() {
        let cases = [
            ("a,b,c\n1,2,3\n", ','),
            ("a;b;c\n1,5;2,5;3\n2,5;3,5;4\n", ';'),
            ("1,5;2,3;3,1\n1,6;2,4;3,2\n", ';'),
            (
                "name;city, state;age\nBob;Austin, TX;5\nEve;Salem, OR;6\n",
                ';',
            ),
            ("a\tb\n\"x,y\"\t1\n\"z,y\"\t2\n", '\t'),
            ("a|b|c\nx, y|2|3\nx|y, z|3\n", '|'),
            ("id,text\n1,\"a; b; c\"\n2,\"d\ne;f\"\n", ','),
            ("a,b\n1,2\n1,2,3\n1\n1,2\n", ','),
            ("a;b;c\n", ';'),
            ("a;b;c", ';'),
            ("text\nhello, world\nbye\n", ','),
            ("", ','),
        ];
        for (text, delimiter) in cases {
            assert_eq!(detected(text), delimiter, "{text}");
        }
    }

    #[test]
    fn ascii_and_mostly_valid_samples_are_utf8_and_others_are_guessed() {
        let of = |bytes: &[u8]| encoding(bytes, true).value.name();
        assert_eq!(of(b"plain"), "UTF-8");
        assert_eq!(of("née à Besançon".as_bytes()), "UTF-8");
        let mostly = ["é".repeat(20).as_bytes(), b"\xe9,"].concat();
        assert_eq!(of(&mostly), "UTF-8");
        let mixed = ["é".repeat(5).as_bytes(), b",\xe9,"].concat();
        assert_ne!(of(&mixed), "UTF-8");
        assert_eq!(
            of(b"n\xe9e \xe0 Besan\xe7on, d\xe9j\xe0 vu, 5 \x80"),
            "windows-1252"
        );
        let (japanese, _, _) =
            encoding_rs::SHIFT_JIS.encode("東京都,大阪府,北海道,名古屋市のデータ");
        assert_eq!(of(&japanese), "Shift_JIS");
    }

    #[test]
    fn a_sample_may_end_in_the_middle_of_a_character() {
        let text = "é".as_bytes();
        assert_eq!(encoding(&[b"a", &text[..1]].concat(), false).value, UTF_8);
        assert_ne!(encoding(&[b"a", &text[..1]].concat(), true).value, UTF_8);
    }
}
