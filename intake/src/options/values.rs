//! Reads the values of options.

use crate::policy::MaxRejects;

/// The longest file name kept.
const FILENAME_CHARS: usize = 255;

pub(super) fn set_value<T>(option: &mut Option<T>, value: Option<T>) -> Option<()> {
    *option = Some(value?);
    Some(())
}

pub(super) fn parse_word<T: Copy, const N: usize>(value: &str, words: [(&str, T); N]) -> Option<T> {
    let found = words.iter().find(|(word, _)| *word == value);
    found.map(|(_, meaning)| *meaning)
}

pub(super) fn parse_bool(value: &str) -> Option<bool> {
    parse_word(value, [("true", true), ("false", false)])
}

/// A text that a cell may have. No cell has a NUL, and U+FFFD stands for bytes of a query that are
/// not UTF-8.
pub(super) fn text(value: &str) -> Option<String> {
    const INVALID: [char; 2] = ['\0', char::REPLACEMENT_CHARACTER];
    (!value.contains(INVALID)).then(|| value.to_owned())
}

/// A text of one character. U+FFFD stands for bytes of a query that are not UTF-8.
pub(super) fn character(value: &str) -> Option<char> {
    let mut characters = value.chars();
    let character = characters.next()?;
    let is_one = character != char::REPLACEMENT_CHARACTER && characters.next().is_none();
    is_one.then_some(character)
}

/// U+FFFD is refused: it stands for bytes of a query that are not UTF-8.
pub(super) fn delimiter(value: &str) -> Option<char> {
    const INVALID: [char; 4] = ['\n', '\r', '\0', char::REPLACEMENT_CHARACTER];
    let mut characters = value.chars();
    match (value, characters.next(), characters.next()) {
        ("tab", ..) => Some('\t'),
        (_, Some(delimiter), None) if !INVALID.contains(&delimiter) => Some(delimiter),
        _ => None,
    }
}

pub(super) fn quote(value: &str) -> Option<Option<u8>> {
    match value.as_bytes() {
        b"none" => Some(None),
        [quote] if quote.is_ascii_punctuation() => Some(Some(*quote)),
        _ => None,
    }
}

pub(super) fn max_rejects(value: &str) -> Option<MaxRejects> {
    match value.strip_suffix('%') {
        None => value.parse().ok().map(MaxRejects::Rows),
        Some(percent) => percent
            .parse()
            .ok()
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(MaxRejects::Percent),
    }
}

/// Keeps what follows the last separator of a path, and shortens it. Terminals and databases cannot
/// take control characters. A character that reorders text can hide the end of a name.
pub(super) fn clean_filename(path: &str) -> String {
    const SEPARATORS: [char; 2] = ['/', '\\'];
    let path = path.trim_end_matches(SEPARATORS);
    let name = path.rsplit(SEPARATORS).next().unwrap_or_default();
    let reorders = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    name.chars()
        .filter(|c| !c.is_control() && !reorders(*c))
        .take(FILENAME_CHARS)
        .collect()
}
