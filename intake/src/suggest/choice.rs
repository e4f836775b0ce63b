//! Chooses the type of a column from its counts.

use carga_common::dataset::{ColumnDefinition, ColumnType};

use super::candidates::{Candidates, Set, column, members};
use super::tally::Tally;

/// A column with cells that do not fit its type needs so many cells that do.
const MIN_FITS: u64 = 100;

/// The type of a column.
#[derive(Debug)]
pub(super) struct Choice {
    /// The candidate; `None` for text.
    pub(super) candidate: Option<usize>,
    /// The column of the definition, without its name.
    pub(super) column: ColumnDefinition,
    /// The explanation, for people.
    pub(super) why: String,
}

impl Choice {
    fn text(why: &str) -> Self {
        Self {
            candidate: None,
            column: column(ColumnType::Text),
            why: why.to_owned(),
        }
    }
}

/// The candidate with the fewest cells that do not fit, and of several such candidates the
/// strictest one. Text if there is none, or if the cells could be read in two ways.
pub(super) fn choose(tally: &Tally, candidates: &Candidates) -> Choice {
    if tally.values() == 0 {
        return Choice::text("the column has no value");
    }
    let eligible = eligible(tally, candidates);
    let Some(best) = best(tally, eligible) else {
        return Choice::text(match tally.has_leading_zero() {
            true => "a number begins with a zero, which a type of numbers would not keep",
            false => "no other type fits at least 99 % of the cells with a value",
        });
    };
    match ambiguity(tally, candidates, best, eligible) {
        Some(why) => Choice::text(why),
        None => chosen(tally, candidates, best),
    }
}

/// The candidates that may be proposed.
fn eligible(tally: &Tally, candidates: &Candidates) -> Set {
    let mut eligible = tally.tried();
    // Blanks between digits are only a mark if a decimal comma shows that the cells are numbers.
    if !tally.has_mark(',') {
        eligible &= !candidates.blanks;
    }
    let fitting = members(eligible).filter(|index| {
        let (fits, misfits) = (tally.fits(*index), tally.misfits(*index));
        misfits == 0 || fits >= MIN_FITS && misfits.saturating_mul(100) <= tally.values()
    });
    fitting.fold(0, |set, index| set | (1 << index))
}

/// The candidate with the fewest misfits. The first of several is the strictest.
fn best(tally: &Tally, eligible: Set) -> Option<usize> {
    members(eligible).min_by_key(|index| tally.misfits(*index))
}

/// Why the cells could as well be read in another way.
fn ambiguity(
    tally: &Tally,
    candidates: &Candidates,
    best: usize,
    eligible: Set,
) -> Option<&'static str> {
    let bit: Set = 1 << best;
    let is_as_good = |rival: usize| tally.misfits(rival) == tally.misfits(best);
    if candidates.slashed_dates & bit != 0 {
        let mut rivals = members(eligible & candidates.slashed_dates & !bit);
        // Days with faults say nothing certain about the other days.
        let is_ambiguous = rivals.any(|rival| is_as_good(rival) || tally.misfits(best) > 0);
        return is_ambiguous.then_some(
            "both `%d/%m/%Y` and `%m/%d/%Y` fit, and nothing says which number is the month; if you know it, declare a date with that format",
        );
    }
    let has_marks = tally.has_mark('.') || tally.has_mark(',');
    if candidates.numbers & bit == 0 || !has_marks {
        return None;
    }
    let rivals = match candidates.comma_decimals & bit {
        0 => candidates.comma_decimals,
        _ => candidates.numbers & !candidates.comma_decimals,
    };
    let is_ambiguous = members(eligible & rivals).any(is_as_good);
    is_ambiguous.then_some(
        "the mark in the numbers may be the decimal mark or stand between thousands; if you know it, declare a numeric with `decimal` or `thousands`",
    )
}

fn chosen(tally: &Tally, candidates: &Candidates, best: usize) -> Choice {
    let mut column = candidates.get(best).column.clone();
    // Without the mark in any number, the rule would say nothing about the file.
    column.thousands = column.thousands.filter(|mark| tally.has_mark(*mark));
    let (values, misfits) = (tally.values(), tally.misfits(best));
    let mut why = match misfits {
        0 => format!("all {values} cells with a value are of this type"),
        _ => format!(
            "{misfits} of {values} cells with a value are not of this type, which is at most 1 %"
        ),
    };
    if let Some(mark) = column.decimal {
        why.push_str(&format!("; the decimal mark is `{mark}`"));
    }
    if let Some(mark) = column.thousands {
        why.push_str(&format!("; `{mark}` stands between thousands"));
    }
    if let Some(format) = &column.format {
        why.push_str(&format!("; the days are written as `{format}`"));
    }
    Choice {
        candidate: Some(best),
        column,
        why,
    }
}
