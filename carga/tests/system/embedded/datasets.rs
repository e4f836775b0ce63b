//! `carga dataset`, and imports into a dataset.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use carga_testkit::{Binary, DataDir, command};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::answers::problem;
use crate::app::App;
use crate::harness::Harness;

const DEFINITION: &str = r#"{
    "columns": [
        { "name": "sku", "type": "text", "required": true },
        { "name": "price", "type": "numeric", "decimal": "," },
        { "name": "note", "type": "text" }
    ]
}"#;

/// The files that commands read.
pub(super) struct Files(TempDir);

impl Files {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(TempDir::new()?))
    }

    pub(super) fn write(&self, name: &str, content: &str) -> Result<String> {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path.to_str().context("no text")?.to_owned())
    }
}

/// Runs `carga` with the settings of the harness, and `input` on its standard input. Fails unless
/// it ends with this exit code and prints all these texts.
pub(super) fn expect(
    harness: &Harness,
    arguments: &[&str],
    input: &str,
    code: i32,
    texts: &[&str],
) -> Result<String> {
    let mut running = command(Binary::Carga)?
        .args(arguments)
        .envs(harness.env())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut pipe = running.stdin.take().context("no pipe")?;
    // A command that does not read its input may have ended already.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    let output = running.wait_with_output()?;
    let printed = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(
        output.status.code() == Some(code),
        "{arguments:?} ended with {}: {printed}",
        output.status
    );
    for text in texts {
        ensure!(printed.contains(text), "`{text}` is missing in:\n{printed}");
    }
    Ok(printed)
}

#[tokio::test]
async fn commands_declare_fill_show_and_delete_a_dataset() -> Result<()> {
    let (harness, files) = (Harness::from(DataDir::new()?), Files::new()?);
    let definition = files.write("sales.json", DEFINITION)?;
    let put = ["dataset", "put", "sales", &definition];
    let view = "\"datasets_sales_rows\"";
    expect(&harness, &put, "", 0, &["dataset sales is created", view])?;
    let from_stdin = ["dataset", "put", "sales", "-"];
    let same = "dataset sales is unchanged";
    expect(&harness, &from_stdin, DEFINITION, 0, &[same])?;
    let other = DEFINITION.replacen('{', r#"{ "null": ["", "-"],"#, 1);
    let changed = "dataset sales is changed";
    expect(&harness, &from_stdin, &other, 0, &[changed])?;

    let file = "sku,price,colour\na,\"1,50\",red\nb,cheap,blue\n";
    let file = files.write("sales.csv", file)?;
    let import = ["import", "--dataset", "sales", &file];
    expect(
        &harness,
        &import,
        "",
        1,
        &["columns_do_not_match", "`colour`"],
    )?;
    let ignore = ["--unknown-columns", "ignore"];
    let import = [&import[..], &ignore].concat();
    let report = [
        "1 rejected",
        view,
        "not stored: colour",
        "now NULL: note",
        "a,1.50,",
    ];
    expect(&harness, &import, "", 3, &report)?;
    let rows = "sku, price, note";
    let rows = harness.typed("sales", rows, rows).await?;
    ensure!(rows == json!([["a", "1.50", null]]), "{rows}");
    show_everywhere(&harness)?;
    delete_at_last(&harness, &import)?;
    harness.close().await
}

/// Shows the dataset of the test above in every list, and by itself.
fn show_everywhere(harness: &Harness) -> Result<()> {
    let file = "sales.csv (dataset sales)";
    expect(harness, &["status"], "", 0, &[file])?;
    let view = "\"datasets_sales_rows\"";
    let listed = expect(harness, &["dataset", "list"], "", 0, &[view])?;
    let columns = listed.lines().nth(1).context("no dataset")?;
    ensure!(columns.starts_with("sales    3 "), "{listed}");
    let shown = expect(harness, &["dataset", "show", "sales"], "", 0, &[])?;
    let shown: Value = serde_json::from_str(&shown)?;
    ensure!(
        shown["name"] == "sales" && shown["columns"][1]["decimal"] == ",",
        "{shown}"
    );
    Ok(())
}

/// Deletes the dataset of the test above as soon as no upload needs it.
fn delete_at_last(harness: &Harness, import: &[&str]) -> Result<()> {
    let delete = ["dataset", "delete", "sales"];
    expect(harness, &delete, "", 1, &["cannot be deleted", "undo"])?;
    expect(harness, &["undo", "last"], "", 0, &["is undone"])?;
    expect(harness, &delete, "", 0, &["dataset sales is deleted"])?;
    let (missing, remedy) = ("dataset `sales` does not exist", "`carga dataset put`");
    let printed = expect(harness, &delete, "", 1, &[missing])?;
    ensure!(!printed.contains(remedy), "{printed}");
    let show = ["dataset", "show", "sales"];
    expect(harness, &show, "", 1, &[missing, remedy])?;
    expect(harness, import, "", 1, &["dataset_not_found", remedy])?;
    Ok(())
}

#[tokio::test]
async fn an_import_counts_the_rows_that_violate_a_constraint_of_the_table() -> Result<()> {
    let (harness, files) = (Harness::from(DataDir::new()?), Files::new()?);
    let definition = files.write("sales.json", DEFINITION)?;
    let put = ["dataset", "put", "sales", &definition];
    expect(&harness, &put, "", 0, &["dataset sales is created"])?;
    let index = "CREATE UNIQUE INDEX sku_once ON datasets_sales (sku)";
    harness.execute("", index).await?;

    let dialect = ["--delimiter", ",", "--header", "true", "--skip", "0"];
    let (first, second) = ("a,\"1,50\",x\na,\"2,50\",y\nb,cheap,z\n", "a,\"3,50\",x\n");
    for (rows, code, texts) in [
        (first, 3, ["1 were stored", "2 rejected"]),
        (second, 1, ["no_row_fits", "unique_violation"]),
    ] {
        let file = files.write("sales.csv", &format!("sku,price,note\n{rows}"))?;
        let import = ["import", "--dataset", "sales", &file];
        let import = [&import[..], &dialect].concat();
        expect(&harness, &import, "", code, &texts)?;
    }
    let rows = "sku, price, note";
    let rows = harness.typed("sales", rows, rows).await?;
    ensure!(rows == json!([["a", "1.50", "x"]]), "{rows}");
    harness.close().await
}

#[tokio::test]
async fn an_import_reads_its_file_with_the_options_for_cells() -> Result<()> {
    let (harness, files) = (Harness::from(DataDir::new()?), Files::new()?);
    let definition = json!({ "columns": [
        { "name": "sku", "type": "text" },
        { "name": "price", "type": "numeric" },
        { "name": "sold_on", "type": "date" },
    ] });
    let put = ["dataset", "put", "sales", "-"];
    expect(&harness, &put, &definition.to_string(), 0, &["is created"])?;
    let file = "sku;price;sold_on\na;9,50;31/12/2026\nb;-999;NA\n";
    let file = files.write("sales.csv", file)?;
    let dialect = ["--delimiter", ";", "--header", "true", "--skip", "0"];
    let import = ["import", "--dataset", "sales", &file];
    let import = [&import[..], &dialect].concat();
    expect(&harness, &import, "", 1, &["no_row_fits"])?;
    let twice = [&import[..], &["--decimal", ",", "--decimal", "."]].concat();
    expect(&harness, &twice, "", 2, &["--decimal"])?;
    let short = [&import[..], &["--date-format", "%d/%m"]].concat();
    expect(&harness, &short, "", 2, &["the year is missing"])?;
    let null = ["--null", "NA", "--null", "-999"];
    let forms = ["--decimal", ",", "--date-format", "%d/%m/%Y"];
    let import = [&import[..], &null, &forms].concat();
    expect(&harness, &import, "", 0, &["a,9.50,2026-12-31"])?;
    let rows = "sku, price, sold_on";
    let rows = harness.typed("sales", rows, rows).await?;
    let expected = json!([["a", "9.50", "2026-12-31"], ["b", null, null]]);
    ensure!(rows == expected, "{rows}");
    harness.close().await
}

#[tokio::test]
async fn names_in_a_definition_or_a_file_do_not_control_the_terminal() -> Result<()> {
    let (harness, files) = (Harness::from(DataDir::new()?), Files::new()?);
    let definition = json!({ "columns": [
        { "name": "sku", "type": "text", "from": ["a\u{9b}31m", "\u{202e}b"] },
    ] });
    let put = ["dataset", "put", "sales", "-"];
    expect(&harness, &put, &definition.to_string(), 0, &["is created"])?;
    let show = ["dataset", "show", "sales"];
    let shown = expect(&harness, &show, "", 0, &["a\\u009b31m", "\\u202eb"])?;
    ensure!(!shown.contains(['\u{9b}', '\u{202e}']), "{shown:?}");
    let shown: Value = serde_json::from_str(&shown)?;
    ensure!(
        shown["columns"][0]["from"] == definition["columns"][0]["from"],
        "{shown}"
    );

    let file = "sku,\"note\n1 rejected\u{1b}[31m\"\na,b\n";
    let file = files.write("sales.csv", file)?;
    let dialect = ["--delimiter", ",", "--header", "true", "--skip", "0"];
    let import = ["import", "--dataset", "sales", &file];
    let import = [&import[..], &dialect].concat();
    let name = "note⏎1 rejected\\u{1b}[31m";
    let refused = expect(&harness, &import, "", 1, &["columns_do_not_match", name])?;
    let ignore = ["--unknown-columns", "ignore"];
    let import = [&import[..], &ignore].concat();
    let report = expect(&harness, &import, "", 0, &["not stored: note⏎"])?;
    for printed in [refused, report] {
        let is_forged = printed.lines().any(|line| line.starts_with("1 rejected"));
        ensure!(!is_forged && !printed.contains('\u{1b}'), "{printed:?}");
    }
    harness.close().await
}

#[test]
fn a_preview_has_no_options_of_datasets() -> Result<()> {
    let (harness, files) = (Harness::from(DataDir::new()?), Files::new()?);
    let file = files.write("sales.csv", "sku\na\n")?;
    for (flag, value) in [
        ("--dataset", "sales"),
        ("--null", "NA"),
        ("--decimal", ","),
        ("--date-format", "%F"),
        ("--unknown-columns", "ignore"),
        ("--mode", "update"),
        ("--atomic", "true"),
    ] {
        expect(&harness, &["preview", flag, value, &file], "", 2, &[flag])?;
    }
    let help = expect(&harness, &["preview", "--help"], "", 0, &["--delimiter"])?;
    ensure!(!help.contains("dataset"), "{help}");
    Ok(())
}

#[test]
fn a_faulty_command_names_the_fault_and_touches_no_data() -> Result<()> {
    let (harness, files) = (Harness::from(DataDir::new()?), Files::new()?);
    let kind = files.write("kind.json", &DEFINITION.replace("numeric", "money"))?;
    let with = |field: &str| DEFINITION.replacen('{', &format!("{{ {field},"), 1);
    let key = files.write("key.json", &with(r#""key": ["colour"]"#))?;
    let table = files.write("table.json", &with(r#""table": "public.sales""#))?;
    for (name, file, code, text) in [
        ("sales", kind.as_str(), 1, "columns[1].type"),
        ("sales", key.as_str(), 1, "key[0]"),
        ("sales", table.as_str(), 1, "`table`"),
        ("sales", "missing.json", 1, "missing.json"),
        ("a/b", kind.as_str(), 2, "`/`"),
    ] {
        let put = ["dataset", "put", name, file];
        expect(&harness, &put, "", code, &[text])?;
    }
    let delete = ["dataset", "delete", "sales"];
    expect(&harness, &delete, "", 1, &["nothing has been imported yet"])?;
    let directory: &Path = harness.directory()?.path();
    ensure!(!directory.exists());
    Ok(())
}

#[tokio::test]
async fn a_running_server_declares_and_deletes_datasets() -> Result<()> {
    let app = App::start(DataDir::new()?, 0).await?;
    let files = Files::new()?;
    let definition = files.write("sales.json", DEFINITION)?;
    let smaller = r#"{ "columns": [{ "name": "sku", "type": "text" }] }"#;
    let smaller = files.write("smaller.json", smaller)?;
    let name = "my sales é 100 %?";
    let put = ["dataset", "put", name, &definition];
    expect(&app.harness, &put, "", 0, &["is created"])?;
    expect(&app.harness, &put, "", 0, &["is unchanged"])?;
    let other = DEFINITION.replacen('{', r#"{ "null": ["", "-"],"#, 1);
    let from_stdin = ["dataset", "put", name, "-"];
    expect(&app.harness, &from_stdin, &other, 0, &["is changed"])?;
    let put = ["dataset", "put", name, &smaller];
    let refused = "cannot take this definition";
    expect(&app.harness, &put, "", 1, &[refused])?;
    let (_, list) = app.get("/datasets").await?;
    ensure!(list["datasets"][0]["name"] == name, "{list}");

    let id = Uuid::now_v7();
    let query = "dataset=my%20sales%20%C3%A9%20100%20%25%3F&delimiter=,&header=true";
    let file = "sku,price,note\na,\"1,50\",\n";
    ensure!(app.put_with(id, query, file).await?.status() == 202);
    app.wait_until_ended(id).await?;
    let delete = ["dataset", "delete", name];
    expect(&app.harness, &delete, "", 1, &["undo"])?;
    let undo = ["undo", &id.to_string()];
    expect(&app.harness, &undo, "", 0, &["is undone"])?;
    app.wait_until_cleaned(id).await?;
    expect(&app.harness, &delete, "", 0, &["is deleted"])?;
    let unknown = app.put_with(Uuid::now_v7(), query, file).await?;
    problem(unknown, 404, "dataset_not_found").await?;
    app.close().await
}
