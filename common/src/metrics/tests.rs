//! The table of the metrics, held against its documentation, the board and the alerts.

use std::collections::BTreeSet;

use super::local::LocalRecorder;
use super::reject_codes::{INTAKE_CODES, TABLE_CODES};
use super::table::ALL;
use super::{Kind, Metric};

const DOCS: &str = include_str!("../../../docs/metrics.md");
const API_DOCS: &str = include_str!("../../../docs/api.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");
const BOARD: &str = include_str!("../../../deploy/grafana/carga.json");
const RULES: &str = include_str!("../../../deploy/prometheus/rules.yml");

/// Name, kind, labels and meaning of a metric, as the documentation shows them.
type Row = (String, String, Vec<String>, String);

/// The rows of the documentation's tables. Backticks mark code there and nothing here.
fn documented() -> BTreeSet<Row> {
    let rows = DOCS.lines().filter(|line| line.starts_with("| `carga_"));
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|');
        let cells: Vec<String> = cells.map(|cell| cell.trim().replace('`', "")).collect();
        let labels = cells[2].split(", ").filter(|label| !label.is_empty());
        let labels = labels.map(str::to_owned).collect();
        (cells[0].clone(), cells[1].clone(), labels, cells[3].clone())
    };
    rows.map(cells).collect()
}

fn in_code(metric: &Metric) -> Row {
    let labels = metric.labels.iter().map(|label| (*label).to_owned());
    (
        metric.name.to_owned(),
        metric.kind.name().to_owned(),
        labels.collect(),
        metric.help.to_owned(),
    )
}

#[test]
fn the_documentation_has_exactly_the_metrics_of_the_code() {
    let code: BTreeSet<Row> = ALL.into_iter().map(in_code).collect();
    assert_eq!(code.len(), ALL.len(), "a metric is twice in the table");
    assert_eq!(documented(), code);
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    let mut names = BTreeSet::new();
    for Metric {
        name, kind, help, ..
    } in ALL
    {
        assert!(names.insert(*name), "{name} is twice in the table");
        assert!(name.starts_with("carga_"), "{name}");
        let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.chars().all(is_plain), "{name}");
        let is_counter = *kind == Kind::Counter;
        assert_eq!(name.ends_with("_total"), is_counter, "{name}");
        for suffix in ["_sum", "_count", "_bucket"] {
            assert!(!name.ends_with(suffix), "{name}");
        }
        for unit in ["_ms", "_millis", "_minutes", "_kb", "_mb", "_percent"] {
            assert!(!name.contains(unit), "{name}");
        }
        assert!(help.ends_with(['.', ')']), "{name}: {help}");
    }
}

#[test]
fn the_bounds_of_a_histogram_grow() {
    for Metric { name, kind, .. } in ALL {
        if let Kind::Histogram(bounds) = kind {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{name}");
        }
    }
}

/// The names of metrics in a text, without the suffixes of a histogram's series.
fn names_in(text: &str) -> BTreeSet<&str> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c: char| !is_plain(c));
    let names = words.filter(|word| word.starts_with("carga_"));
    names
        .map(|name| {
            let suffixes = ["_bucket", "_sum", "_count"];
            let mut bases = suffixes.iter().filter_map(|end| name.strip_suffix(end));
            bases.next().unwrap_or(name)
        })
        .collect()
}

#[test]
fn the_board_and_the_alerts_name_metrics_that_exist() {
    let known: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
    for (file, text) in [("board", BOARD), ("alerts", RULES)] {
        let used = names_in(text);
        assert!(used.len() > 5, "{used:?}");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn the_board_shows_every_metric_that_an_operator_watches() {
    // This metric is about the exposition itself.
    let elsewhere = ["carga_state_reads_total"];
    let shown = names_in(BOARD);
    for Metric { name, .. } in ALL {
        assert!(shown.contains(name) || elsewhere.contains(name), "{name}");
    }
}

#[test]
fn every_alert_is_explained_and_links_to_its_explanation() {
    let alerts: Vec<&str> = RULES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for alert in &alerts {
        let row = format!("\n| `{alert}` |");
        assert!(OPERATIONS.contains(&row), "{alert}");
    }
    for part in [
        "summary: ",
        "description: ",
        "runbook_url: docs/operations.md#alerts",
    ] {
        assert_eq!(RULES.matches(part).count(), alerts.len(), "{part}");
    }
    assert!(OPERATIONS.contains("\n### Alerts\n"));
}

/// The codes in the first column of the table of `docs/api.md` that has this header.
fn documented_codes(header: &str) -> BTreeSet<&'static str> {
    let (_, table) = API_DOCS.split_once(header).unwrap();
    let rows = table.lines().skip(2).take_while(|line| !line.is_empty());
    let cells = rows.map(|row| row.split('|').nth(1).unwrap());
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn the_reject_codes_are_those_of_the_documentation() {
    let of_a_table: BTreeSet<_> = TABLE_CODES.into();
    assert_eq!(documented_codes("| Code | SQLSTATE |"), of_a_table);
    let mut of_all: BTreeSet<_> = INTAKE_CODES.into();
    // The table of all codes names two of them and refers to the other table.
    of_all.extend(["unique_violation", "check_violation"]);
    assert_eq!(documented_codes("| Code | Reason |"), of_all);
}

#[test]
fn a_histogram_is_rendered_with_its_own_buckets_and_a_help_text() {
    let recorder = LocalRecorder::new().unwrap();
    let histogram = recorder.run(|| super::table::WORKER_COMMIT_BATCHES.histogram());
    histogram.record(3.0);
    let text = recorder.render();
    for line in [
        "# TYPE carga_worker_commit_batches histogram",
        "# HELP carga_worker_commit_batches Batches of a group that is stored in one transaction.",
        "carga_worker_commit_batches_bucket{le=\"2\"} 0",
        "carga_worker_commit_batches_bucket{le=\"4\"} 1",
        "carga_worker_commit_batches_sum 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}
