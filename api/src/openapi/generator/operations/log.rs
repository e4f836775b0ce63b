//! The calls about the log filter.

use serde_json::{Value, json};

use super::super::answers::{json_answer, schema};
use super::super::operation::{Operation, operation};

pub(super) fn operations() -> Vec<Operation> {
    vec![show(), change(), reset()]
}

fn show() -> Operation {
    operation(
        "GET /admin/log",
        "get_log_filter",
        "Show what the process logs",
    )
    .tag("log")
    .answer(200, filter("The filter of the process that answers."))
}

fn change() -> Operation {
    operation(
        "PUT /admin/log",
        "put_log_filter",
        "Change what the process logs, until it ends",
    )
    .tag("log")
    .about("The change is for the process that answers. Other APIs and the workers keep theirs.")
    .shared(&["DocumentEncoding"])
    .body(
        "The filter, with at most 16 KiB.",
        json!({ "application/json": { "schema": schema("LogFilterRequest") } }),
    )
    .answer(200, filter("The filter is in effect."))
    .refuse(413, &["log_filter_too_large"])
    .refuse(415, &["unsupported_media_type", "unsupported_encoding"])
    .refuse(422, &["incomplete_body", "body_timeout"])
    .refuse(422, &["malformed_log_filter"])
}

fn reset() -> Operation {
    operation(
        "DELETE /admin/log",
        "reset_log_filter",
        "Restore the filter of `CARGA_LOG`",
    )
    .tag("log")
    .answer(200, filter("The filter of `CARGA_LOG` is in effect."))
}

fn filter(description: &str) -> Value {
    json_answer(description, &[], "LogFilter")
}
