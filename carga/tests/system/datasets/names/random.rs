//! Random names, of characters and words that mean something in SQL, in formats of messages or in
//! CSV, and of any other characters.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use carga_common::dataset::{DatasetName, check_column_name, folded_name};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// The most bytes of a name in Postgres, and so of a column's name.
pub(super) const MAX_BYTES: usize = 63;

/// The most bytes of a dataset's name.
pub(super) const MAX_DATASET_BYTES: usize = 58;

/// The parts of names.
const FRAGMENTS: [&str; 45] = [
    "\"",
    "\"\"",
    "'",
    "''",
    "`",
    ";",
    "--",
    "/*",
    "*/",
    "$$",
    "$1",
    "?1",
    ":a",
    "@a",
    "\\",
    "\\\"",
    "\\'",
    "%s",
    "%",
    "{}",
    "{0}",
    "[",
    "]",
    "(",
    ")",
    ",",
    ".",
    "\n",
    "\t",
    " ",
    "é",
    "表",
    "ß",
    "🦀",
    "e\u{301}",
    "\u{202e}",
    "\u{5d0}",
    "a",
    "Z",
    "9",
    "NULL",
    "\"; DROP TABLE uploads; --",
    "'); DELETE FROM batches; --",
    "' OR '1'='1",
    "\", line 1, column ",
];

/// Draws from a strategy.
pub(super) fn draw<S: Strategy>(strategy: S, runner: &mut TestRunner) -> Result<S::Value> {
    let tree = strategy.new_tree(runner);
    let tree = tree.map_err(|reason| anyhow!("no names: {reason}"))?;
    Ok(tree.current())
}

/// A text that is not empty.
fn text() -> impl Strategy<Value = String> {
    let fragments = prop::sample::select(FRAGMENTS.to_vec());
    let fragments = prop::collection::vec(fragments, 1..10);
    prop_oneof![
        4 => fragments.prop_map(|fragments| fragments.concat()),
        // Without control characters, of which a file with many is taken for binary data, and
        // without the byte order mark, which a reader leaves out.
        1 => "[^\0-\u{1f}\u{7f}-\u{9f}\u{feff}]{1,15}",
    ]
}

/// The beginning of a text, with at most this many bytes.
fn cut(text: &str, bytes: usize) -> String {
    let ends = text.char_indices();
    let ends = ends.map(|(start, character)| start + character.len_utf8());
    let end = ends.take_while(|end| *end <= bytes).last();
    text[..end.unwrap_or(0)].to_owned()
}

/// The text, repeated until it has this many bytes.
pub(super) fn filled(text: &str, bytes: usize) -> String {
    let name = cut(&text.repeat(bytes), bytes);
    let padding = "x".repeat(bytes - name.len());
    name + &padding
}

/// A name of a column that has at most this many bytes, and often as many.
pub(super) fn name(bytes: usize) -> impl Strategy<Value = String> {
    let name = (text(), prop::bool::weighted(0.3));
    let name = name.prop_map(move |(text, is_filled)| match is_filled {
        true => filled(&text, bytes),
        false => cut(&text, bytes),
    });
    // A blank cell in a header is not a name.
    name.prop_filter("not the name of a column", |name| {
        check_column_name(name).is_ok() && !name.trim().is_empty()
    })
}

/// The name of a dataset.
pub(super) fn dataset() -> impl Strategy<Value = String> {
    let name = name(MAX_DATASET_BYTES).prop_map(|name| {
        let is_forbidden = |character: char| character == '/' || character.is_control();
        name.replace(is_forbidden, "_")
    });
    name.prop_filter("not the name of a dataset", |name| {
        name.parse::<DatasetName>().is_ok()
    })
}

/// Two names of 63 bytes that differ in the last byte only.
pub(super) fn twins() -> impl Strategy<Value = [String; 2]> {
    name(MAX_BYTES - 1).prop_map(|name| {
        let start = filled(&name, MAX_BYTES - 1);
        ["a", "b"].map(|last| format!("{start}{last}"))
    })
}

/// Whether no two names are spellings of one name.
pub(super) fn are_distinct<'a>(names: impl IntoIterator<Item = &'a String>) -> bool {
    let names: Vec<String> = names.into_iter().map(|name| folded_name(name)).collect();
    names.iter().collect::<BTreeSet<_>>().len() == names.len()
}
