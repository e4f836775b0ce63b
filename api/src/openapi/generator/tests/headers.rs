//! The headers of the document are those of the documentation and of `cors`.

use std::collections::BTreeSet;

use axum::http::HeaderValue;
use serde_json::Value;

use super::super::{codes as documentation, document};
use crate::cors::{ANSWER_HEADERS, REQUEST_HEADERS};

/// Headers of requests that HTTP, a browser or a proxy sets, or that another part of an operation
/// describes. They are no parameters.
const WITHOUT_PARAMETER: [&str; 12] = [
    "accept",
    "access-control-request-method",
    "authorization",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "origin",
    "sec-fetch-site",
    "x-api-key",
    "x-forwarded-for",
];

/// Headers of answers that the description of the document names once for all answers.
const OF_PAGES: [&str; 2] = ["access-control-…", "vary"];

/// Headers that scripts may read without permission, or that are for the browser itself.
const WITHOUT_PERMISSION: [&str; 2] = ["cache-control", "content-security-policy"];

type Names = BTreeSet<String>;

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> Names {
    let names = names.into_iter().map(str::to_ascii_lowercase);
    names.collect()
}

/// The headers that are parameters of an operation.
fn parameters(document: &Value) -> Names {
    let shared = document["components"]["parameters"].as_object().unwrap();
    let shared = shared.values();
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|item| item.as_object().unwrap().values());
    let own = operations.flat_map(|it| it["parameters"].as_array().unwrap());
    let in_header = shared.chain(own).filter(|it| it["in"] == "header");
    names(in_header.map(|it| it["name"].as_str().unwrap()))
}

fn of_answers(document: &Value) -> Names {
    let headers = document["components"]["headers"].as_object().unwrap();
    names(
        headers
            .keys()
            .map(|name| name.trim_end_matches(".optional")),
    )
}

fn listed(value: &HeaderValue) -> Names {
    names(value.to_str().unwrap().split(", "))
}

/// The headers of the documentation: those of requests, those of answers, and those of every
/// answer.
fn in_documentation() -> [Names; 3] {
    let of = |direction: &str| {
        let rows = documentation::headers().into_iter();
        let rows = rows.filter(|(_, found)| found.contains(direction) || found == "both");
        rows.map(|(name, _)| name).collect()
    };
    let of_every_answer = documentation::headers_of_every_answer();
    [
        of("request"),
        of("answer"),
        of_every_answer.into_iter().collect(),
    ]
}

#[test]
fn the_headers_of_requests_are_those_of_the_documentation_and_a_page_may_send_them() {
    let parameters = parameters(&document());
    let [mut documented, ..] = in_documentation();
    for name in WITHOUT_PARAMETER {
        assert!(documented.remove(name), "{name}");
    }
    assert_eq!(parameters, documented);
    let mut allowed = parameters;
    allowed.extend(["authorization", "content-type", "x-api-key"].map(str::to_owned));
    assert_eq!(allowed, listed(&REQUEST_HEADERS));
}

#[test]
fn the_headers_of_answers_are_those_of_the_documentation_and_a_page_may_read_them() {
    let mut found = of_answers(&document());
    let [_, mut documented, of_every_answer] = in_documentation();
    for name in OF_PAGES {
        assert!(documented.remove(name), "{name}");
    }
    for name in WITHOUT_PERMISSION {
        assert!(
            found.remove(name) && of_every_answer.contains(name),
            "{name}"
        );
    }
    assert_eq!(found, documented);
    assert_eq!(found, listed(&ANSWER_HEADERS));
}
