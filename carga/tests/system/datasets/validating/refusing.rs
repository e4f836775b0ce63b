//! A file that an upload refuses is refused by a validation with the same problem.

use anyhow::{Context, Result, ensure};
use reqwest::multipart::{Form, Part};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use super::state::State;
use super::{figures, validate, validating};
use crate::answers::problem;
use crate::app::App;
use crate::datasets::merging::{PRODUCTS, declare_products, send_accepted};
use crate::datasets::merging_violations::{LENIENT, second_file, start};
use crate::datasets::{declare, detail, options, send};
use crate::harness::Mode;

in_both_modes! {
    a_validation_refuses_what_an_upload_refuses,
    a_file_that_was_imported_before_is_refused_with_on_duplicate,
    a_request_with_a_fault_is_refused_as_by_an_upload,
    rows_that_the_table_rejects_count_for_max_rejects_and_on_error,
    a_file_of_which_the_table_takes_no_row_is_refused,
}

/// Options, a file, and the status and the code of the refusal.
type Case = (
    &'static [(&'static str, &'static str)],
    &'static str,
    u16,
    &'static str,
);

const FITTING: &str = "sku,price,note\na,1.50,x\n";

/// Two of three rows are rejected before the merge.
const FAULTY: &str = "sku,price,note\na,1.50,x\nb,cheap,x\nc,dear,x\n";

const TO_PRODUCTS: (&str, &str) = ("dataset", PRODUCTS);

const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Files that an upload refuses before it reads their rows, or while it reads them.
#[rustfmt::skip]
const REFUSED: [Case; 16] = [
    (&[("datasett", "x")], FITTING, 400, "unknown_option"),
    (&[("mode", "append")], FITTING, 400, "malformed_option"),
    (&[("dataset", "x")], FITTING, 404, "dataset_not_found"),
    (&[TO_PRODUCTS, ("mode", "x")], FITTING, 400, "malformed_option"),
    (&[TO_PRODUCTS, ("atomic", "x")], FITTING, 400, "malformed_option"),
    (&[("dataset", "numbers"), ("mode", "update")], "id\n1\n", 422, "no_key"),
    (&[TO_PRODUCTS], "", 422, "empty_file"),
    (&[TO_PRODUCTS], "price,note\n1.50,x\n", 422, "columns_do_not_match"),
    (&[TO_PRODUCTS], "sku,price,colour\na,1.50,x\n", 422, "columns_do_not_match"),
    (&[("names", "strict")], "a,b,a\n1,2,3\n", 422, "duplicate_column_name"),
    (&[("on_error", "abort")], "a,b\n1\n", 422, "too_few_fields"),
    (&[TO_PRODUCTS], "sku,price,note\na,cheap,x\nb,dear,x\n", 422, "no_row_fits"),
    (&[TO_PRODUCTS, ("on_error", "abort")], FAULTY, 422, "wrong_type"),
    (&[TO_PRODUCTS, ("max_rejects", "1")], FAULTY, 422, "too_many_rejects"),
    (&[TO_PRODUCTS, ("max_rejects", "50%")], FAULTY, 422, "too_many_rejects"),
    (&[TO_PRODUCTS, ("sha256", NO_DIGEST)], FITTING, 422, "sha256_mismatch"),
];

/// The problem of an answer without the fields that differ in every answer.
async fn comparable(answer: Response, status: u16, code: &str) -> Result<Value> {
    let mut problem = problem(answer, status, code).await?;
    let fields = problem.as_object_mut().context("no object")?;
    fields.remove("request_id");
    Ok(problem)
}

/// Validates a file. Fails unless it is refused with this code, and returns the problem.
pub(super) async fn refused_validation(
    app: &App,
    options: &[(&str, &str)],
    file: &str,
    (status, code): (u16, &str),
) -> Result<Value> {
    let answer = validating(app, options, file.to_owned())?.send().await?;
    comparable(answer, status, code).await
}

/// Sends a file. Fails unless it is refused with this code, and returns the problem without the
/// upload.
pub(super) async fn refused_upload(
    app: &App,
    options: &[(&str, &str)],
    file: &str,
    (status, code): (u16, &str),
) -> Result<Value> {
    let answer = send(app, Uuid::now_v7(), options, file.to_owned()).await?;
    let mut problem = comparable(answer, status, code).await?;
    let fields = problem.as_object_mut().context("no object")?;
    fields.remove("upload");
    Ok(problem)
}

/// Adds the dialect to options. It is hard to detect in a file of a few lines.
fn with_dialect<'a>(given: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let dialect = options(PRODUCTS, &[]).into_iter().skip(1);
    dialect.chain(given.iter().copied()).collect()
}

async fn a_validation_refuses_what_an_upload_refuses(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 0).await?;
    declare_products(&app).await?;
    let numbers = json!([{ "name": "id", "type": "integer" }]);
    declare(&app, "numbers", numbers).await?;
    let state = State::read(&app).await?;
    let mut problems = Vec::new();
    for (given, file, status, code) in REFUSED {
        let refused = refused_validation(&app, &with_dialect(given), file, (status, code)).await;
        problems.push(refused.with_context(|| format!("{given:?} of {file:?}"))?);
    }
    state.expect_unchanged(&app).await?;
    for ((given, file, status, code), found) in REFUSED.into_iter().zip(problems) {
        let refused = refused_upload(&app, &with_dialect(given), file, (status, code)).await;
        let expected = refused.with_context(|| format!("{given:?} of {file:?}"))?;
        ensure!(found == expected, "{found} instead of {expected}");
        if code == "wrong_type" {
            let position = ["row", "line", "column"].map(|field| &found[field]);
            ensure!(json!(position) == json!([2, 3, "price"]), "{found}");
        }
    }
    app.close().await
}

async fn a_file_that_was_imported_before_is_refused_with_on_duplicate(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 1).await?;
    declare_products(&app).await?;
    let reject = with_dialect(&[TO_PRODUCTS, ("on_duplicate", "reject")]);
    // A validation does not count as an earlier upload.
    for _ in 0..2 {
        let answer = validating(&app, &reject, FITTING)?.send().await?;
        ensure!(answer.status() == 200, "{}", answer.text().await?);
    }
    let id = send_accepted(&app, PRODUCTS, &[("on_duplicate", "reject")], FITTING).await?;
    app.wait_until_ended(id).await?;
    let duplicate = (409, "duplicate_file");
    let found = refused_validation(&app, &reject, FITTING, duplicate).await?;
    let expected = refused_upload(&app, &reject, FITTING, duplicate).await?;
    ensure!(found == expected, "{found} instead of {expected}");
    ensure!(detail(&found)?.contains(&id.to_string()), "{found}");
    app.close().await
}

/// Adds headers and a body to a request.
type Request = fn(RequestBuilder) -> RequestBuilder;

async fn a_request_with_a_fault_is_refused_as_by_an_upload(mode: Mode) -> Result<()> {
    let harness = mode.harness().await?;
    let app = App::start(harness.with("CARGA_MAX_UPLOAD_BYTES", "2000000"), 0).await?;
    let post = |path: &str| app.client.post(format!("{}{path}", app.url));
    let requests: [(Request, u16, &str); 5] = [
        (
            |post| {
                let file = Part::text("a,b\n1,2\n").file_name("a.csv");
                post.multipart(Form::new().part("file", file).text("delimiter", ";"))
            },
            422,
            "part_after_file",
        ),
        (
            |post| post.header("content-type", "application/json").body("{}"),
            415,
            "unsupported_media_type",
        ),
        (
            |post| {
                let post = post.header("content-type", "text/csv; charset=klingon");
                post.body("a\n")
            },
            415,
            "unsupported_charset",
        ),
        (
            |post| {
                let post = post.header("content-type", "multipart/form-data");
                post.body("a\n")
            },
            400,
            "malformed_form",
        ),
        (
            |post| {
                let post = post.header("content-type", "text/csv");
                post.body("x".repeat(2_000_001))
            },
            413,
            "upload_too_large",
        ),
    ];
    for (request, status, code) in requests {
        let answer = request(post("/uploads/validate")).send().await?;
        let found = comparable(answer, status, code).await?;
        let answer = request(post("/uploads")).send().await?;
        let mut expected = comparable(answer, status, code).await?;
        let fields = expected.as_object_mut().context("no object")?;
        fields.remove("upload");
        ensure!(found == expected, "{found} instead of {expected}");
    }
    let answer = post("/uploads/validate").send().await?;
    ensure!(answer.status().is_client_error(), "{}", answer.status());
    app.close().await
}

/// A file of which the table rejects the second row.
const ABORTED: &str = "sku,price,note\ns1,2.50,x\ns2,-1.00,y\ns3,2.50,z\n";

async fn rows_that_the_table_rejects_count_for_max_rejects_and_on_error(mode: Mode) -> Result<()> {
    let app = start(mode).await?;
    // Ten of 200 rows violate a constraint.
    let many = second_file();
    let many = many.as_str();
    for (option, file, text) in [
        (("max_rejects", "9"), many, "more than 9 rows"),
        (("max_rejects", "4.9%"), many, "4.9%"),
        (("on_error", "abort"), ABORTED, ""),
        (("on_error", "abort"), many, ""),
    ] {
        let state = State::read(&app).await?;
        let further = [LENIENT, option];
        let options = options(PRODUCTS, &further);
        let answer = validating(&app, &options, file.to_owned())?.send().await?;
        ensure!(answer.status() == 422, "{option:?}: {}", answer.status());
        let refused: Value = answer.json().await?;
        ensure!(detail(&refused)?.contains(text), "{refused}");
        ensure!(refused["upload"].is_null(), "{refused}");
        state.expect_unchanged(&app).await?;

        let id = send_accepted(&app, PRODUCTS, &further, file.to_owned()).await?;
        let code = refused["code"].as_str().context("no code")?;
        let upload = app.expect_failed(id, code).await?;
        let error = &upload["error"];
        for field in ["row", "line", "column"] {
            ensure!(refused[field] == error[field], "{refused} and {error}");
        }
        ensure!(
            detail(&refused)? == error["message"],
            "{refused} and {error}"
        );
    }
    for max in ["10", "5%"] {
        let further = [LENIENT, ("max_rejects", max)];
        let validation = validate(&app, PRODUCTS, &further, second_file()).await?;
        ensure!(
            validation["rows"] == figures([200, 95, 95, 0, 10]),
            "{validation}"
        );
    }
    app.close().await
}

async fn a_file_of_which_the_table_takes_no_row_is_refused(mode: Mode) -> Result<()> {
    let app = start(mode).await?;
    let state = State::read(&app).await?;
    // The table rejects the first row. The second one is rejected before.
    let file = "sku,price,note\ns1,-1.0,x\ns2,cheap,x\n";
    let no_row = (422, "no_row_fits");
    let refused = refused_validation(&app, &options(PRODUCTS, &[]), file, no_row).await?;
    ensure!(detail(&refused)?.contains(PRODUCTS), "{refused}");
    state.expect_unchanged(&app).await?;
    let id = send_accepted(&app, PRODUCTS, &[], file).await?;
    let upload = app.expect_failed(id, "no_row_fits").await?;
    ensure!(
        detail(&refused)? == upload["error"]["message"],
        "{refused} and {upload}"
    );
    app.close().await
}
