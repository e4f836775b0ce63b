//! Standard output. It may be a pipe whose reader has closed it, and that is not an error.

use std::io::{self, ErrorKind, Write};

use indicatif::HumanCount;

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
        let is_direction = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match character.is_control() && character != '\n' || is_direction {
            true => printable.extend(character.escape_default()),
            false => printable.push(character),
        }
    }
    printable
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
}
