//! `carga preview`: how a file would be read, without reading all of it.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use carga_common::settings::Settings;
use carga_common::upload::Dialect;
use carga_intake::preview::{Preview, preview_file};

use super::input::Input;
use crate::output::{count_rows, print, printable, printable_json};
use crate::table::{MAX_CHARS, table};

/// How many rows are shown, and how many rejected rows.
const MAX_ROWS: usize = 10;

pub(crate) async fn run(
    settings: &Settings,
    file: &Path,
    options: &[(String, String)],
    is_json: bool,
) -> anyhow::Result<ExitCode> {
    let input = Input::open(file).await?;
    let preview = preview_file(options, &settings.intake, input.pieces()).await;
    let preview = preview.map_err(|refusal| anyhow::anyhow!("{}: {refusal}", file.display()))?;
    let text = match is_json {
        true => printable_json(&preview)?,
        false => printable(&description(&preview, &file.display().to_string())),
    };
    print(text.as_bytes())?;
    let is_refused = preview.problem.is_some();
    Ok(ExitCode::from(u8::from(is_refused)))
}

/// The preview for people: what was found and why, the first rows, and what would be rejected.
fn description(preview: &Preview, file: &str) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = describe(&mut text, preview, file);
    text
}

fn describe(text: &mut String, preview: &Preview, file: &str) -> std::fmt::Result {
    if let Some(dialect) = &preview.dialect {
        text.push_str(&table(&findings(dialect), usize::MAX));
        text.push('\n');
    }
    match &preview.problem {
        Some(problem) => {
            writeln!(text, "An import would refuse this file.")?;
            let line = problem
                .line
                .map_or(String::new(), |line| format!("line {line}: "));
            writeln!(text, "  {line}{}: {}\n", problem.code, problem.message)?;
            writeln!(text, "The first lines of the file:")?;
            for line in &preview.first_lines {
                writeln!(text, "  {line}")?;
            }
            if preview.looked_at.rows > 0 {
                text.push('\n');
                describe_counts(text, preview)?;
            }
        }
        None => {
            let cell = |cell: &Option<String>| cell.clone().unwrap_or_default();
            let mut rows = vec![preview.columns.clone()];
            let first = preview.rows.iter().take(MAX_ROWS);
            rows.extend(first.map(|row| row.iter().map(cell).collect()));
            text.push_str(&table(&rows, MAX_CHARS));
            text.push('\n');
            describe_counts(text, preview)?;
        }
    }
    for suggestion in &preview.suggestions {
        let flags = suggestion
            .options
            .iter()
            .map(|(name, value)| flag(name, value));
        let flags: Vec<String> = flags.collect();
        writeln!(
            text,
            "\nTry: carga preview {} {}",
            quoted(file),
            flags.join(" ")
        )?;
        writeln!(text, "  {}", suggestion.why)?;
    }
    Ok(())
}

fn describe_counts(text: &mut String, preview: &Preview) -> std::fmt::Result {
    let looked_at = &preview.looked_at;
    let part = match looked_at.whole {
        true => "The file has",
        false => "The first MiB has",
    };
    let stored = count_rows(looked_at.rows - looked_at.rejected);
    writeln!(
        text,
        "{part} {stored} to store and {} to reject.",
        looked_at.rejected
    )?;
    for rejected in preview.rejected.iter().take(MAX_ROWS) {
        let (line, code, message) = (rejected.line, &rejected.code, &rejected.message);
        writeln!(text, "  line {line}: {code}: {message}")?;
    }
    for warning in preview.warnings.iter().take(MAX_ROWS) {
        let (line, code, message) = (warning.line, warning.code, &warning.message);
        writeln!(text, "  line {line}: warning {code}: {message}")?;
    }
    Ok(())
}

/// What was found about the file, with the evidence.
fn findings(dialect: &Dialect) -> Vec<Vec<String>> {
    let evidence = dialect.evidence.as_ref();
    let row = |name: &str, value: &str, evidence: Option<&String>| {
        let evidence = evidence.cloned().unwrap_or_default();
        vec![name.to_owned(), value.to_owned(), evidence]
    };
    let delimiter = match dialect.delimiter.as_str() {
        "\t" => "tab",
        other => other,
    };
    let quote = match dialect.quote.as_str() {
        "" => "none",
        other => other,
    };
    let header = if dialect.header { "yes" } else { "no" };
    let mut rows = vec![
        row(
            "encoding",
            &dialect.encoding,
            evidence.map(|it| &it.encoding),
        ),
        row("delimiter", delimiter, evidence.map(|it| &it.delimiter)),
        row("quote", quote, None),
        row("header", header, evidence.map(|it| &it.header)),
        row(
            "skipped",
            &dialect.skipped_lines.to_string(),
            evidence.map(|it| &it.skip),
        ),
    ];
    if let Some(compression) = &dialect.compression {
        rows.insert(0, row("compression", compression, None));
    }
    if let Some(escape) = &dialect.escape {
        rows.push(row("escape", escape, None));
    }
    if dialect.trailing_delimiter {
        rows.push(row(
            "trailing",
            "yes",
            Some(&"rows end with a delimiter".to_owned()),
        ));
    }
    for renamed in &dialect.renamed {
        let change = match &renamed.to {
            Some(to) => format!("field {} is `{to}`", renamed.column),
            None => format!("field {} is left out", renamed.column),
        };
        let from = format!("its name in the file is `{}`", renamed.from);
        rows.push(row("renamed", &change, Some(&from)));
    }
    rows
}

/// An option on the command line, with its value quoted for a shell if that is needed.
fn flag(name: &str, value: &str) -> String {
    format!("--{} {}", name.replace('_', "-"), quoted(value))
}

fn quoted(value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./,:%+".contains(&byte);
    match !value.is_empty() && value.bytes().all(is_plain) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_quoted_for_a_shell_if_it_needs_it() {
        assert_eq!(flag("short_rows", "pad"), "--short-rows pad");
        assert_eq!(flag("quote", "'"), r"--quote ''\'''");
        assert_eq!(flag("delimiter", ";"), "--delimiter ';'");
    }
}
