//! Decides about text that is not plausible in windows-1252: text from DOS and old Macs, and short
//! Cyrillic or Japanese text.

use super::japanese::is_common_japanese;
use super::languages::is_one_language;
use super::plausible::Plausibility;
use super::{Charset, Detection, FileFault, decision};

/// Decides about a file that is not plausible in windows-1252.
pub(super) fn other_than_western(
    sample: &[u8],
    guess: Charset,
    western: Plausibility,
) -> Detection {
    let plausible = plausible_charsets(sample);
    let is_excluded = western.is_low() || has_western_holes(sample);
    let first = plausible.first().copied();
    let only = first.filter(|first| {
        let text = first.decode(sample);
        plausible.iter().all(|other| other.decode(sample) == text)
    });
    match only {
        Some(charset) if is_excluded => {
            let family = match charset == Charset::CP850 {
                true => "; other DOS code pages, such as cp437, differ in other characters",
                false => "",
            };
            let name = charset.name();
            let evidence = format!(
                "they are not text in windows-1252 and are plausible text in {name}; this is likely{family}"
            );
            Ok(decision(charset, evidence))
        }
        None if plausible.is_empty() && !is_excluded => {
            let evidence = format!(
                "their frequencies suggest {}; this is a guess",
                guess.name()
            );
            Ok(decision(guess, evidence))
        }
        _ => {
            let western = (!is_excluded).then_some(Charset::WINDOWS_1252);
            let possible: Vec<Charset> = western.into_iter().chain(plausible).collect();
            Err(unknown(&possible))
        }
    }
}

/// The encoding of DOS or of old Macs that makes letters of a single language, if there is one.
pub(super) fn language_besides_windows(sample: &[u8]) -> Option<Charset> {
    let plausible = plausible_charsets(sample);
    let is_certain = |charset: &Charset| {
        plausible.len() == 1 && is_one_language(*charset, &charset.decode(sample))
    };
    let old = [Charset::CP850, Charset::CP852, Charset::MACINTOSH];
    let charset = plausible.first().copied();
    charset.filter(|charset| old.contains(charset) && is_certain(charset))
}

/// The encodings besides those of Windows' Latin letters that make plausible text. Those that make
/// letters of a single language exclude the others.
fn plausible_charsets(sample: &[u8]) -> Vec<Charset> {
    let candidates = [
        Charset::CP850,
        Charset::CP852,
        Charset::CP860,
        Charset::MACINTOSH,
        Charset::WINDOWS_1251,
        Charset::KOI8_U,
        Charset::IBM866,
        Charset::SHIFT_JIS,
    ];
    let (mut plausible, mut in_one_language) = (Vec::new(), Vec::new());
    for charset in candidates {
        let text = charset.decode(sample);
        let is_possible = charset != Charset::SHIFT_JIS || is_common_japanese(&text, sample);
        if !is_possible || !Plausibility::of(&text).is_high() {
            continue;
        }
        plausible.push(charset);
        if is_one_language(charset, &text) {
            in_one_language.push(charset);
        }
    }
    if in_one_language.is_empty() {
        // These pages count only if they explain more than CP850 does.
        plausible.retain(|charset| !matches!(charset.name(), "cp852" | "cp860"));
        return plausible;
    }
    in_one_language
}

/// Whether the sample often has bytes without a character in windows-1252.
fn has_western_holes(sample: &[u8]) -> bool {
    let is_hole = |byte: &&u8| matches!(byte, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d);
    let holes = sample.iter().filter(is_hole).count();
    let others = sample.iter().filter(|byte| !byte.is_ascii()).count();
    holes * 20 >= others
}

/// The refusal of a file that several encodings explain, or none.
pub(super) fn unknown(possible: &[Charset]) -> FileFault {
    let mut options = Vec::new();
    for charset in possible {
        options.push(format!("encoding={}", charset.name()));
        if *charset == Charset::CP850 {
            options.push("encoding=cp437".to_owned());
        }
    }
    let options = options.join(" or ");
    let message = match possible.is_empty() {
        true => "the encoding of the file is unknown: it is not UTF-8, and no usual encoding makes it text; send it with its encoding, such as encoding=windows-1252, encoding=cp850 (DOS) or encoding=macintosh (old Macs)".to_owned(),
        false => format!(
            "the encoding of the file is uncertain, because several make it text; send it with the right one: {options}"
        ),
    };
    FileFault::new("unknown_encoding", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_one_language_exclude_other_encodings() {
        // Größe in CP850. Mac Roman has a symbol inside the word.
        let plausible = plausible_charsets(b"Gr\x94\xe1e M\x81ller");
        assert_eq!(plausible.first(), Some(&Charset::CP850));
        assert!(!plausible.contains(&Charset::MACINTOSH));
    }

    #[test]
    fn a_refusal_names_the_options() {
        let message = unknown(&[Charset::CP850, Charset::MACINTOSH]).message;
        let options = "encoding=cp850 or encoding=cp437 or encoding=macintosh";
        assert!(message.ends_with(options), "{message}");
        assert!(unknown(&[]).message.contains("encoding=windows-1252"));
    }

    #[test]
    fn bytes_without_a_character_exclude_windows_1252() {
        assert!(has_western_holes(b"M\x81ller,Gr\x94\xe1e"));
        assert!(!has_western_holes(b"M\xfcller,Gr\xf6\xdfe"));
    }
}
