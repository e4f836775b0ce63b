//! Standard output. It may be a pipe whose reader has closed it, and that is not an error.

use std::io::{self, ErrorKind, Write};

use indicatif::HumanCount;
use serde::Serialize;

/// Writes all of `text`. A closed pipe counts as success.
pub(crate) fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if !is_closed_pipe(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// A text for a terminal. Control characters are escaped, because a message may quote a file, and a
/// terminal obeys them. So are characters that change the direction of the text.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match is_obeyed(character) {
            true => printable.extend(character.escape_default()),
            false => printable.push(character),
        }
    }
    printable
}

/// A text on one line of a terminal. Line ends are shown as `⏎`, because a message may quote a name
/// with a line end, and the text after the line end would look like a line of Carga.
pub(crate) fn one_line(text: &str) -> String {
    printable(&text.replace("\r\n", "⏎").replace(['\n', '\r'], "⏎"))
}

/// A JSON document for a terminal and for programs. The characters that [`printable`] escapes are
/// escaped as in JSON, so that the document means the same.
pub(crate) fn printable_json(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    let mut printable = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        match is_obeyed(character) {
            // JSON has such characters only inside of texts. Four digits are enough for each.
            true => printable.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => printable.push(character),
        }
    }
    printable.push('\n');
    Ok(printable)
}

fn is_obeyed(character: char) -> bool {
    let is_direction = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() && character != '\n' || is_direction
}

/// A number of rows with its noun: `1 row`, `2,500 rows`.
pub(crate) fn count_rows(rows: u64) -> String {
    let noun = if rows == 1 { "row" } else { "rows" };
    format!("{} {noun}", HumanCount(rows))
}

/// Whether the reader of a pipe has closed it.
pub(crate) fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_directions_are_escaped_and_other_text_is_kept() {
        assert_eq!(printable("a\u{1b}[31mb\u{202e}"), "a\\u{1b}[31mb\\u{202e}");
        assert_eq!(printable("é 東京\nnext"), "é 東京\nnext");
    }

    #[test]
    fn a_text_with_line_ends_stays_on_one_line() {
        assert_eq!(one_line("a\r\nb\nc\rd\u{85}"), "a⏎b⏎c⏎d\\u{85}");
    }

    #[test]
    fn a_json_document_is_escaped_and_means_the_same() {
        let value = serde_json::json!({ "a\u{9b}31m": ["\u{202e}\u{1b}\u{7f}", "é 東京\n"] });
        let printed = printable_json(&value).unwrap();
        let obeyed = printed.chars().find(|character| is_obeyed(*character));
        assert_eq!(obeyed, None, "{printed:?}");
        assert!(printed.contains("a\\u009b31m"), "{printed}");
        assert!(printed.contains("é 東京"), "{printed}");
        let read: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(read, value);
    }
}
