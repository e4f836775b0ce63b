//! Random sizes of pieces, and random options.

use carga_intake::csv::{Charset, CsvOptions, Names};
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        prop::collection::vec(1usize..5, 1..4),
        prop::collection::vec(1usize..200, 1..8),
    ]
}

/// Any combination of what a client may state about a file.
pub(crate) fn options() -> impl Strategy<Value = CsvOptions> {
    let columns = vec!["x".to_owned(), "y".to_owned()];
    let given = (
        select(vec![None, Some(','), Some('é')]),
        select(vec![None, Some(None), Some(Some(b'"')), Some(Some(b'\''))]),
        select(vec![None, Some(None), Some(Some(b'\\'))]),
        select(vec![
            None,
            Some("utf-8"),
            Some("utf-16le"),
            Some("shift_jis"),
        ]),
        prop_oneof![2 => Just(None), 1 => (0u64..4).prop_map(Some)],
        select(vec![None, Some(false), Some(true)]),
        select(vec![None, None, Some(columns)]),
        select(vec![Names::Repair, Names::Strict]),
        any::<(Option<bool>, bool)>(),
    );
    given.prop_map(
        |(delimiter, quote, escape, label, skip, header, columns, names, (trim, pad))| CsvOptions {
            delimiter,
            quote,
            escape,
            encoding: label.and_then(Charset::for_label),
            skip,
            header,
            columns,
            names,
            trim,
            pad_short_rows: pad,
        },
    )
}
