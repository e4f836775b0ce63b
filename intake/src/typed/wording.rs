//! Texts of a definition or of a header in messages. Every rejected row has a message, so long
//! texts and long lists are cut.

use std::borrow::Cow;

/// The most texts of a list in a message.
const MAX_TEXTS: usize = 10;

/// The text, or its first characters and `…`.
pub(crate) fn cut(text: &str, max_chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max_chars) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// The text in backticks, without the characters beyond the first `max_chars`.
pub(crate) fn quoted(text: &str, max_chars: usize) -> String {
    format!("`{}`", cut(text, max_chars))
}

/// The first ten texts, each in backticks, and `…` if there are more.
pub(crate) fn listed<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    separator: &str,
    max_chars: usize,
) -> String {
    let mut texts = texts.into_iter();
    let first = texts.by_ref().take(MAX_TEXTS);
    let mut shown: Vec<String> = first.map(|text| quoted(text, max_chars)).collect();
    if texts.next().is_some() {
        shown.push("…".to_owned());
    }
    shown.join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_and_a_long_list_are_cut() {
        assert_eq!(quoted("não", 3), "`não`");
        assert_eq!(quoted("não", 2), "`nã…`");
        let texts = ["a"; 11];
        let ten = "`a`, ".repeat(10);
        assert_eq!(listed(texts, ", ", 9), format!("{ten}…"));
        assert_eq!(listed(["a", "bcd"], " or ", 2), "`a` or `bc…`");
    }
}
