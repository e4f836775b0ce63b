//! `carga validate`: what an import of a file would do. SQLite has one writer at a time, so the
//! command asks the `carga serve` that uses the data directory. If no server runs, it locks the
//! directory and tries the rows itself.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use carga_common::local_server::path_segment;
use carga_common::rejects::RejectedRow;
use carga_common::settings::Settings;
use carga_common::store::Store;
use carga_intake::options::Options;
use carga_intake::refusal::Refusal;
use carga_intake::validation::{Validation, Validator};
use indicatif::HumanCount;

use super::input::Input;
use super::{connect, has_store, server};
use crate::arguments::ReportFormat;
use crate::data_dir::Entry;
use crate::instance;
use crate::output::{count_rows, one_line, print, printable, printable_json};
use crate::table::{MAX_CHARS, table};

/// How many rejected rows and changed columns are shown.
const MAX_SHOWN: usize = 10;

pub(crate) async fn run(
    settings: &Settings,
    file: &Path,
    options: &[(String, String)],
    format: ReportFormat,
) -> anyhow::Result<ExitCode> {
    let input = Input::open(file).await?;
    let name = input.name.clone();
    let validation = validated(settings, input, options).await;
    let validation = validation.with_context(|| file.display().to_string())?;
    let text = match format {
        ReportFormat::Json => printable_json(&validation)?,
        ReportFormat::Text => printable(&description(&validation, &name)),
    };
    print(text.as_bytes())?;
    Ok(ExitCode::from(match validation.rows.rejected {
        0 => 0,
        _ => 3,
    }))
}

/// Validates the file, with the store if the options need it.
async fn validated(
    settings: &Settings,
    input: Input,
    options: &[(String, String)],
) -> anyhow::Result<Validation> {
    let parsed = Options::from_query(options).map_err(|refusal| refused(&refusal))?;
    // A store that does not exist has neither datasets nor uploads, and nothing should create it.
    if !Validator::needs_store(&parsed) || !has_store(settings) {
        return validated_here(settings, None, input, &parsed).await;
    }
    // Held until the rows are tried.
    let entry = instance::enter(&settings.ports, "carga validate").await?;
    if let Some(Entry::Server(running)) = entry {
        let server = server::trusted(running, settings)?;
        let path = path(options);
        let key = settings.access.admin_key.as_ref();
        let answer = server::send_file(&server, &path, key, input.pieces()).await?;
        return Ok(serde_json::from_str(&answer)?);
    }
    let store = connect(&settings.ports, false).await?;
    let validation = validated_here(settings, Some(Arc::clone(&store)), input, &parsed).await;
    store.close().await;
    validation
}

async fn validated_here(
    settings: &Settings,
    store: Option<Arc<dyn Store>>,
    input: Input,
    options: &Options,
) -> anyhow::Result<Validation> {
    let validator = Validator::new(Arc::new(settings.intake.clone()), store);
    let validation = validator.validate_file(options, input.pieces()).await;
    validation.map_err(|refusal| refused(&refusal))
}

fn refused(refusal: &Refusal) -> anyhow::Error {
    anyhow!("{refusal}")
}

/// The path of the request with the options as its query.
fn path(options: &[(String, String)]) -> String {
    let pairs = options.iter();
    let pairs = pairs.map(|(name, value)| format!("{name}={}", path_segment(value)));
    let pairs: Vec<String> = pairs.collect();
    format!("/uploads/validate?{}", pairs.join("&"))
}

/// The validation for people.
fn description(validation: &Validation, file: &str) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = describe(&mut text, validation, file);
    text
}

fn describe(text: &mut String, validation: &Validation, file: &str) -> std::fmt::Result {
    let rows = &validation.rows;
    let read = count_rows(rows.read);
    writeln!(
        text,
        "{}: {read} read, and nothing is stored",
        one_line(file)
    )?;
    let [insert, update, unchanged, reject] = [
        rows.would_insert,
        rows.would_update,
        rows.unchanged,
        rows.rejected,
    ]
    .map(HumanCount);
    writeln!(
        text,
        "An import would insert {insert}, update {update}, leave {unchanged} unchanged, and reject {reject}."
    )?;
    describe_changes(text, validation)?;
    if rows.rejected > 0 {
        writeln!(text, "\nRejected rows:")?;
    }
    for row in validation.rejected.iter().take(MAX_SHOWN) {
        writeln!(text, "  {}", one_line(&reason(row)))?;
    }
    if rows.rejected > MAX_SHOWN as u64 {
        let more = HumanCount(rows.rejected - MAX_SHOWN as u64);
        writeln!(text, "  … {more} more")?;
    }
    if !validation.warnings.is_empty() {
        writeln!(text, "\nWarnings:")?;
    }
    for warning in &validation.warnings {
        let warning = format!("{}: {}", warning.code, warning.message);
        writeln!(text, "  {}", one_line(&warning))?;
    }
    Ok(())
}

/// The columns that would change in the most rows.
fn describe_changes(text: &mut String, validation: &Validation) -> std::fmt::Result {
    let mut columns: Vec<(&String, &u64)> = validation.changed_columns.iter().collect();
    if columns.is_empty() {
        return Ok(());
    }
    // The sort is stable, so columns with the same number stay in the order of their names.
    columns.sort_by_key(|(_, rows)| std::cmp::Reverse(**rows));
    let mut lines = vec![vec!["COLUMN".to_owned(), "CHANGED ROWS".to_owned()]];
    for (name, rows) in columns.iter().take(MAX_SHOWN) {
        lines.push(vec![(*name).clone(), HumanCount(**rows).to_string()]);
    }
    write!(text, "\n{}", table(&lines, MAX_CHARS))?;
    if columns.len() > MAX_SHOWN {
        writeln!(text, "… {} more", columns.len() - MAX_SHOWN)?;
    }
    Ok(())
}

fn reason(row: &RejectedRow) -> String {
    let column = row.column.as_ref();
    let column = column.map_or(String::new(), |column| format!(", column `{column}`"));
    format!("line {}{column}: {}: {}", row.line, row.code, row.message)
}

#[cfg(test)]
mod tests {
    use carga_common::store::TrialWarning;
    use carga_common::upload::Dialect;
    use carga_intake::validation::RowOutcomes;

    use super::*;

    fn rejected(line: u64) -> RejectedRow {
        RejectedRow {
            row: line - 1,
            line,
            offset: 0,
            column: Some("price".to_owned()),
            code: "check_violation".to_owned(),
            constraint: None,
            message: "two\nlines".to_owned(),
            raw: None,
            fields: None,
        }
    }

    fn validation(rejects: u64) -> Validation {
        Validation {
            dialect: Dialect::rfc4180(false),
            columns: Vec::new(),
            rows: RowOutcomes {
                read: 2500 + rejects,
                would_insert: 1000,
                would_update: 1499,
                unchanged: 1,
                rejected: rejects,
            },
            changed_columns: [("note".to_owned(), 9), ("price".to_owned(), 1490)].into(),
            rejected: (2..2 + rejects).map(rejected).collect(),
            warnings: vec![TrialWarning {
                code: "not_reversible".into(),
                message: "no primary key".to_owned(),
            }],
        }
    }

    #[test]
    fn a_validation_is_described_with_its_figures_changes_rejected_rows_and_warnings() {
        assert_eq!(
            description(&validation(1), "a\nb.csv"),
            "a⏎b.csv: 2,501 rows read, and nothing is stored
An import would insert 1,000, update 1,499, leave 1 unchanged, and reject 1.

COLUMN  CHANGED ROWS
price   1,490
note    9

Rejected rows:
  line 2, column `price`: check_violation: two⏎lines

Warnings:
  not_reversible: no primary key
"
        );
    }

    #[test]
    fn only_the_first_rejected_rows_are_shown() {
        let text = description(&validation(12), "a.csv");
        assert_eq!(text.matches("check_violation").count(), MAX_SHOWN);
        assert!(
            text.contains("  line 11, ") && text.contains("  … 2 more\n"),
            "{text}"
        );
    }

    #[test]
    fn the_description_of_a_file_without_faults_and_changes_has_two_lines() {
        let plain = Validation {
            changed_columns: Default::default(),
            warnings: Vec::new(),
            ..validation(0)
        };
        assert_eq!(description(&plain, "a.csv").lines().count(), 2);
    }

    #[test]
    fn the_options_are_escaped_in_the_query() {
        let options = [("null", "a&b=é"), ("dataset", "my sales")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = "/uploads/validate?null=a%26b%3D%C3%A9&dataset=my%20sales";
        assert_eq!(path(&options), expected);
    }
}
