//! The OpenAPI document of this API, and its page.
//!
//! The document is the file `docs/openapi.json`, which is compiled into the program. Tests make it
//! from the list of routes, the table of options, the types and `docs/api.md` (`generator`), and
//! fail if the file differs. So a program needs no crate that makes the document, and a change of
//! the API shows in a diff.

#[cfg(test)]
mod generator;
mod page;

use std::sync::LazyLock;

use serde_json::Value;

pub(crate) use self::page::{POLICY, page};

/// The document, indented for readers.
pub const DOCUMENT: &str = include_str!("../../../docs/openapi.json");

/// The document as `GET /openapi.json` answers it, made at the first call. Without line breaks and
/// blanks it has about half the size.
pub(crate) fn compact_document() -> &'static str {
    static COMPACT: LazyLock<String> = LazyLock::new(|| parsed().to_string());
    &COMPACT
}

/// The document as JSON.
fn parsed() -> Value {
    // A test reads the document, so it is JSON.
    serde_json::from_str(DOCUMENT).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_document_and_has_at_most_256_kib() {
        let compact = compact_document();
        assert!(compact.len() <= 256 << 10, "{} bytes", compact.len());
        let answered: Value = serde_json::from_str(compact).unwrap();
        let committed: Value = serde_json::from_str(DOCUMENT).unwrap();
        assert!(answered == committed);
    }
}
