//! JSON documents, and JSON objects line by line.

use serde::de::IgnoredAny;
use serde_json::Deserializer;

use super::Found;
use super::magic::duckdb;

/// The result of reading a text as JSON.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// One array or object, or several objects.
    Complete,
    /// The same, but the text ends inside of a value.
    Cut,
    Other,
}

/// `text` begins with its first character that is not blank, and may be the `whole` file.
pub(super) fn find(text: &[u8], whole: bool) -> Option<Found> {
    let is_json = match parse(text) {
        Parsed::Complete => true,
        // A list of numbers may also be the first row of a wide file.
        Parsed::Cut => !whole && is_nested(text),
        Parsed::Other => false,
    };
    is_json.then(|| Found::new("JSON", duckdb!("FROM read_json('FILE')")))
}

/// Whether a text can be the beginning of a JSON file.
pub(super) fn may_be(text: &[u8]) -> bool {
    parse(text) != Parsed::Other
}

fn parse(text: &[u8]) -> Parsed {
    let is_array = match text.first() {
        Some(b'[') => true,
        Some(b'{') => false,
        _ => return Parsed::Other,
    };
    let mut values = Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    loop {
        let position = values.byte_offset();
        match text[position..].trim_ascii_start().first() {
            None => return Parsed::Complete,
            // Arrays line by line are also the rows of a file with bracketed lines.
            Some(b'[') if is_array && position == 0 => {}
            Some(b'{') if !is_array => {}
            Some(_) => return Parsed::Other,
        }
        match values.next() {
            Some(Ok(IgnoredAny)) => {}
            Some(Err(error)) if error.is_eof() => return Parsed::Cut,
            Some(Err(_)) => return Parsed::Other,
            None => return Parsed::Complete,
        }
    }
}

/// Whether a text begins with an object, or with an array of objects or arrays.
fn is_nested(text: &[u8]) -> bool {
    match text {
        [b'[', items @ ..] => matches!(items.trim_ascii_start().first(), Some(b'{' | b'[')),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_json(text: &str, whole: bool) -> bool {
        find(text.as_bytes(), whole).is_some()
    }

    #[test]
    fn whole_documents_are_recognised() {
        for text in [
            "{}",
            "[]\n",
            "[1, 2]",
            "{\"a\": [1, \"é\"]}",
            "[\n  {\"a\": null}\n]\n",
        ] {
            assert!(is_json(text, true), "{text}");
        }
    }

    #[test]
    fn objects_line_by_line_are_recognised() {
        assert!(is_json("{\"a\":1}\n{\"a\":2}\n", true));
        assert!(is_json("{\"a\":1}\r\n{\"a\":2", false));
    }

    #[test]
    fn the_beginning_of_a_long_document_is_recognised() {
        for text in [
            "[{\"a\":1},{\"a\":",
            "{\"data\": [\n1,\n2",
            "[[1,2],\n[3",
            "{\"a\": tr",
        ] {
            assert!(is_json(text, false), "{text}");
            assert!(!is_json(text, true), "{text}");
        }
    }

    #[test]
    fn rows_that_begin_like_json_are_not_json() {
        for text in [
            "[a],b\n1,2\n",
            "{x};y\n",
            "{\"a\":1},x\n",
            "{\"a\":1}\n[2]\n",
            "[1,2]\n[3,4]\n",
            "[0.1,0.2,0.3",
            "[1,2],[3,4]\n",
            "\"a\"\n",
            "{\"a\nb\":1}",
            "1\n2\n",
            "",
        ] {
            assert!(!is_json(text, false), "{text}");
            assert!(!is_json(text, true), "{text}");
        }
    }

    #[test]
    fn a_list_of_numbers_may_be_json_until_it_ends() {
        assert!(may_be(b"[0.1,0.2"));
        assert!(!may_be(b"[0.1,0.2]\n[0.3"));
    }
}
