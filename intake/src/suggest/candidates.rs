//! The types that are tried for a column, with the ways in which their values may be written.
//!
//! Each candidate has the rules with which an import converts cells, so that a definition takes
//! every cell that fits. Some candidates take fewer cells than the import: `1` is not tried as a
//! boolean, and a number with an exponent only as a float.

use std::iter;

use carga_common::dataset::{ColumnDefinition, ColumnType, Definition, Mode};

use crate::typed::{ColumnRules, canonical};

/// A set of candidates. Bit n is the candidate with the index n.
pub(super) type Set = u64;

/// The types of numbers, the strictest first.
const NUMBERS: [ColumnType; 3] = [ColumnType::Integer, ColumnType::Numeric, ColumnType::Float];

/// The decimal mark and the mark between thousands.
const MARKS: [(char, Option<char>); 4] = [
    ('.', None),
    ('.', Some(',')),
    (',', Some('.')),
    (',', Some(' ')),
];

/// The words for true and for false. Those of the first pair are among the usual ones of a
/// boolean, so a definition does not declare them.
const WORDS: [(&[&str], &[&str]); 9] = [
    (&["true", "t", "yes"], &["false", "f", "no"]),
    (&["sim"], &["não", "nao"]),
    (&["verdadeiro"], &["falso"]),
    (&["sí", "si", "sì"], &["no"]),
    (&["verdadero"], &["falso"]),
    (&["oui"], &["non"]),
    (&["vrai"], &["faux"]),
    (&["ja"], &["nein", "nee"]),
    (&["wahr"], &["falsch"]),
];

/// No word above has more bytes.
const LONGEST_WORD: usize = 10;

/// The formats of dates besides `YYYY-MM-DD`.
const DATE_FORMATS: [&str; 5] = ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d"];

/// The most digits of a number that fits every type of number.
const PLAIN_DIGITS: usize = 18;

/// A type, and how its values are written.
#[derive(Debug)]
pub(super) struct Candidate {
    /// A column of this type, without a name.
    pub(super) column: ColumnDefinition,
    rules: ColumnRules,
    /// The decimal mark of a number, also of an integer with marks between thousands.
    decimal: Option<char>,
    /// The only cells that fit a boolean.
    words: Vec<&'static str>,
}

impl Candidate {
    fn takes(&self, cell: &str, value: &str, text: &mut String) -> bool {
        let is_word = |word: &&str| value.chars().flat_map(char::to_lowercase).eq(word.chars());
        if self.column.kind == ColumnType::Boolean && !self.words.iter().any(is_word) {
            return false;
        }
        text.clear();
        canonical(&self.rules, cell, text).is_ok()
    }
}

/// All candidates, the strictest first, and sets of them.
#[derive(Debug)]
pub(super) struct Candidates {
    all: Vec<Candidate>,
    pub(super) numbers: Set,
    /// The numbers whose decimal mark is a comma.
    pub(super) comma_decimals: Set,
    /// The numbers that may have this mark.
    dots: Set,
    commas: Set,
    pub(super) blanks: Set,
    floats: Set,
    booleans: Set,
    dates: Set,
    /// The dates with slashes, of which two differ only in the order of day and month.
    pub(super) slashed_dates: Set,
    timestamps: Set,
    uuids: Set,
    jsons: Set,
}

impl Candidates {
    pub(super) fn new() -> Self {
        let all = all();
        let set = |is_in: &dyn Fn(&Candidate) -> bool| -> Set {
            let members = all.iter().enumerate().filter(|(_, one)| is_in(one));
            members.fold(0, |set, (index, _)| set | (1 << index))
        };
        let of_kind = |kind: ColumnType| set(&|one| one.column.kind == kind);
        let with_mark = |mark: char| {
            set(&|one| {
                let has_decimal = one.column.kind != ColumnType::Integer;
                one.column.thousands == Some(mark) || has_decimal && one.decimal == Some(mark)
            })
        };
        let has_slashes = |one: &Candidate| {
            let format = one.column.format.as_deref();
            format.is_some_and(|format| format.contains('/'))
        };
        Self {
            numbers: set(&|one| one.decimal.is_some()),
            comma_decimals: set(&|one| one.decimal == Some(',')),
            dots: with_mark('.'),
            commas: with_mark(','),
            blanks: with_mark(' '),
            floats: of_kind(ColumnType::Float),
            booleans: of_kind(ColumnType::Boolean),
            dates: of_kind(ColumnType::Date),
            slashed_dates: set(&has_slashes),
            timestamps: of_kind(ColumnType::Timestamp),
            uuids: of_kind(ColumnType::Uuid),
            jsons: of_kind(ColumnType::Json),
            all,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The set of all candidates.
    pub(super) fn every(&self) -> Set {
        (1 << self.all.len()) - 1
    }

    pub(super) fn get(&self, index: usize) -> &Candidate {
        &self.all[index]
    }

    /// Whether a cell is a short number without marks, which fits every candidate for numbers and
    /// no other one.
    pub(super) fn is_plain(&self, cell: &str, text: &mut String) -> bool {
        let digits = without_sign(trimmed(cell)).as_bytes();
        (1..=PLAIN_DIGITS).contains(&digits.len())
            && digits.iter().all(u8::is_ascii_digit)
            && self.all[0].takes(cell, cell, text)
    }

    /// Which of these candidates a cell fits.
    pub(super) fn fitting(&self, cell: &str, tried: Set, text: &mut String) -> Set {
        let value = trimmed(cell);
        let possible = members(tried & self.possible(value));
        let fitting = possible.filter(|index| self.all[*index].takes(cell, value, text));
        fitting.fold(0, |set, index| set | (1 << index))
    }

    /// The candidates that a cell may fit by its length and characters. The other ones are not
    /// tried, because a converter allocates a message for a cell that does not fit.
    fn possible(&self, value: &str) -> Set {
        let bytes = value.as_bytes();
        let Some(first) = bytes.first() else {
            return 0;
        };
        let mut possible = match first {
            b'0'..=b'9' => self.possible_numbers(value) | self.possible_times(bytes),
            b'+' | b'-' | b'.' | b',' => self.possible_numbers(value),
            b'{' | b'[' => self.jsons,
            _ if bytes.len() <= LONGEST_WORD => self.booleans,
            _ => 0,
        };
        let may_be_uuid = first.is_ascii_hexdigit() || *first == b'{';
        if may_be_uuid && matches!(bytes.len(), 32 | 34 | 36 | 38) {
            possible |= self.uuids;
        }
        possible
    }

    fn possible_numbers(&self, value: &str) -> Set {
        let mut possible = self.numbers;
        let mut may_be_sign = true;
        for character in value.chars() {
            let is_begin = std::mem::replace(&mut may_be_sign, false);
            match character {
                '0'..='9' => {}
                '+' | '-' if is_begin => {}
                'e' | 'E' => {
                    possible &= self.floats;
                    may_be_sign = true;
                }
                '.' => possible &= self.dots,
                ',' => possible &= self.commas,
                ' ' | '\u{a0}' | '\u{202f}' => possible &= self.blanks,
                _ => return 0,
            }
        }
        possible
    }

    fn possible_times(&self, bytes: &[u8]) -> Set {
        let timestamps = match bytes.get(4) {
            Some(b'-') => self.timestamps,
            _ => 0,
        };
        match bytes.len() {
            8..=10 => timestamps | self.dates,
            11.. => timestamps,
            _ => 0,
        }
    }
}

/// The indexes in a set.
pub(super) fn members(mut set: Set) -> impl Iterator<Item = usize> {
    iter::from_fn(move || {
        let index = set.trailing_zeros() as usize;
        (set != 0).then(|| {
            set &= set - 1;
            index
        })
    })
}

/// A cell without the blanks that converters ignore.
pub(super) fn trimmed(cell: &str) -> &str {
    cell.trim_matches([' ', '\t'])
}

/// Whether a number begins with a zero that a value of a number's type would lose.
pub(super) fn has_leading_zero(cell: &str) -> bool {
    let digits = without_sign(trimmed(cell)).as_bytes();
    matches!(digits, [b'0', second, ..] if second.is_ascii_digit())
}

fn without_sign(value: &str) -> &str {
    value.strip_prefix(['+', '-']).unwrap_or(value)
}

/// A column of this type, without a name and with the default rules.
pub(super) fn column(kind: ColumnType) -> ColumnDefinition {
    ColumnDefinition {
        name: String::new(),
        kind,
        required: false,
        from: Vec::new(),
        null: None,
        decimal: None,
        thousands: None,
        currency: Vec::new(),
        format: None,
        r#true: Vec::new(),
        r#false: Vec::new(),
    }
}

fn all() -> Vec<Candidate> {
    let mut all = Vec::new();
    for kind in NUMBERS {
        all.extend(MARKS.map(|(decimal, thousands)| number(kind, decimal, thousands)));
    }
    for (index, (truths, falsehoods)) in WORDS.into_iter().enumerate() {
        let declared = |words: &[&str]| match index {
            0 => Vec::new(),
            _ => words.iter().map(|word| (*word).to_owned()).collect(),
        };
        let boolean = ColumnDefinition {
            r#true: declared(truths),
            r#false: declared(falsehoods),
            ..column(ColumnType::Boolean)
        };
        let mut boolean = candidate(boolean);
        boolean.words = [truths, falsehoods].concat();
        all.push(boolean);
    }
    all.push(candidate(column(ColumnType::Date)));
    for format in DATE_FORMATS {
        let format = Some(format.to_owned());
        let date = column(ColumnType::Date);
        all.push(candidate(ColumnDefinition { format, ..date }));
    }
    for kind in [ColumnType::Timestamp, ColumnType::Uuid, ColumnType::Json] {
        all.push(candidate(column(kind)));
    }
    all
}

fn number(kind: ColumnType, decimal: char, thousands: Option<char>) -> Candidate {
    let is_declared = |mark: &char| *mark != '.' && kind != ColumnType::Integer;
    let column = ColumnDefinition {
        decimal: Some(decimal).filter(is_declared),
        thousands,
        ..column(kind)
    };
    let mut number = candidate(column);
    number.decimal = Some(decimal);
    number
}

fn candidate(column: ColumnDefinition) -> Candidate {
    let definition = Definition {
        columns: Vec::new(),
        key: Vec::new(),
        mode: Mode::Append,
        null: Vec::new(),
        table: None,
    };
    Candidate {
        rules: ColumnRules::new(&definition, &column),
        column,
        decimal: None,
        words: Vec::new(),
    }
}
