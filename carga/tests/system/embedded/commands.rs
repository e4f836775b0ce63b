//! The command line: its output and its exit codes.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use carga_testkit::{Binary, DataDir, Scope, command, repository};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use crate::app::App;
use crate::files::{self, csv};

/// An empty working directory without settings, as a new user has it.
struct WorkingDir {
    directory: TempDir,
}

impl WorkingDir {
    fn new() -> Result<Self> {
        Ok(Self {
            directory: TempDir::new()?,
        })
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        Ok(std::fs::write(self.directory.path().join(name), content)?)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = command(Binary::Carga)?;
        command.args(arguments).current_dir(self.directory.path());
        Ok(command)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.command(arguments)?.stdin(Stdio::null()).output();
        output.context("running carga")
    }

    /// Standard output of a command that succeeds.
    fn stdout_of(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Standard error of a command that fails with this exit code.
    fn stderr_of(&self, arguments: &[&str], code: i32) -> Result<String> {
        let output = self.run(arguments)?;
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?}: {output:?}"
        );
        Ok(String::from_utf8(output.stderr)?)
    }

    /// The upload that `status last` shows.
    fn last(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.stdout_of(&["status", "last"])?)?)
    }
}

fn id(upload: &Value) -> Result<&str> {
    upload["id"].as_str().context("no id")
}

#[test]
fn import_stores_the_example_and_rows_prints_it_unchanged() -> Result<()> {
    let working_dir = WorkingDir::new()?;
    let example = repository().join("examples/flights.csv");
    let report = working_dir.stdout_of(&["import", example.to_str().context("no text")?])?;
    let upload = working_dir.last()?;
    let id = id(&upload)?;
    for expected in [
        "flights.csv: 2,500 rows",
        "2013,1,1,517,515,2,830,819,11,UA,1545,",
        "carga-data/carga.db",
        &format!("carga-data/archive/uploads/{id}/"),
        &format!("rows {id}"),
    ] {
        ensure!(
            report.contains(expected),
            "`{expected}` is missing in:\n{report}"
        );
    }
    ensure!(
        upload["status"] == "completed" && upload["rows"]["inserted"] == 2500,
        "{upload}"
    );
    ensure!(upload["filename"] == "flights.csv");
    let listed = working_dir.stdout_of(&["status"])?;
    ensure!(listed.contains(id) && listed.contains("completed") && listed.contains("2,500"));

    let file = std::fs::read(&example)?;
    for which in ["last", id] {
        let printed = working_dir.stdout_of(&["rows", which])?;
        ensure!(files::read(printed.as_bytes())? == files::read(&file)?);
    }
    let two = working_dir.stdout_of(&["rows", id, "--format", "ndjson", "--limit", "2"])?;
    let two: Vec<Value> = two
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(two.len() == 2 && two[0]["tailnum"] == "N14228" && two[1]["tailnum"] == "N24211");
    Ok(())
}

#[test]
fn standard_input_is_imported_like_a_file() -> Result<()> {
    let working_dir = WorkingDir::new()?;
    let mut importing = working_dir
        .command(&["import", "-"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut pipe = importing.stdin.take().context("no pipe")?;
    pipe.write_all(csv(20_000).as_bytes())?;
    drop(pipe);
    let output = importing.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(String::from_utf8(output.stdout)?.contains("standard input: 20,000 rows"));
    let printed = working_dir.stdout_of(&["rows", "last"])?;
    ensure!(files::read(printed.as_bytes())? == files::read(csv(20_000).as_bytes())?);
    Ok(())
}

#[test]
fn a_bad_file_fails_with_code_and_position_and_the_other_files_are_imported() -> Result<()> {
    let working_dir = WorkingDir::new()?;
    working_dir.write("good.csv", csv(1500))?;
    working_dir.write("bad.csv", "id,name\n1,Ada\n2,Grace,Hopper\n")?;
    let problem =
        working_dir.stderr_of(&["import", "--on-error", "abort", "bad.csv", "good.csv"], 1)?;
    for expected in ["bad.csv", "too_many_fields", "row 2", "line 3"] {
        ensure!(
            problem.contains(expected),
            "`{expected}` is missing in:\n{problem}"
        );
    }
    let good = working_dir.last()?;
    ensure!(
        good["filename"] == "good.csv" && good["status"] == "completed",
        "{good}"
    );
    let listed = working_dir.stdout_of(&["status"])?;
    let failed = listed.lines().find(|line| line.contains("failed"));
    let failed = failed
        .and_then(|line| line.split(' ').next())
        .context("no failed upload")?;
    let problem = working_dir.stderr_of(&["rows", failed], 1)?;
    ensure!(
        problem.contains(failed) && problem.contains("found 3"),
        "{problem}"
    );
    ensure!(
        working_dir
            .stdout_of(&["status", failed])?
            .contains("too_many_fields")
    );
    Ok(())
}

#[test]
fn a_missing_file_is_reported_before_any_file_is_imported() -> Result<()> {
    let working_dir = WorkingDir::new()?;
    working_dir.write("good.csv", csv(10))?;
    let problem = working_dir.stderr_of(&["import", "good.csv", "missing.csv"], 1)?;
    ensure!(problem.contains("missing.csv"), "{problem}");
    let problem = working_dir.stderr_of(&["import", "."], 1)?;
    ensure!(problem.contains("is a directory"), "{problem}");
    let problem = working_dir.stderr_of(&["status"], 1)?;
    ensure!(
        problem.contains("nothing has been imported yet"),
        "{problem}"
    );
    ensure!(!working_dir.directory.path().join("carga-data").exists());
    // An invalid command line has its own exit code.
    working_dir.stderr_of(&["import"], 2)?;
    working_dir.stderr_of(&["rows", "first"], 2)?;
    Ok(())
}

#[test]
fn a_wrong_option_value_is_a_wrong_command_line_and_touches_no_data() -> Result<()> {
    let working_dir = WorkingDir::new()?;
    working_dir.write("good.csv", csv(10))?;
    for (option, value) in [
        ("--delimiter", "ab"),
        ("--header", "yes"),
        ("--encoding", "klingon"),
    ] {
        for command in ["import", "preview"] {
            let problem = working_dir.stderr_of(&[command, option, value, "good.csv"], 2)?;
            ensure!(problem.contains(&option[2..]), "{problem}");
        }
    }
    ensure!(!working_dir.directory.path().join("carga-data").exists());
    Ok(())
}

#[test]
fn a_message_that_quotes_a_file_does_not_control_the_terminal() -> Result<()> {
    let working_dir = WorkingDir::new()?;
    // The name repeats, so `strict` refuses the file, and the other import reports the new name.
    // Both messages quote the name.
    working_dir.write("red.csv", "a\u{1b}[31m,a\u{1b}[31m\n1,2\n")?;
    let problem = working_dir.stderr_of(&["import", "--names", "strict", "red.csv"], 1)?;
    let summary = working_dir.stdout_of(&["import", "red.csv"])?;
    for text in [problem, summary] {
        ensure!(text.contains("\\u{1b}[31m"), "{text}");
        ensure!(!text.contains('\u{1b}'), "{text:?}");
    }
    Ok(())
}

#[test]
fn an_unknown_upload_is_reported() -> Result<()> {
    let working_dir = WorkingDir::new()?;
    working_dir.stdout_of(&["migrate"])?;
    let id = Uuid::now_v7().to_string();
    for arguments in [["status", &id], ["rows", &id]] {
        let problem = working_dir.stderr_of(&arguments, 1)?;
        ensure!(problem.contains(&id), "{problem}");
    }
    working_dir.stderr_of(&["rows", "last"], 1)?;
    Ok(())
}

#[test]
fn the_log_of_an_import_names_its_upload_and_the_tenant() -> Result<()> {
    let working_dir = WorkingDir::new()?;
    working_dir.write("bad.csv", "a,b\n1,2\n3\n")?;
    let mut importing = working_dir.command(&["import", "--on-error", "abort", "bad.csv"])?;
    importing.env("CARGA_LOG", "info");
    importing.env("CARGA_LOG_FORMAT", "json");
    let log = String::from_utf8(importing.stdin(Stdio::null()).output()?.stderr)?;
    let mut lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let failed = lines.find(|line| line["fields"]["message"] == "upload failed");
    let failed = failed.with_context(|| log.clone())?;
    ensure!(failed["tenant"] == "default", "{failed}");
    ensure!(failed["upload_id"].is_string(), "{failed}");
    Ok(())
}

#[test]
fn a_closed_output_pipe_is_not_an_error() -> Result<()> {
    let working_dir = WorkingDir::new()?;
    working_dir.write("long.csv", csv(20_000))?;
    working_dir.write("short.csv", csv(10))?;
    working_dir.stdout_of(&["import", "long.csv"])?;
    let commands: [&[&str]; 5] = [
        &["rows", "last"],
        &["rows", "last", "--format", "ndjson"],
        &["status"],
        &["config"],
        &["import", "short.csv"],
    ];
    for arguments in commands {
        let mut printing = working_dir
            .command(arguments)?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // Close the pipe before the command has written most of its output.
        drop(printing.stdout.take());
        let output = printing.wait_with_output()?;
        ensure!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
    Ok(())
}

#[test]
fn config_prints_all_settings_marks_defaults_and_masks_passwords() -> Result<()> {
    let working_dir = WorkingDir::new()?;
    let output = working_dir
        .command(&["config"])?
        .env("DATABASE_URL", "postgres://carga:s3cret@db/carga")
        .env("AWS_ENDPOINT_URL", "http://carga:s3cret@s3:4566")
        .env("AWS_SECRET_ACCESS_KEY", "s3cret")
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout)?;
    ensure!(!printed.contains("s3cret"), "{printed}");
    for line in [
        "DATABASE_URL=postgres://carga:***@db/carga",
        "AWS_ENDPOINT_URL=http://carga:***@s3:4566",
        "AWS_SECRET_ACCESS_KEY=***",
        "# AMQP_URL=sqlite:carga-data/queue.db",
        "# CARGA_LISTEN=127.0.0.1:8080",
    ] {
        ensure!(
            printed.lines().any(|found| found == line),
            "`{line}` is missing in:\n{printed}"
        );
    }
    let output = working_dir
        .command(&["config"])?
        .env("CARGA_PREFETCH", "many")
        .output()?;
    ensure!(output.status.code() == Some(1));
    ensure!(String::from_utf8(output.stderr)?.contains("CARGA_PREFETCH=many"));
    Ok(())
}

#[tokio::test]
async fn an_import_beside_a_running_server_fails_and_names_its_process_and_address() -> Result<()> {
    let app = App::start(DataDir::new()?, 0).await?;
    let working_dir = WorkingDir::new()?;
    working_dir.write("good.csv", csv(10))?;
    let data_dir = app.harness.directory()?.path().to_path_buf();
    let beside = |arguments: &[&str]| -> Result<Output> {
        let mut command = working_dir.command(arguments)?;
        Ok(command.env("CARGA_DATA_DIR", &data_dir).output()?)
    };
    let output = beside(&["import", "good.csv"])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let problem = String::from_utf8(output.stderr)?;
    let process = format!("process {}", app.api.pid());
    for expected in [data_dir.to_str().context("no text")?, &process, &app.url] {
        ensure!(
            problem.contains(expected),
            "`{expected}` is missing in:\n{problem}"
        );
    }
    // Read-only commands work while the server runs.
    let id = Uuid::now_v7();
    ensure!(app.put(id, csv(1500)).await?.status() == 202);
    app.expect_completed(id, 1500).await?;
    let output = beside(&["rows", &id.to_string()])?;
    ensure!(files::read(&output.stdout)? == files::read(csv(1500).as_bytes())?);
    let output = beside(&["status", "last"])?;
    let shown: Value = serde_json::from_slice(&output.stdout)?;
    let (_, served) = app.get(&format!("/uploads/{id}")).await?;
    ensure!(shown == served, "{shown} instead of {served}");
    app.close().await
}

#[tokio::test]
async fn an_import_works_with_rows_in_postgres_and_the_other_ports_on_files() -> Result<()> {
    let scope = Scope::new().await?;
    let working_dir = WorkingDir::new()?;
    working_dir.write("good.csv", csv(3000))?;
    let database = scope.database_url().to_owned();
    let mut importing = working_dir.command(&["import", "good.csv"])?;
    let output = importing.env("DATABASE_URL", &database).output()?;
    ensure!(output.status.success(), "{output:?}");
    let (rows,): (i64,) = sqlx::query_as("SELECT count(*) FROM upload_rows")
        .fetch_one(&scope.pool())
        .await?;
    ensure!(rows == 3000);
    let files = working_dir.directory.path().join("carga-data");
    ensure!(files.join("queue.db").exists() && !files.join("carga.db").exists());
    let mut printing = working_dir.command(&["rows", "last"])?;
    let output = printing.env("DATABASE_URL", &database).output()?;
    ensure!(files::read(&output.stdout)? == files::read(csv(3000).as_bytes())?);
    scope.close().await
}
