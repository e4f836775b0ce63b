//! The codes of the document are those of the documentation and of the sources.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::{codes as documentation, document, documented};
use super::{repository, resolved};

/// Every status and code of the operations.
fn refusals() -> BTreeSet<(u16, String)> {
    let document = document();
    let mut found = BTreeSet::new();
    for (_, _, operation) in documented() {
        for (status, answer) in operation["responses"].as_object().unwrap() {
            let answer = resolved(&document, answer);
            for code in answer["x-codes"].as_array().into_iter().flatten() {
                let code = code.as_str().unwrap().to_owned();
                found.insert((status.parse().unwrap(), code));
            }
        }
    }
    found
}

#[test]
fn the_operations_have_exactly_the_statuses_and_codes_of_the_documentation() {
    let mut expected = BTreeSet::new();
    for row in documentation::errors() {
        let mut codes = row.codes;
        if codes.is_empty() {
            // "Any code of a rejected row".
            codes = documentation::of_rejected_rows().into_keys().collect();
        }
        expected.extend(codes.into_iter().map(|code| (row.status, code)));
    }
    // These are no answers of a call: the first is in a preview, and the second is for requests
    // that match no call.
    for (status, code) in [(200, "header_not_found"), (405, "method_not_allowed")] {
        assert!(expected.remove(&(status, code.to_owned())), "{code}");
    }
    let found = refusals();
    let missing: Vec<_> = expected.difference(&found).collect();
    let extra: Vec<_> = found.difference(&expected).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing {missing:?}, extra {extra:?}"
    );
}

/// The program's sources, without their tests.
fn sources() -> Vec<String> {
    let mut sources = Vec::new();
    for part in ["api", "common", "intake", "worker"] {
        read(&repository().join(part).join("src"), &mut sources);
    }
    sources
}

fn read(directory: &Path, sources: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if matches!(name, "tests" | "generator") {
            continue;
        }
        if path.is_dir() {
            read(&path, sources);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let (program, _) = text
                .split_once("#[cfg(test)]\nmod tests {")
                .unwrap_or((&text, ""));
            sources.push(program.to_owned());
        }
    }
}

/// What comes before a code in the sources: the constructors of refusals, failures and faults, and
/// the fields that hold a code.
const BEFORE_CODES: [&str; 18] = [
    "Refusal::new(",
    "Refusal::malformed(",
    "Refusal::unprocessable(",
    "Refusal::conflict(",
    "Refusal::unavailable(",
    "Self::new(",
    "Self::malformed(",
    "Self::unprocessable(",
    "Self::conflict(",
    "Self::unavailable(",
    "Failure::new(",
    "FileFault::new(",
    "RowFault::of_field(",
    "RowFault::of_record(",
    "TableFault::new(",
    ".reject(",
    "code: ",
    "too_large: ",
];

/// The codes of the warnings of previews and validations. A warning refuses nothing.
const OF_WARNINGS: [&str; 3] = ["row_triggers", "suspicious_quote", "volatile_defaults"];

/// Only commands have this code: a server never reads a file of its own machine.
const OF_COMMANDS: &str = "unreadable_file";

/// The codes that the sources make.
fn codes_in_sources() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for source in sources() {
        for before in BEFORE_CODES {
            for rest in source.split(before).skip(1) {
                let arguments = rest.split(';').next().unwrap();
                // A field is followed by its code at once.
                let is_there = before.ends_with('(') || arguments.starts_with('"');
                codes.extend(literals(arguments).next().filter(|_| is_there));
            }
        }
        codes.extend(constants(&source));
        // The lists of the codes of rejected rows.
        for rest in source.split("_CODES: [&str;").skip(1) {
            codes.extend(literals(rest.split("];").next().unwrap()));
        }
    }
    codes.retain(|code| is_code(code));
    codes
}

/// The values of constants that are codes: their comments or their names say so.
fn constants(source: &str) -> impl Iterator<Item = String> {
    let lines: Vec<&str> = source.lines().collect();
    let constants = lines.windows(3).filter_map(|lines| {
        let (declaration, value) = lines[2].split_once(": &str = ")?;
        let comment = [lines[0], lines[1]].concat();
        let is_code = declaration.ends_with("CODE") || comment.contains("/// The code of ");
        literals(value).next().filter(|_| is_code)
    });
    constants.collect::<Vec<_>>().into_iter()
}

/// The texts in quotes.
fn literals(text: &str) -> impl Iterator<Item = String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned)
}

fn is_code(text: &str) -> bool {
    let is_of_code = |byte: u8| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit();
    text.len() > 4 && text.bytes().all(is_of_code)
}

#[test]
fn the_sources_and_the_document_have_the_same_codes() {
    let document = document();
    let meanings = document["components"]["x-codes"].as_object().unwrap();
    let mut expected: BTreeSet<String> = meanings.keys().cloned().collect();
    expected.extend(OF_WARNINGS.map(str::to_owned));
    expected.insert(OF_COMMANDS.to_owned());
    let found = codes_in_sources();
    let unknown: Vec<_> = found.difference(&expected).collect();
    assert!(unknown.is_empty(), "docs/api.md lacks {unknown:?}");
    let unused: Vec<_> = expected.difference(&found).collect();
    assert!(
        unused.is_empty(),
        "no source makes {unused:?}, or the scan does not see where"
    );
}
