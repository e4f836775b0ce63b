//! How many characters of a text stand where text has them.
//!
//! A file that is read in the wrong encoding has capitals after small letters, symbols inside
//! words and words of accents alone. The rules hold for all languages, so they need no
//! statistics and work for a single word.

/// How many of a text's non-ASCII characters are plausible.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Plausibility {
    pub(super) good: usize,
    pub(super) bad: usize,
}

impl Plausibility {
    pub(super) fn of(text: &[char]) -> Self {
        let mut plausibility = Self::default();
        for (index, c) in text.iter().enumerate() {
            if c.is_ascii() {
                continue;
            }
            let spot = Spot::new(text, index);
            match spot.verdict() {
                Some(true) => plausibility.good += 1,
                Some(false) => plausibility.bad += 1,
                None => {}
            }
        }
        plausibility
    }

    /// Names, abbreviations and typing errors break the rules, but not often.
    pub(super) fn is_high(self) -> bool {
        self.good >= 9 * self.bad
    }

    pub(super) fn is_low(self) -> bool {
        self.good <= self.bad && self.bad > 0
    }
}

/// A non-ASCII character and its surroundings. Beyond the text, there are line ends.
#[derive(Debug)]
struct Spot<'a> {
    text: &'a [char],
    index: usize,
    c: char,
    previous: char,
    next: char,
}

impl<'a> Spot<'a> {
    fn new(text: &'a [char], index: usize) -> Self {
        let at = |index: Option<usize>| index.and_then(|index| text.get(index)).copied();
        Self {
            text,
            index,
            c: text[index],
            previous: at(index.checked_sub(1)).unwrap_or('\n'),
            next: at(Some(index + 1)).unwrap_or('\n'),
        }
    }

    /// Whether the character is plausible. `None` if its surroundings tell nothing.
    fn verdict(&self) -> Option<bool> {
        match self.c {
            // They stand anywhere.
            '\u{a0}' | '\u{ad}' => None,
            '\u{fffd}' | '\u{e000}'..='\u{f8ff}' => Some(false),
            // Boxes and arrows are for screens.
            '\u{2190}'..='\u{25ff}' => Some(false),
            c if c.is_control() => Some(false),
            c if is_letter(c) => Some(self.is_good_letter()),
            _ => Some(self.is_good_symbol()),
        }
    }

    fn is_good_letter(&self) -> bool {
        let (c, previous, next) = (self.c, self.previous, self.next);
        // Words do not mix scripts.
        if !is_latin(c) && (previous.is_ascii_alphabetic() || next.is_ascii_alphabetic()) {
            return false;
        }
        let small_before_capital = |a: char, b: char| a.is_lowercase() && b.is_uppercase();
        let sharp_s = [previous, c, next].contains(&'ß');
        if !sharp_s {
            let (before, after) = (is_letter(previous), is_letter(next));
            if before && small_before_capital(previous, c) || after && small_before_capital(c, next)
            {
                return false;
            }
            let capitals = self.letters_before(2);
            let is_caps = capitals.len() == 2 && capitals.iter().all(|c| c.is_uppercase());
            let is_second_capital =
                c.is_uppercase() && previous.is_uppercase() && next.is_lowercase();
            if c.is_lowercase() && is_caps || is_second_capital {
                return false;
            }
        }
        !(is_latin(c) && self.is_in_run_of_accents())
    }

    /// Whether the letter is in a word of accented letters alone, or in an endless run of them. No
    /// language with Latin letters writes so.
    fn is_in_run_of_accents(&self) -> bool {
        let is_accent = |c: &&char| !c.is_ascii() && is_letter(**c);
        // Four letters decide, so a long run is not walked again for each of its letters.
        let before = self.text[..self.index].iter().rev().take(4);
        let before = before.take_while(is_accent).count();
        let after = self.text[self.index..].iter().take(4);
        let after = after.take_while(is_accent).count();
        let first = self.index - before;
        let is_ascii_letter = |c: Option<&char>| c.is_some_and(char::is_ascii_alphabetic);
        let has_ascii = is_ascii_letter(first.checked_sub(1).and_then(|at| self.text.get(at)))
            || is_ascii_letter(self.text.get(self.index + after));
        match before + after {
            0..=2 => false,
            3 => !has_ascii,
            _ => true,
        }
    }

    fn is_good_symbol(&self) -> bool {
        let (before, after) = (is_letter(self.previous), is_letter(self.next));
        match self.c {
            '’' | '´' if before && after => self.is_apostrophe(),
            '–' | '—' if before && after => self.is_between_words(),
            '·' if before && after => self.previous == self.next,
            // They begin a word, or stand behind a figure.
            '‚' | '„' | '‹' | '«' => !before,
            '†' | '‡' | '‰' => !before && !self.is_before_word(),
            '¡' | '¿' => !before && !self.previous.is_ascii_digit(),
            '¢' | '¤' | '¥' | '¦' => !before && !after,
            // Accents without a letter.
            '¨' | '¯' | '¸' | 'ˆ' | '˜' | 'ˇ' | '˘' | '˙' | '˚' | '˛' | '˝' => {
                !before && !after
            }
            // Chinese and Japanese punctuation.
            '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ff65}' => {
                !self.previous.is_ascii_alphabetic() && !self.next.is_ascii_alphabetic()
            }
            c if is_punctuation(c) => !(before && after),
            // They are parts of units: µmol, °dH.
            'µ' | '°' => !(before && after || self.touches_symbol()),
            // A word that begins with another symbol has lost its first letter.
            _ => !(before && after || self.touches_symbol() || self.is_before_word()),
        }
    }

    /// Whether the symbol stands beside another one. Few symbols do.
    fn touches_symbol(&self) -> bool {
        let is_symbol = |c: char| {
            !c.is_ascii() && !is_letter(c) && !is_punctuation(c) && c != '\u{a0}' && c != '\u{ad}'
        };
        is_symbol(self.previous) || is_symbol(self.next)
    }

    fn is_before_word(&self) -> bool {
        let letters = self.letters_after(3);
        letters.len() == 3 && letters.iter().all(|c| c.is_lowercase())
    }

    /// Whether an apostrophe inside a word is one of English, French or Italian. Mac Roman has í
    /// at the same byte.
    fn is_apostrophe(&self) -> bool {
        let before = lower(self.letters_before(6));
        let after = lower(self.letters_after(3));
        matches!(
            after.as_str(),
            "s" | "t" | "m" | "d" | "re" | "ll" | "ve" | "n"
        ) || matches!(
            before.as_str(),
            "l" | "d" | "j" | "c" | "n" | "s" | "m" | "t" | "o"
        ) || before.ends_with("qu")
            || before.ends_with("ll")
            || before.ends_with("jourd")
            || matches!(before.as_str(), "un" | "dall" | "sant")
    }

    /// Whether a dash stands between words. Mac Roman has ñ and ó at the same bytes, which are
    /// mostly near the end of a word.
    fn is_between_words(&self) -> bool {
        let long = |letters: usize| letters >= 3;
        self.next.is_uppercase()
            || long(self.letters_before(3).len()) && long(self.letters_after(3).len())
    }

    fn letters_before(&self, max: usize) -> &[char] {
        let letters = self.text[..self.index].iter().rev();
        let letters = letters.take(max).take_while(|c| is_letter(**c)).count();
        &self.text[self.index - letters..self.index]
    }

    fn letters_after(&self, max: usize) -> &[char] {
        let rest = &self.text[self.index + 1..];
        let letters = rest.iter().take(max).take_while(|c| is_letter(**c));
        &rest[..letters.count()]
    }
}

fn lower(letters: &[char]) -> String {
    letters.iter().collect::<String>().to_lowercase()
}

/// Whether the character is part of words. Unicode counts some symbols as letters, and does not
/// count all accents and vowel signs.
pub(super) fn is_letter(c: char) -> bool {
    let is_sign = matches!(
        c,
        '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{65f}' | '\u{e31}'..='\u{e4e}'
    );
    let is_symbol = matches!(c, 'ª' | 'º' | 'µ' | 'ƒ' | '\u{2b0}'..='\u{2ff}' | 'ⁿ');
    is_sign || c.is_alphabetic() && !is_symbol
}

fn is_latin(c: char) -> bool {
    matches!(c, '\0'..='\u{24f}' | '\u{1e00}'..='\u{1eff}')
}

/// Punctuation stands beside other symbols and at the end of words.
fn is_punctuation(c: char) -> bool {
    matches!(
        c,
        '…' | '–'
            | '—'
            | '‘'
            | '’'
            | '“'
            | '”'
            | '‚'
            | '„'
            | '«'
            | '»'
            | '‹'
            | '›'
            | '¡'
            | '¿'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Plausibility {
        Plausibility::of(&text.chars().collect::<Vec<_>>())
    }

    #[test]
    fn text_is_plausible() {
        let texts = [
            "José,Bogotá",
            "Ñandú Óscar ÉCOLE",
            "Straße GROßE GRÖßE",
            "it’s don’t O’Brien l’été",
            "aujourd’hui",
            "qu’il",
            "“quoted” „so“ «là»",
            "¿Qué tal? ¡Olé!",
            "5 °C 10µF 3 m²",
            "price (£m) £5 5 € €5",
            "Mon–Fri, 5–7, word—another",
            "Ø 5 mm",
            "col·legi",
            "Łódź",
            "ACME™ © X",
            "Иван Петров МОСКВА",
            "Γιώργος",
            "山田太郎",
            "1\u{a0}000",
        ];
        for text in texts {
            assert!(of(text).is_high(), "{text}: {:?}", of(text));
        }
    }

    /// With quadratic time, this test would take minutes.
    #[test]
    fn a_long_run_of_accents_is_examined_in_linear_time() {
        let start = std::time::Instant::now();
        assert!(!of(&"é".repeat(64 << 10)).is_high());
        let took = start.elapsed();
        assert!(took.as_secs() < 5, "{took:?}");
    }

    #[test]
    fn text_in_the_wrong_encoding_is_not_plausible() {
        // Mac Roman and CP850 read as windows-1252, windows-1251 and KOI8 likewise, and two
        // Cyrillic encodings for each other.
        let texts = [
            "JosŽ",
            "GršŸe",
            "MŸller",
            "£ukasz",
            "¦ruba",
            "Garc’a",
            "Espa–a",
            "Le—n",
            "Gr”áe",
            "Jos‚",
            "M\u{81}ller",
            "èìÿ Èâàí",
            "ÉÍÑ é×ÁÎ",
            "йЧБО",
            "хБЮМ",
            "±²³",
            "20¡C",
            "Peｰa",
            "Garc｛",
            "†bung",
        ];
        for text in texts {
            assert!(!of(text).is_high(), "{text}: {:?}", of(text));
        }
    }
}
