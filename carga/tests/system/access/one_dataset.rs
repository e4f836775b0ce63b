//! A key that is limited to one dataset.

use anyhow::{Result, ensure};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{ADMIN, closed_app, declare, ids, make, read, request, text};
use crate::answers::problem;
use crate::app::{App, KNOWN_DIALECT};
use crate::harness::Mode;

in_both_modes! {
    a_key_for_one_dataset_sends_files_to_no_other,
}

const FILE: &str = "sku\na\n";

/// Where a request names its dataset.
#[derive(Debug, Clone, Copy)]
enum Named {
    Nowhere,
    Query(&'static str),
    /// In a field of the form before the file.
    Field(&'static str),
    QueryAndField(&'static str, &'static str),
}

/// Sends the file as a form, or as a raw body.
async fn post(app: &App, key: &str, path: &str, named: Named, as_form: bool) -> Result<Response> {
    let dataset = match named {
        Named::Query(dataset) | Named::QueryAndField(dataset, _) => format!("&dataset={dataset}"),
        Named::Nowhere | Named::Field(_) => String::new(),
    };
    let path = format!("{path}?{KNOWN_DIALECT}{dataset}");
    let post = request(app, Method::POST, &path, Some(key));
    if !as_form {
        let post = post.header("content-type", "text/csv");
        return Ok(post.body(FILE).send().await?);
    }
    let form = match named {
        Named::Field(dataset) | Named::QueryAndField(_, dataset) => {
            Form::new().text("dataset", dataset)
        }
        Named::Nowhere | Named::Query(_) => Form::new(),
    };
    let file = Part::text(FILE).file_name("sales.csv");
    Ok(post.multipart(form.part("file", file)).send().await?)
}

async fn expect_wrong_dataset(answer: Response) -> Result<()> {
    let refused = problem(answer, 403, "wrong_dataset").await?;
    let detail = text(&refused, "detail")?;
    ensure!(detail.contains("`sales`"), "{detail}");
    Ok(())
}

async fn a_key_for_one_dataset_sends_files_to_no_other(mode: Mode) -> Result<()> {
    let app = closed_app(mode, 0).await?;
    for name in ["sales", "stock"] {
        let definition = json!({ "columns": [{ "name": "sku", "type": "text" }] });
        ensure!(declare(&app, ADMIN, name, &definition).await?.status() == 201);
    }
    let fields = json!({ "scopes": ["upload", "read"], "dataset": "sales" });
    let key = text(&make(&app, &fields).await?, "key")?;
    for (path, accepted) in [("/uploads", 202), ("/uploads/validate", 200)] {
        for (named, as_form) in [
            (Named::Query("sales"), false),
            (Named::Query("sales"), true),
            (Named::Field("sales"), true),
        ] {
            let answer = post(&app, &key, path, named, as_form).await?;
            let status = answer.status();
            let body = answer.text().await?;
            ensure!(status == accepted, "{path} {named:?}: {status}: {body}");
        }
        for (named, as_form) in [
            (Named::Nowhere, false),
            (Named::Nowhere, true),
            (Named::Query("stock"), false),
            (Named::Query("stock"), true),
            (Named::Field("stock"), true),
        ] {
            expect_wrong_dataset(post(&app, &key, path, named, as_form).await?).await?;
        }
    }
    for path in ["/uploads", "/uploads/validate"] {
        // Each dataset in the query is checked before a repeated option is refused.
        let twice = [
            ("sales&dataset=stock", 403, "wrong_dataset"),
            ("stock&dataset=sales", 403, "wrong_dataset"),
            ("sales&dataset=sales", 400, "repeated_option"),
        ];
        for (datasets, status, code) in twice {
            for as_form in [false, true] {
                let answer = post(&app, &key, path, Named::Query(datasets), as_form).await?;
                problem(answer, status, code).await?;
            }
        }
        let answer = post(
            &app,
            &key,
            path,
            Named::QueryAndField("sales", "stock"),
            true,
        )
        .await?;
        problem(answer, 400, "repeated_option").await?;
    }
    // These calls read a file without a dataset.
    for path in ["/uploads/preview", "/datasets/suggest"] {
        for (named, as_form) in [
            (Named::Nowhere, false),
            (Named::Nowhere, true),
            (Named::Field("stock"), true),
        ] {
            expect_wrong_dataset(post(&app, &key, path, named, as_form).await?).await?;
        }
        let allowed = post(&app, ADMIN, path, Named::Nowhere, true).await?;
        ensure!(allowed.status() == 200, "{}", allowed.text().await?);
    }
    // A refused file is not recorded.
    let page: Value = read(&app, "/uploads", ADMIN).await?;
    ensure!(ids(&page)?.len() == 3, "{page}");
    let page: Value = read(&app, "/uploads?dataset=sales", &key).await?;
    ensure!(ids(&page)?.len() == 3, "{page}");
    app.close().await
}
