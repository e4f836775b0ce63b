//! Finds the name that a mistyped name probably means.
//!
//! The time is limited, because files and definitions may have many long names: only the first
//! names that are not too long are compared.

use std::mem;

/// The most letters in which two names may differ.
const MAX_DISTANCE: usize = 3;

/// The most letters of a name that is compared.
const MAX_LETTERS: usize = 64;

/// The most names that are compared with one name.
const MAX_CANDIDATES: usize = 2000;

/// The names that a mistyped name may mean.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    /// Each name with the letters of its folded form.
    names: Vec<(&'a str, Vec<char>)>,
}

impl<'a> Candidates<'a> {
    /// Keeps the first names that are not too long. Each name comes with its folded form.
    pub(super) fn new<'f>(names: impl Iterator<Item = (&'a str, &'f str)>) -> Self {
        let names = names.filter_map(|(name, folded)| Some((name, letters(folded)?)));
        Self {
            names: names.take(MAX_CANDIDATES).collect(),
        }
    }

    /// The name that is nearest to this folded name, if it differs in about one letter of three at
    /// most. Case, accents, blanks and punctuation do not count.
    pub(super) fn nearest(&self, folded: &str) -> Option<&'a str> {
        let letters = letters(folded)?;
        let names = self.names.iter();
        let distances = names.filter_map(|(name, others)| {
            let distance = distance(&letters, others)?;
            Some((distance, *name))
        });
        let nearest = distances.min_by_key(|(distance, _)| *distance);
        nearest.map(|(_, name)| name)
    }
}

/// The letters of a folded name; `None` if there are too many.
fn letters(folded: &str) -> Option<Vec<char>> {
    let letters: Vec<char> = folded.chars().take(MAX_LETTERS + 1).collect();
    (letters.len() <= MAX_LETTERS).then_some(letters)
}

/// The number of letters to add, remove or replace in one name to get the other; `None` if there
/// are too many of them for names of this length.
fn distance(one: &[char], other: &[char]) -> Option<usize> {
    let (shorter, longer) = match one.len() < other.len() {
        true => (one, other),
        false => (other, one),
    };
    let max = (longer.len() / 3).clamp(1, MAX_DISTANCE);
    // Two names of one letter have nothing in common.
    let max = max.min(shorter.len().saturating_sub(1));
    if longer.len() - shorter.len() > max {
        return None;
    }
    // Levenshtein's algorithm: `distances[n]` is the distance from the letters of the longer name
    // so far to the first `n` letters of the shorter name. It is calculated only if it can be `max`
    // or less, that is if `n` and the number of letters so far differ by at most `max`.
    let far = max + 1;
    let mut distances: Vec<usize> = (0..=shorter.len()).map(|n| n.min(far)).collect();
    for (length, letter) in longer.iter().enumerate() {
        let first = length.saturating_sub(max);
        let end = shorter.len().min(length + max + 1);
        let before_first = if first == 0 { length + 1 } else { far };
        let mut diagonal = mem::replace(&mut distances[first], before_first);
        for (at, other) in shorter.iter().enumerate().take(end).skip(first) {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = distances[at + 1];
            let changed = diagonal.min(distances[at]) + 1;
            distances[at + 1] = replaced.min(changed);
        }
        let mut near = distances[first..=end].iter();
        if near.all(|distance| *distance > max) {
            return None;
        }
    }
    let distance = distances.last().copied();
    distance.filter(|distance| *distance <= max)
}

#[cfg(test)]
mod tests {
    use carga_common::dataset::folded_name;
    use proptest::prelude::*;

    use super::*;

    fn found<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
        let folded: Vec<String> = names.iter().map(|name| folded_name(name)).collect();
        let folded = folded.iter().map(String::as_str);
        let candidates = Candidates::new(names.iter().copied().zip(folded));
        candidates.nearest(&folded_name(name))
    }

    #[test]
    fn a_mistyped_name_is_near_and_another_word_is_not() {
        let names = ["price", "quantity", "sold_on", "id"];
        assert_eq!(found("prise", &names), Some("price"));
        assert_eq!(found("PRICES", &names), Some("price"));
        assert_eq!(found("quamtixy", &names), Some("quantity"));
        assert_eq!(found("Sold at", &names), Some("sold_on"));
        assert_eq!(found("idx", &names), Some("id"));
        for far in ["pride of", "no", "x", "", "column_1"] {
            assert_eq!(found(far, &names), None, "{far}");
        }
        assert_eq!(found("a", &["b", ""]), None);
    }

    #[test]
    fn of_several_near_names_the_nearest_is_found() {
        let amounts = ["amount_12x", "amount_3"];
        assert_eq!(found("amount_2", &amounts), Some("amount_3"));
        assert_eq!(found("grxy", &["grey", "gray"]), Some("grey"));
    }

    #[test]
    fn only_the_first_2000_names_of_at_most_64_letters_are_compared() {
        let long = "x".repeat(64);
        let longer = "x".repeat(65);
        let near = format!("y{}", &long[1..]);
        assert_eq!(found(&near, &[&longer, &long]), Some(long.as_str()));
        assert_eq!(found(&format!("{near}x"), &[&longer, &long]), None);
        let mut names = vec!["price"; 2000];
        names.push("quantity");
        assert_eq!(found("quantitx", &names), None);
        assert_eq!(found("quantitx", &names[1..]), Some("quantity"));
    }

    /// The distance by its definition.
    fn levenshtein(one: &[char], other: &[char]) -> usize {
        match (one, other) {
            ([], rest) | (rest, []) => rest.len(),
            ([first, ones @ ..], [second, others @ ..]) => {
                let replaced = levenshtein(ones, others) + usize::from(first != second);
                let removed = levenshtein(ones, other).min(levenshtein(one, others)) + 1;
                replaced.min(removed)
            }
        }
    }

    proptest! {
        #[test]
        fn the_distance_is_that_of_levenshtein_up_to_its_maximum(one in "[abc]{1,7}", other in "[abc]{1,7}") {
            let (one, other) = (one.chars().collect::<Vec<_>>(), other.chars().collect::<Vec<_>>());
            let max = (one.len().max(other.len()) / 3).clamp(1, MAX_DISTANCE);
            let max = max.min(one.len().min(other.len()) - 1);
            let expected = Some(levenshtein(&one, &other)).filter(|distance| *distance <= max);
            prop_assert_eq!(distance(&one, &other), expected);
        }
    }
}
