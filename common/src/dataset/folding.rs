//! Folds the names of columns: two spellings of a name that differ in case, accents, blanks or
//! punctuation become equal.
//!
//! Only punctuation that separates words is removed. Two names may differ in a symbol alone, such
//! as `Price (€)` and `Price ($)` or `Age <18` and `Age >18`, so symbols are kept. For the same
//! reason a separator is kept between two digits, as in `2024-1`.
//!
//! The table has the letters of European languages and Vietnamese. A crate for the decomposition of
//! all of Unicode would fold more, but headers in other alphabets hardly vary in accents.

/// Letters in lower case, with the plain letters that stand for them.
const LETTERS: [(&str, &str); 23] = [
    ("a", "àáâãäåāăąǎạảấầẩẫậắằẳẵặª"),
    ("ae", "æǽ"),
    ("c", "çćĉċč"),
    ("d", "ďđð"),
    ("e", "èéêëēĕėęěẹẻẽếềểễệ"),
    ("g", "ĝğġģǧ"),
    ("h", "ĥħ"),
    ("i", "ìíîïĩīĭįıǐịỉ"),
    ("j", "ĵ"),
    ("k", "ķǩ"),
    ("l", "ĺļľŀł"),
    ("n", "ñńņňŉ"),
    ("o", "òóôõöøōŏőǒơọỏốồổỗộớờởỡợº"),
    ("oe", "œ"),
    ("r", "ŕŗř"),
    ("s", "śŝşšș"),
    ("ss", "ß"),
    ("t", "ţťŧț"),
    ("th", "þ"),
    ("u", "ùúûüũūŭůűųǔưụủứừửữự"),
    ("w", "ŵẁẃẅ"),
    ("y", "ýÿŷỳỵỷỹ"),
    ("z", "źżž"),
];

/// Characters that only separate the words of a name, besides blanks and control characters.
const SEPARATORS: [&str; 4] = [
    "_-.,:;/\\()[]{}'\"*!?",
    // Their typographic forms.
    "¡¿«»‹›‐‑‒–—―‘’‚‛“”„‟…",
    // Their wide forms.
    "、。，．：；／（）［］｛｝【】「」＊！？＿－",
    // Characters that are invisible.
    "\u{ad}\u{200b}\u{2060}\u{feff}",
];

/// Stands for every separator between two digits.
const SEPARATOR: char = '_';

/// The name in lower case, without accents, blanks and separators. Names with the same folded form
/// are spellings of one name. A name of separators alone, such as `*`, keeps its characters.
pub fn folded_name(name: &str) -> String {
    let mut folded = String::with_capacity(name.len());
    let mut is_separated = false;
    for letter in name.chars().flat_map(char::to_lowercase) {
        if is_separator(letter) {
            is_separated = true;
            continue;
        }
        if is_accent(letter) && folded.ends_with(|last: char| last.is_ascii_alphabetic()) {
            continue;
        }
        if is_separated && letter.is_numeric() && folded.ends_with(char::is_numeric) {
            folded.push(SEPARATOR);
        }
        is_separated = false;
        match plain(letter) {
            Some(plain) => folded.push_str(plain),
            None => folded.push(letter),
        }
    }
    match folded.is_empty() {
        true => name.trim().to_owned(),
        false => folded,
    }
}

fn is_separator(character: char) -> bool {
    if character.is_alphanumeric() {
        return false;
    }
    let is_blank = character.is_whitespace() || character.is_control();
    is_blank || SEPARATORS.iter().any(|list| list.contains(character))
}

/// Whether the character is a combining accent. It is removed only after a Latin letter, because
/// with such a mark, a letter of another alphabet is another letter.
fn is_accent(character: char) -> bool {
    matches!(character, '\u{300}'..='\u{36f}')
}

fn plain(letter: char) -> Option<&'static str> {
    // The blocks of the letters in the table. Most other letters are faster without a search.
    if !matches!(letter, '\u{aa}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}') {
        return None;
    }
    let mut letters = LETTERS.iter();
    let found = letters.find(|(_, accented)| accented.contains(letter));
    found.map(|(plain, _)| *plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_that_differ_in_case_accents_blanks_or_punctuation_are_equal() {
        for (folds, spellings) in [
            ("codigo", &["Código", "CODIGO", "co\u{301}digo"][..]),
            (
                "unitprice",
                &["unit_price", "Unit Price", " unit-price\n"][..],
            ),
            ("preco%", &["Preço (%)", "PREÇO %", "preco[%]"][..]),
            ("no", &["Nº", "nº.", "No"][..]),
            ("itemname", &["(Item) name:", "Item – ‘name’"][..]),
            ("name", &["¿name?\u{a0}", "[\u{200b}name]", "'name'"][..]),
            ("strasse", &["Straße", "STRASSE", "STRAẞE"][..]),
            ("istanbul", &["İstanbul", "istanbul", "ıstanbul"][..]),
            ("ngay", &["Ngày", "NGÀY"][..]),
            ("价格2", &["价格 2", "价格_2", "价格（2）"][..]),
            ("q1_2024", &["Q1 2024", "q1-2024", "Q.1 / 2024"][..]),
        ] {
            for spelling in spellings {
                assert_eq!(folded_name(spelling), folds, "{spelling}");
            }
        }
    }

    #[test]
    fn names_that_differ_in_a_symbol_stay_different() {
        for (one, other) in [
            ("Price (€)", "Price ($)"),
            ("Price (R$)", "Price (R)"),
            ("Discount", "Discount %"),
            ("Age <18", "Age >18"),
            ("# sold", "sold"),
            ("R&D", "RD"),
            ("C++", "C"),
            ("a@b", "ab"),
            ("x = 1", "x 1"),
            ("±5", "5"),
        ] {
            assert_ne!(folded_name(one), folded_name(other), "{one} and {other}");
        }
    }

    #[test]
    fn a_separator_stays_between_two_digits_only() {
        assert_ne!(folded_name("Q1.1"), folded_name("Q11"));
        assert_ne!(folded_name("2024-1"), folded_name("20241"));
        assert_eq!(folded_name("2024-1"), folded_name("2024_1"));
        assert_eq!(folded_name("1. Name (2)"), "1name2");
        assert_eq!(folded_name("column_1"), folded_name("Column 1"));
        assert_eq!(folded_name("-1-"), "1");
    }

    #[test]
    fn marks_of_alphabets_without_accents_are_kept() {
        let (low, falling) = ("\u{e01}\u{e48}", "\u{e01}\u{e49}");
        assert_ne!(folded_name(low), folded_name(falling));
        let (with_virama, without) = ("\u{915}\u{94d}\u{937}", "\u{915}\u{937}");
        assert_ne!(folded_name(with_virama), folded_name(without));
        assert_ne!(folded_name("\u{438}\u{306}"), folded_name("\u{438}"));
    }

    #[test]
    fn names_without_letters_and_digits_stay_different() {
        assert_eq!(folded_name(" % "), "%");
        assert_eq!(folded_name("#"), "#");
        assert_eq!(folded_name(" * "), "*");
        assert_eq!(folded_name("\"\""), "\"\"");
        assert_eq!(folded_name(" "), "");
    }

    #[test]
    fn the_table_has_each_letter_once_and_in_lower_case() {
        let letters: String = LETTERS.iter().map(|(_, accented)| *accented).collect();
        for letter in letters.chars() {
            assert_eq!(letters.matches(letter).count(), 1, "{letter}");
            assert!(letter.to_lowercase().eq([letter]), "{letter}");
            assert!(!letter.is_ascii() && letter.is_alphanumeric(), "{letter}");
            assert!(plain(letter).is_some(), "{letter}");
        }
    }
}
