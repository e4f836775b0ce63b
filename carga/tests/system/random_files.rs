//! Random files with known faults: Carga must find what the plan of each file says.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use csv::StringRecord;
use futures::TryStreamExt;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use uuid::Uuid;

use crate::app::App;
use crate::files::paced;
use crate::harness::Mode;

in_both_modes! {
    the_counts_and_cells_of_a_random_file_match_its_plan,
}

/// Number of files. They differ in size, delimiter, cells, encoding and line ends.
const FILES: usize = 25;

/// A record of a file: a row, a blank line, or one of the faults.
#[derive(Debug, Clone)]
enum Record {
    Row(Vec<String>),
    Blank,
    TooFew,
    TooMany,
    BadQuote,
    Nul,
    /// A fault in UTF-8 only: Windows-1252 can decode every byte.
    Undecodable,
}

#[derive(Debug, Clone)]
struct Plan {
    columns: usize,
    delimiter: char,
    line_end: &'static str,
    /// The encoding is Windows-1252 if false.
    is_utf8: bool,
    batch_rows: u32,
    records: Vec<Record>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let shape = (
        2usize..6,
        prop::sample::select(vec![',', ';', '\t', '|']),
        prop::sample::select(vec!["\n", "\r\n", "\r"]),
        any::<bool>(),
        1u32..400,
    );
    shape.prop_flat_map(|(columns, delimiter, line_end, is_utf8, batch_rows)| {
        let cell = "[a-zA-Z0-9 ,;|\t\"'éüß\n]{0,12}";
        let record = prop_oneof![
            20 => prop::collection::vec(cell, columns).prop_map(Record::Row),
            1 => Just(Record::Blank),
            1 => Just(Record::TooFew),
            1 => Just(Record::TooMany),
            1 => Just(Record::BadQuote),
            1 => Just(Record::Nul),
            1 => Just(Record::Undecodable),
        ];
        prop::collection::vec(record, 0..1500).prop_map(move |records| Plan {
            columns,
            delimiter,
            line_end,
            is_utf8,
            batch_rows,
            records,
        })
    })
}

/// The outcome that the plan predicts.
#[derive(Debug, Default)]
struct Expected {
    rows: Vec<(i64, StringRecord)>,
    /// The code and byte offset of each rejected row, by row number.
    rejected: BTreeMap<u64, (&'static str, u64)>,
    blank_lines: u64,
}

impl Plan {
    fn query(&self) -> String {
        let delimiter = if self.delimiter == '\t' {
            "tab".to_owned()
        } else {
            format!("%{:02x}", self.delimiter as u32)
        };
        let encoding = if self.is_utf8 {
            "utf-8"
        } else {
            "windows-1252"
        };
        format!("delimiter={delimiter}&encoding={encoding}")
    }

    fn bytes_of(&self, text: &str) -> Vec<u8> {
        if self.is_utf8 {
            return text.as_bytes().to_vec();
        }
        // In Windows-1252 each character used here is one byte, equal to its code point.
        text.chars().map(|c| c as u8).collect()
    }

    /// The cell in quotes, even if it does not need them.
    fn quoted(&self, cell: &str) -> String {
        format!("\"{}\"", cell.replace('"', "\"\""))
    }

    fn render(&self) -> (Vec<u8>, Expected) {
        let Self {
            columns,
            delimiter,
            line_end,
            ..
        } = self;
        let joined = |cells: &[String]| cells.join(&delimiter.to_string());
        let names: Vec<String> = (1..=*columns).map(|column| format!("c{column}")).collect();
        let mut file = self.bytes_of(&(joined(&names) + line_end));
        let mut expected = Expected::default();
        let mut number = 0;
        for record in &self.records {
            let offset = file.len() as u64;
            let sound = vec!["x".to_owned(); *columns];
            number += 1;
            let (text, code) = match record {
                Record::Blank => {
                    number -= 1;
                    expected.blank_lines += 1;
                    (String::new(), None)
                }
                Record::Row(cells) => {
                    let row = StringRecord::from(cells.clone());
                    expected.rows.push((number as i64, row));
                    let cells: Vec<String> = cells.iter().map(|cell| self.quoted(cell)).collect();
                    (joined(&cells), None)
                }
                Record::TooFew => (joined(&sound[1..]), Some("too_few_fields")),
                Record::TooMany => (
                    joined(&[&sound[..], &sound[..1]].concat()),
                    Some("too_many_fields"),
                ),
                Record::BadQuote => {
                    let bad = [&["\"x\"y".to_owned()][..], &sound[1..]].concat();
                    (joined(&bad), Some("bad_quote"))
                }
                Record::Nul => {
                    let bad = [&["x\0".to_owned()][..], &sound[1..]].concat();
                    (joined(&bad), Some("nul_character"))
                }
                Record::Undecodable if self.is_utf8 => (joined(&sound), Some("undecodable")),
                Record::Undecodable => {
                    expected
                        .rows
                        .push((number as i64, StringRecord::from(sound.clone())));
                    (joined(&sound), None)
                }
            };
            let mut bytes = self.bytes_of(&text);
            if code == Some("undecodable") {
                bytes[0] = 0xff;
            }
            file.extend(bytes);
            file.extend(line_end.as_bytes());
            if let Some(code) = code {
                expected.rejected.insert(number, (code, offset));
            }
        }
        (file, expected)
    }
}

async fn the_counts_and_cells_of_a_random_file_match_its_plan(mode: Mode) -> Result<()> {
    // The files are the same in every run; only the timing differs.
    let mut runner = TestRunner::deterministic();
    let mut app: Option<(u32, App)> = None;
    for _ in 0..FILES {
        let tree = plan().new_tree(&mut runner);
        let plan = tree
            .map_err(|reason| anyhow::anyhow!("{reason}"))?
            .current();
        // The batch size is fixed when Carga starts. A restart every five files tests several
        // sizes and costs little time.
        if app.as_ref().is_none_or(|(files, _)| *files == 5) {
            if let Some((_, app)) = app.take() {
                app.close().await?;
            }
            let rows = plan.batch_rows.to_string();
            let harness = mode.harness().await?.with("CARGA_BATCH_ROWS", &rows);
            app = Some((0, App::start(harness, 2).await?));
        }
        if let Some((files, app)) = &mut app {
            *files += 1;
            check(app, &plan).await?;
        }
    }
    match app {
        Some((_, app)) => app.close().await,
        None => Ok(()),
    }
}

async fn check(app: &App, plan: &Plan) -> Result<()> {
    let (file, expected) = plan.render();
    let id = Uuid::now_v7();
    // Pieces of 4,001 bytes end inside lines, fields and characters.
    let body = paced(file, 50 * 4_001);
    let answer = app.put_with(id, &plan.query(), body).await?;
    ensure!(answer.status() == 202, "{}", answer.text().await?);
    let upload = app.wait_until_ended(id).await?;
    let (stored, rejected) = (expected.rows.len(), expected.rejected.len());
    let status = if rejected == 0 {
        "completed"
    } else {
        "partial"
    };
    ensure!(upload["status"] == status, "{upload}");
    ensure!(
        upload["rows"]["read"] == stored + rejected
            && upload["rows"]["inserted"] == stored
            && upload["rows"]["rejected"] == rejected
            && upload["blank_lines"] == expected.blank_lines,
        "expected {stored} stored, {rejected} rejected and {} blank: {upload}",
        expected.blank_lines
    );
    let rows = expected.rows.iter().map(|(number, row)| (*number, row));
    app.harness.check_numbered_rows(id, rows).await?;
    let report = app.client.get(format!("{}/uploads/{id}/rejected", app.url));
    let report = report
        .header("accept", "application/x-ndjson")
        .send()
        .await?;
    let report: Vec<u8> = report
        .bytes_stream()
        .try_fold(Vec::new(), async |mut all, piece| {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await?;
    let mut found = BTreeMap::new();
    for line in report
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let row: Value = serde_json::from_slice(line)?;
        let number = row["row"].as_u64().unwrap_or_default();
        let code = row["code"].as_str().unwrap_or_default().to_owned();
        found.insert(number, (code, row["offset"].as_u64().unwrap_or_default()));
    }
    let reported = found
        .iter()
        .map(|(row, (code, offset))| (*row, (code.as_str(), *offset)));
    ensure!(reported.eq(expected.rejected), "{found:?}");
    Ok(())
}
