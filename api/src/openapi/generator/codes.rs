//! The codes of errors, as `docs/api.md` lists them.

use std::collections::BTreeMap;

const DOCUMENTATION: &str = include_str!("../../../../docs/api.md");

/// A row of the table of errors: a status, its codes, and their meaning.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) status: u16,
    pub(super) codes: Vec<String>,
    pub(super) meaning: String,
}

/// The rows of the table of errors.
pub(super) fn errors() -> Vec<Row> {
    let (_, section) = DOCUMENTATION.split_once("\n## Errors\n").unwrap();
    let cells = rows(section, "| Status | Code | Meaning |");
    let row = |cells: Vec<String>| Row {
        status: cells[0].parse().unwrap(),
        codes: codes(&cells[1]),
        meaning: plain(&cells[2]),
    };
    cells.into_iter().map(row).collect()
}

/// The codes of rejected rows, with their meaning.
pub(super) fn of_rejected_rows() -> BTreeMap<String, String> {
    let tables = [
        "| Code | Reason |",
        "| Code | SQLSTATE | The row violates |",
    ];
    let rows = tables.iter().flat_map(|head| rows(DOCUMENTATION, head));
    let with_meaning = rows.flat_map(|cells| {
        let meaning = plain(cells.last().unwrap());
        let codes = codes(&cells[0]);
        codes.into_iter().map(move |code| (code, meaning.clone()))
    });
    // The second table tells more about the codes that both have.
    with_meaning.collect()
}

/// The calls in the table at the beginning, such as `GET /uploads`.
pub(super) fn calls() -> Vec<String> {
    let rows = rows(DOCUMENTATION, "| Call | Answer |");
    rows.iter().flat_map(|cells| codes(&cells[0])).collect()
}

/// The scopes of each call in the table of scopes, without what its notes add.
pub(super) fn scopes_of_calls() -> Vec<(String, Vec<String>)> {
    let rows = rows(DOCUMENTATION, "| Route | Scope |").into_iter();
    let each = rows.flat_map(|cells| {
        let (scopes, _) = cells[1].split_once(';').unwrap_or((&cells[1], ""));
        let scopes = codes(scopes);
        codes(&cells[0])
            .into_iter()
            .map(move |call| (call, scopes.clone()))
    });
    each.collect()
}

/// The headers in the table of headers, each with its direction: `request`, `answer`, `both`, or
/// one for each of several headers.
pub(super) fn headers() -> Vec<(String, String)> {
    let rows = rows(DOCUMENTATION, "| Header | Direction | Meaning |").into_iter();
    let each = rows.flat_map(|cells| {
        let names: Vec<String> = names(&cells[0]).collect();
        let directions: Vec<&str> = cells[1].split(", ").collect();
        let directions: Vec<String> = (0..names.len())
            .map(|index| directions[index.min(directions.len() - 1)].to_owned())
            .collect();
        names.into_iter().zip(directions)
    });
    each.collect()
}

/// The headers that protect the users of browsers.
pub(super) fn headers_of_every_answer() -> Vec<String> {
    let rows = rows(DOCUMENTATION, "| Header | Value | Meaning |").into_iter();
    rows.flat_map(|cells| names(&cells[0]).collect::<Vec<_>>())
        .collect()
}

/// The names of headers, without the values that some have.
fn names(cell: &str) -> impl Iterator<Item = String> {
    let quoted = codes(cell).into_iter();
    quoted.map(|header| header.split(':').next().unwrap_or_default().to_owned())
}

/// The cells of the table with this head.
fn rows(text: &str, head: &str) -> Vec<Vec<String>> {
    let (_, table) = text
        .split_once(head)
        .unwrap_or_else(|| panic!("no table {head}"));
    let lines = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let cells = |line: &str| {
        let line = line.replace(r"\|", "\u{0}");
        let cells = line.trim_matches('|').split('|');
        cells
            .map(|cell| cell.trim().replace('\u{0}', "|"))
            .collect()
    };
    lines.map(cells).collect()
}

/// The texts in backticks.
fn codes(cell: &str) -> Vec<String> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// The text without the targets of its links.
fn plain(cell: &str) -> String {
    let mut plain = String::new();
    let mut rest = cell;
    while let Some((before, after)) = rest.split_once("](") {
        let (start, label) = before.rsplit_once('[').unwrap();
        let (_, after) = after.split_once(')').unwrap();
        plain.push_str(start);
        plain.push_str(label);
        rest = after;
    }
    plain.push_str(rest);
    plain
}
