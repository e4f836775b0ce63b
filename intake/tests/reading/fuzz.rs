//! The fuzzer: it mutates the files in `fixtures/` and reads them with random options.

use std::time::{Duration, Instant};

use carga_intake::csv::{Charset, CsvLimits, CsvOptions};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::account::check_text;
use crate::limits::{LIMITS, limit};
use crate::outcome::{check_accounts, read};
use crate::strategies::{options, sizes};

/// How long to fuzz if CARGA_FUZZ_SECS is not set.
const FUZZ_SECS: u64 = 10;

/// A file from `fixtures/` with some bytes replaced, removed or repeated.
fn mutated(fixtures: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let file = prop::sample::select(fixtures);
    let changes = prop::collection::vec(
        (
            any::<prop::sample::Index>(),
            0usize..9,
            prop_oneof![
                2 => prop::sample::select(b"\",;\n\r\0\xff'|\t".to_vec()),
                1 => any::<u8>(),
            ],
        ),
        0..12,
    );
    (file, changes).prop_map(|(mut file, changes)| {
        for (index, length, byte) in changes {
            if file.is_empty() {
                break;
            }
            let at = index.index(file.len());
            let end = (at + length).min(file.len());
            match length {
                0..3 => file[at] = byte,
                3..6 => drop(file.drain(at..end)),
                _ => {
                    let twice = file[at..end].to_vec();
                    file.splice(at..at, twice);
                }
            }
        }
        file
    })
}

/// Reads mutated files for a limited time. The reader never panics, every row is accounted for,
/// and the size of the pieces makes no difference. In a file of UTF-8, every row also has the text
/// of its record.
#[test]
fn mutated_files_are_accounted_for_and_read_the_same_in_pieces() {
    let seconds = std::env::var("CARGA_FUZZ_SECS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(FUZZ_SECS));
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures");
    let fixtures: Vec<Vec<u8>> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    assert!(fixtures.len() > 50);
    let limits = CsvLimits {
        row_bytes: limit(200),
        field_bytes: limit(100),
        header_bytes: limit(100),
        ..LIMITS
    };
    let labels = [
        "",
        "utf-8",
        "utf-16be",
        "windows-1252",
        "gb18030",
        "iso-2022-jp",
    ];
    let strategy = (
        mutated(fixtures),
        sizes(),
        prop::sample::select(labels.to_vec()),
        // Half of the files are read without options, so that everything is detected.
        prop_oneof![Just(CsvOptions::default()), options()],
    );
    let mut runner = TestRunner::default();
    let mut files = 0;
    while Instant::now() < end {
        let (file, sizes, label, stated) = strategy.new_tree(&mut runner).unwrap().current();
        let options = CsvOptions {
            encoding: Charset::for_label(label),
            ..stated
        };
        let at_once = read(&file, &[], options.clone(), limits).map_err(|refusal| refusal.failure);
        let in_pieces =
            read(&file, &sizes, options.clone(), limits).map_err(|refusal| refusal.failure);
        assert_eq!(
            at_once,
            in_pieces,
            "{:?} in {sizes:?} with {options:?}",
            file.escape_ascii().to_string()
        );
        if let Ok(outcome) = at_once {
            check_accounts(&outcome);
        }
        if let Ok(text) = std::str::from_utf8(&file) {
            check_text(text, "utf-8", &sizes, &options);
        }
        files += 1;
    }
    println!("{files} files");
}
