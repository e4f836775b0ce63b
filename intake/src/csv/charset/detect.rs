//! Detects the encoding of a file without a byte order mark.
//!
//! UTF-8 and UTF-16 have patterns of bytes that other encodings lack. For the others, chardetng
//! knows the letter frequencies of web pages. Tables are different: many have a single non-ASCII
//! character, which is a symbol or part of a name, and some come from DOS or old Macs. So
//! chardetng's guess counts only if its text is plausible, and if two encodings explain a file
//! equally well, the file is refused.

use super::besides::{language_besides_windows, other_than_western, unknown};
use super::japanese::has_halfwidth_kana;
use super::languages::{is_one_language, only_charset};
use super::plausible::{Plausibility, is_letter};
use super::{Charset, Decision, Detection, decision};

/// A file is UTF-8 with faults if it has at least this many valid sequences per invalid one.
const VALID_PER_INVALID: usize = 5;

/// With at most this many different non-ASCII bytes, frequencies tell little.
const FEW_BYTES: usize = 6;

/// Detects the encoding of a file that starts with this sample. Unless the sample is the `whole`
/// file, it may end in the middle of a character.
pub(in crate::csv) fn detect(sample: &[u8], whole: bool) -> Detection {
    utf16(sample).map_or_else(|| detect_late(sample, whole), Ok)
}

/// Detects the encoding of a file that was ASCII up to this sample.
pub(in crate::csv) fn detect_late(sample: &[u8], whole: bool) -> Detection {
    if sample.is_ascii() {
        let evidence = format!("the first {} bytes are ASCII", sample.len());
        return Ok(decision(Charset::UTF_8, evidence));
    }
    let (valid, invalid) = utf8_sequences(sample, whole);
    if valid >= VALID_PER_INVALID * invalid {
        let evidence =
            format!("{valid} valid and {invalid} invalid UTF-8 sequences in the examined bytes");
        return Ok(decision(Charset::UTF_8, evidence));
    }
    // A character that is cut at the end would make a multi-byte encoding impossible. Line ends are
    // never part of a character.
    let line_end = sample
        .iter()
        .rposition(|byte| matches!(byte, b'\n' | b'\r'));
    let complete = match line_end {
        Some(at) if !whole && !sample[..at].is_ascii() => &sample[..at],
        _ => sample,
    };
    let mut found = legacy(complete)?;
    // In other encodings, two letters that are also one of UTF-8 stand rarely beside each other.
    if is_latin(found.value) && valid > 0 && 3 * valid >= invalid {
        return Err(unknown(&[Charset::UTF_8, found.value]));
    }
    let all = valid + invalid;
    let sequences = format!("{invalid} of {all} non-ASCII sequences are not UTF-8");
    found.evidence = format!("{sequences}; {}", found.evidence);
    Ok(found)
}

/// The most likely encoding of bytes that are not UTF-8, by the letter frequencies of web pages.
pub(in crate::csv) fn guess(bytes: &[u8]) -> Charset {
    use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(bytes, true);
    Charset::of(detector.guess(None, Utf8Detection::Deny))
}

/// The number of valid and invalid non-ASCII sequences.
fn utf8_sequences(sample: &[u8], whole: bool) -> (usize, usize) {
    let (mut valid, mut invalid) = (0, 0);
    let mut chunks = sample.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        valid += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        let is_cut = !whole && chunks.peek().is_none();
        invalid += usize::from(!chunk.invalid().is_empty() && !is_cut);
    }
    (valid, invalid)
}

/// Recognises UTF-16 by its NULs. A delimiter, a digit or a line end is a pair of bytes with one
/// NUL: always the first byte, or always the second. Text in another encoding has no NULs.
pub(super) fn utf16(sample: &[u8]) -> Option<Decision<Charset>> {
    if !sample.contains(&0) {
        return None;
    }
    let (mut high_first, mut low_first) = (0, 0);
    for pair in sample.chunks_exact(2) {
        high_first += usize::from(pair[0] == 0 && pair[1] != 0);
        low_first += usize::from(pair[1] == 0 && pair[0] != 0);
    }
    let pairs = sample.len() / 2;
    let (charset, nuls, others) = match high_first > low_first {
        true => (Charset::UTF_16BE, high_first, low_first),
        false => (Charset::UTF_16LE, low_first, high_first),
    };
    let is_utf16 = nuls >= 2 && nuls * 4 >= pairs && others * 20 <= nuls;
    let evidence = format!(
        "{nuls} of {pairs} byte pairs have a NUL on the same side, as in {}",
        charset.name()
    );
    is_utf16.then(|| decision(charset, evidence))
}

/// Decides between encodings other than UTF-8.
fn legacy(sample: &[u8]) -> Detection {
    let western = Charset::WINDOWS_1252.decode(sample);
    if let Some(found) = symbols(&western) {
        return Ok(found);
    }
    let guess = guess(sample);
    let text = guess.decode(sample);
    let plausibility = Plausibility::of(&text);
    if guess.is_single_byte() && !plausibility.is_high() && has_halfwidth_kana(sample) {
        let evidence = "its half-width kana form words in shift_jis";
        return Ok(decision(Charset::SHIFT_JIS, evidence));
    }
    match is_latin(guess) {
        true => latin(sample, guess, &text, &western),
        // Letters of the guessed script are beside Latin ones in most words.
        false if plausibility.is_low() => latin(sample, Charset::WINDOWS_1252, &western, &western),
        false if is_scattered(sample) && Plausibility::of(&western).is_high() => {
            let evidence = "no two of the bytes follow each other, so they are not characters of two bytes, and they make plausible text in windows-1252";
            Ok(decision(Charset::WINDOWS_1252, evidence))
        }
        false => Ok(decision(guess, frequencies(guess))),
    }
}

fn frequencies(charset: Charset) -> String {
    format!(
        "their frequencies suggest {}, in which they are plausible text",
        charset.name()
    )
}

fn single_language(charset: Charset) -> String {
    let name = charset.name();
    format!("only {name} makes them letters of a single language; this is likely")
}

/// Recognises windows-1252 by its symbols: units, prices and quotation marks are the only
/// non-ASCII characters of many English tables, and they say nothing about a language.
fn symbols(western: &[char]) -> Option<Decision<Charset>> {
    let (mut count, mut example) = (0, None);
    let mut touching = 0;
    for (index, c) in western.iter().enumerate().filter(|(_, c)| !c.is_ascii()) {
        let at = |index: Option<usize>| index.and_then(|index| western.get(index)).copied();
        let neighbours = [at(index.checked_sub(1)), at(Some(index + 1))];
        let touches = |test: fn(char) -> bool| neighbours.iter().flatten().any(|c| test(*c));
        // A diameter is a letter that is not part of a word.
        let is_diameter = matches!(c, 'Ø' | 'ø') && !touches(is_letter);
        // Tables do not have these symbols, and their bytes are frequent in Big5.
        let is_odd = matches!(c, 'ˆ' | '˜' | '¤' | 'ƒ') || c.is_control();
        if !is_diameter && (is_letter(*c) || is_odd) {
            return None;
        }
        count += 1;
        example = example.or((*c != '\u{a0}').then_some(*c));
        // Two bytes beside each other may be one character of Chinese or Japanese.
        touching += usize::from(touches(|c| !c.is_ascii()));
    }
    let Plausibility { good, bad } = Plausibility::of(western);
    if touching * 10 > count || bad * 10 > good + bad {
        return None;
    }
    let example = example.map_or("no-break spaces".to_owned(), |c| {
        format!("symbols such as {c}")
    });
    let evidence = format!("all of them are {example} in windows-1252");
    Some(decision(Charset::WINDOWS_1252, evidence))
}

/// Decides between the encodings of languages with Latin letters.
fn latin(sample: &[u8], guess: Charset, text: &[char], western: &[char]) -> Detection {
    let plausibility = Plausibility::of(western);
    let guessed = Plausibility::of(text);
    if !plausibility.is_high() {
        if guess == Charset::WINDOWS_1252 || !guessed.is_high() {
            return other_than_western(sample, guess, plausibility);
        }
        let other = match is_one_language(guess, text) {
            true => None,
            false => language_besides_windows(sample),
        };
        return Ok(match other {
            Some(other) => decision(other, single_language(other)),
            None => decision(guess, frequencies(guess)),
        });
    }
    let likely = |reason: &str| {
        let evidence = format!("they are plausible text in windows-1252, {reason}");
        Ok(decision(Charset::WINDOWS_1252, evidence))
    };
    if guess == Charset::WINDOWS_1252 {
        let other = only_charset(sample).filter(|other| *other != guess);
        return match other {
            Some(other) => Ok(decision(other, single_language(other))),
            None => likely("as their frequencies suggest"),
        };
    }
    if text == western {
        return likely("and the same text in the less common encodings");
    }
    if has_price(western) {
        return likely("and a pound or yen sign stands before a number");
    }
    if !guessed.is_high() {
        return likely("and not in the encoding that their frequencies suggest");
    }
    let is_western = is_one_language(Charset::WINDOWS_1252, western);
    if is_western && !is_one_language(guess, text) {
        return likely("and only there letters of a single language");
    }
    // Windows replaced these encodings before tables became files that people exchange.
    let is_rare = guess.name().starts_with("iso-8859-") && guess.name() != "iso-8859-2";
    let has_few = different_bytes(sample) <= FEW_BYTES;
    if has_few && is_rare && is_western {
        return likely("which is far more common than the other encodings of these bytes");
    }
    Ok(decision(guess, frequencies(guess)))
}

/// Whether a pound or yen sign stands before a number, as in `£5` or `£ 5`. In other encodings of
/// Latin letters, their bytes are capitals such as `Ł`, which do not stand there.
fn has_price(western: &[char]) -> bool {
    western.iter().enumerate().any(|(index, c)| {
        let mut after = western[index + 1..].iter().skip_while(|c| **c == ' ');
        matches!(c, '£' | '¥') && after.next().is_some_and(char::is_ascii_digit)
    })
}

/// Whether no two non-ASCII bytes follow each other, and there are few different ones.
fn is_scattered(sample: &[u8]) -> bool {
    let follows = |pair: &[u8]| !pair[0].is_ascii() && !pair[1].is_ascii();
    !sample.windows(2).any(follows) && different_bytes(sample) <= FEW_BYTES
}

/// The number of different non-ASCII bytes.
fn different_bytes(sample: &[u8]) -> usize {
    let mut seen = [false; 256];
    for byte in sample {
        seen[usize::from(*byte)] = true;
    }
    seen[0x80..].iter().filter(|seen| **seen).count()
}

/// Whether the encoding is one of languages with Latin letters.
fn is_latin(charset: Charset) -> bool {
    let latin = [
        "windows-1250",
        "windows-1252",
        "windows-1254",
        "windows-1257",
        "windows-1258",
        "iso-8859-2",
        "iso-8859-3",
        "iso-8859-4",
        "iso-8859-10",
        "iso-8859-13",
        "iso-8859-14",
        "iso-8859-15",
        "iso-8859-16",
        "macintosh",
    ];
    latin.contains(&charset.name())
}

#[cfg(test)]
mod tests;
