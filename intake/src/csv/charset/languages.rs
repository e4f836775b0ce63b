//! The letters of languages.
//!
//! The same byte is a letter in many encodings. A few letters together often belong to one
//! language only, and so to one encoding.

use super::Charset;

/// The letters of a language that are not ASCII, in lower case.
#[derive(Debug)]
struct Alphabet {
    region: Region,
    letters: &'static str,
}

/// Languages that share their encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Region {
    Western,
    Central,
    Turkish,
    Baltic,
}

const ALPHABETS: [Alphabet; 17] = [
    of(Region::Western, "àâæçèéêëîïôœùûüÿ"),
    of(Region::Western, "äöüßé"),
    of(Region::Western, "áéíóúñüçàèòï"),
    of(Region::Western, PORTUGUESE),
    of(Region::Western, "àèéìíîòóùú"),
    of(Region::Western, "åäöæøéü"),
    of(Region::Western, "áéíóúýþðæö"),
    of(Region::Western, "äöüõšž"),
    // English and Dutch write the names and words of their neighbours.
    of(Region::Western, "éèêëïöüçñàáâäóôåîø"),
    of(Region::Central, "ąćęłńóśźż"),
    of(Region::Central, "áäčďéěíĺľňóôŕřšťúůýž"),
    of(Region::Central, "áéíóöőúüű"),
    of(Region::Central, "čćđšž"),
    of(Region::Central, "ăâîşţ"),
    of(Region::Turkish, "çğıi\u{307}öşüâîû"),
    of(Region::Baltic, "ąčęėįšųūž"),
    of(Region::Baltic, "āčēģīķļņšūž"),
];

const PORTUGUESE: &str = "áâãàçéêíóôõúü";

const fn of(region: Region, letters: &'static str) -> Alphabet {
    Alphabet { region, letters }
}

fn region(charset: Charset) -> Option<Region> {
    match charset.name() {
        "windows-1252" | "iso-8859-15" | "macintosh" | "cp850" | "cp860" => Some(Region::Western),
        "windows-1250" | "iso-8859-2" | "cp852" => Some(Region::Central),
        "windows-1254" => Some(Region::Turkish),
        "windows-1257" => Some(Region::Baltic),
        _ => None,
    }
}

/// Whether one language that is written in this encoding has all letters of this text. It is true
/// for an encoding whose languages are not known here.
pub(super) fn is_one_language(charset: Charset, text: &[char]) -> bool {
    let region = region(charset);
    let mut alphabets = ALPHABETS.iter();
    region.is_none()
        || alphabets.any(|alphabet| Some(alphabet.region) == region && alphabet.writes(text))
}

/// The encoding in which the sample has the letters of one language, if only one encoding gives
/// that.
pub(super) fn only_charset(sample: &[u8]) -> Option<Charset> {
    let charsets = [
        Charset::WINDOWS_1252,
        Charset::WINDOWS_1250,
        Charset::WINDOWS_1254,
        Charset::WINDOWS_1257,
    ];
    let mut found = charsets
        .into_iter()
        .filter(|charset| is_one_language(*charset, &charset.decode(sample)));
    found.next().filter(|_| found.next().is_none())
}

impl Alphabet {
    fn writes(&self, text: &[char]) -> bool {
        let mut letters = text.iter().enumerate();
        letters.all(|(index, letter)| {
            if letter.is_ascii() || matches!(letter, 'ª' | 'º' | 'µ' | '\u{a0}') {
                return true;
            }
            let lower = letter.to_lowercase().next().unwrap_or(*letter);
            // Portuguese has õ in õe only. Elsewhere, õ is mostly Hungarian ő in the wrong
            // encoding.
            let next = text.get(index + 1).map(char::to_ascii_lowercase);
            let is_possible = lower != 'õ' || self.letters != PORTUGUESE || next == Some('e');
            is_possible && (self.letters.contains(lower) || !letter.is_alphabetic())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(charset: Charset, text: &str) -> Option<Charset> {
        let (bytes, _, _) = charset.standard().unwrap().encode(text);
        only_charset(&bytes)
    }

    #[test]
    fn letters_that_no_western_language_has_together_tell_the_encoding() {
        let cases = [
            (Charset::WINDOWS_1257, "Žemaitė"),
            (Charset::WINDOWS_1250, "név,Győr"),
            (Charset::WINDOWS_1250, "Jiří Novák, Plzeň"),
        ];
        for (charset, text) in cases {
            assert_eq!(only(charset, text), Some(charset), "{text}");
        }
    }

    #[test]
    fn letters_of_several_encodings_do_not_tell_the_encoding() {
        assert_eq!(only(Charset::WINDOWS_1252, "José"), None);
        assert_eq!(only(Charset::WINDOWS_1252, "naïve"), None);
    }

    #[test]
    fn western_languages_have_their_letters() {
        let texts = [
            "ações",
            "Þórður",
            "Citroën à Besançon",
            "Ångström",
            "Grüße",
            "sõber",
        ];
        for text in texts {
            let text: Vec<char> = text.chars().collect();
            assert!(is_one_language(Charset::WINDOWS_1252, &text), "{text:?}");
        }
        let hungarian: Vec<char> = "név,Gyõr".chars().collect();
        assert!(!is_one_language(Charset::WINDOWS_1252, &hungarian));
    }
}
