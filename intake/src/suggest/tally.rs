//! Counts for one column how many of its cells fit each candidate.

use super::candidates::{Candidates, Set, has_leading_zero, members, trimmed};

/// The words that mean NULL in a column whose other cells have a type. None of them is a value of
/// a type other than text.
pub(super) const NULL_WORDS: [&str; 6] = ["NA", "N/A", "NULL", "null", "-", "\\N"];

/// After each so many values, the candidates that fewer than half of the values fit are given up.
const CHECK_EVERY: u64 = 1024;

/// How many cells that do not fit are shown, and how much of each.
const MAX_MISFITS: usize = 5;
const MAX_CHARS: usize = 100;

/// The most cells that are kept for all candidates of a column.
const MAX_KEPT: usize = 40;

/// A cell that does not fit some of the candidates.
#[derive(Debug)]
struct Misfit {
    text: String,
    candidates: Set,
}

/// The counts of one column.
#[derive(Debug)]
pub(super) struct Tally {
    empty: u64,
    /// How often each of `NULL_WORDS` occurs.
    words: [u64; NULL_WORDS.len()],
    /// The cells that are neither empty nor one of these words.
    values: u64,
    /// Short numbers without marks. They fit every candidate for numbers, and most cells of most
    /// files are such numbers, so they are counted once.
    plain: u64,
    /// The other cells that fit each candidate.
    fits: Vec<u64>,
    numbers: Set,
    /// The candidates that are still tried.
    tried: Set,
    has_leading_zero: bool,
    /// Whether a number has this mark.
    has_dot: bool,
    has_comma: bool,
    has_blank: bool,
    misfits: Vec<Misfit>,
    /// The candidates that have as many misfits as are shown.
    have_enough: Set,
}

impl Tally {
    pub(super) fn new(candidates: &Candidates) -> Self {
        Self {
            empty: 0,
            words: [0; NULL_WORDS.len()],
            values: 0,
            plain: 0,
            fits: vec![0; candidates.len()],
            numbers: candidates.numbers,
            tried: candidates.every(),
            has_leading_zero: false,
            has_dot: false,
            has_comma: false,
            has_blank: false,
            misfits: Vec::new(),
            have_enough: 0,
        }
    }

    /// Counts a cell. Returns whether it is a value. `text` is a buffer.
    pub(super) fn add(&mut self, cell: &str, candidates: &Candidates, text: &mut String) -> bool {
        if cell.is_empty() {
            self.empty += 1;
            return false;
        }
        if let Some(word) = NULL_WORDS.iter().position(|word| *word == cell) {
            self.words[word] += 1;
            return false;
        }
        self.values += 1;
        if self.tried == 0 {
            return true;
        }
        let fitting = match !has_leading_zero(cell) && candidates.is_plain(cell, text) {
            true => {
                self.plain += 1;
                self.numbers
            }
            false => self.count(cell, candidates.fitting(cell, self.tried, text)),
        };
        let misfits = self.tried & !fitting;
        if misfits & !self.have_enough != 0 {
            self.keep(cell, misfits);
        }
        if self.values.is_multiple_of(CHECK_EVERY) {
            self.give_up();
        }
        true
    }

    /// Counts a cell for the candidates that it fits, and returns them. A number with a leading
    /// zero is an identifier, and then no candidate for numbers is tried any more.
    fn count(&mut self, cell: &str, fitting: Set) -> Set {
        let is_number = fitting & self.numbers != 0;
        if is_number && has_leading_zero(cell) {
            self.has_leading_zero = true;
            self.tried &= !self.numbers;
        } else if is_number {
            let number = trimmed(cell);
            self.has_dot |= number.contains('.');
            self.has_comma |= number.contains(',');
            self.has_blank |= number.contains([' ', '\u{a0}', '\u{202f}']);
        }
        let fitting = fitting & self.tried;
        for index in members(fitting) {
            self.fits[index] += 1;
        }
        fitting
    }

    /// Keeps a cell that does not fit these candidates.
    fn keep(&mut self, cell: &str, candidates: Set) {
        let end = cell.char_indices().nth(MAX_CHARS);
        let shown = end.map_or(cell, |(end, _)| &cell[..end]);
        let is_known = self.misfits.iter().any(|misfit| misfit.text == shown);
        if is_known || self.misfits.len() >= MAX_KEPT {
            return;
        }
        self.misfits.push(Misfit {
            text: shown.to_owned(),
            candidates,
        });
        let complete = members(candidates).filter(|index| self.kept(*index).count() >= MAX_MISFITS);
        let complete = complete.fold(0, |set: Set, index| set | (1 << index));
        self.have_enough |= complete;
    }

    fn kept(&self, candidate: usize) -> impl Iterator<Item = &Misfit> {
        let misfits = self.misfits.iter();
        misfits.filter(move |misfit| (misfit.candidates >> candidate) & 1 == 1)
    }

    fn give_up(&mut self) {
        let few = members(self.tried).filter(|index| self.fits(*index) < self.values / 2);
        let few = few.fold(0, |set: Set, index| set | (1 << index));
        self.tried &= !few;
        let tried = self.tried;
        self.misfits.retain(|misfit| misfit.candidates & tried != 0);
    }

    /// The number of all cells.
    pub(super) fn cells(&self) -> u64 {
        self.empty + self.words.iter().sum::<u64>() + self.values
    }

    /// The number of cells that are neither empty nor a word for NULL.
    pub(super) fn values(&self) -> u64 {
        self.values
    }

    /// The number of cells that are NULL with this list of words.
    pub(super) fn nulls(&self, words: &[&str]) -> u64 {
        let words = words.iter().map(|word| self.count_of(word));
        self.empty + words.sum::<u64>()
    }

    /// How often a word for NULL occurs. The empty cell is not a word.
    pub(super) fn count_of(&self, word: &str) -> u64 {
        let position = NULL_WORDS.iter().position(|known| *known == word);
        position.map_or(0, |position| self.words[position])
    }

    /// The number of values that fit a candidate.
    pub(super) fn fits(&self, candidate: usize) -> u64 {
        let plain = match (self.numbers >> candidate) & 1 {
            1 => self.plain,
            _ => 0,
        };
        self.fits[candidate] + plain
    }

    /// The number of values that do not fit a candidate.
    pub(super) fn misfits(&self, candidate: usize) -> u64 {
        self.values - self.fits(candidate)
    }

    /// Some distinct cells that do not fit a candidate.
    pub(super) fn misfits_shown(&self, candidate: usize) -> Vec<String> {
        let shown = self.kept(candidate).take(MAX_MISFITS);
        shown.map(|misfit| misfit.text.clone()).collect()
    }

    /// The candidates that were tried on every value.
    pub(super) fn tried(&self) -> Set {
        self.tried
    }

    /// Whether the column has a number that begins with a zero.
    pub(super) fn has_leading_zero(&self) -> bool {
        self.has_leading_zero
    }

    /// Whether a number in the column has this mark.
    pub(super) fn has_mark(&self, mark: char) -> bool {
        match mark {
            '.' => self.has_dot,
            ',' => self.has_comma,
            _ => self.has_blank,
        }
    }
}
