//! The page of the document: HTML with one style sheet, no script and no other file.

mod html;
mod schema;

use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use carga_common::sha256::Sha256;
use serde_json::Value;

use self::html::{Html, escaped, prose};
use self::schema::{fields, shape};
use super::parsed;

const STYLE: &str = include_str!("page/style.css");

/// The `Content-Security-Policy` of the page: a browser loads nothing, runs nothing, and applies
/// only the style sheet in the page.
pub(crate) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = BASE64_STANDARD.encode(Sha256::of(STYLE.as_bytes()).as_bytes());
    format!(
        "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

static PAGE: LazyLock<String> = LazyLock::new(|| render(&parsed()));

/// The page, made from the document at the first call.
pub(crate) fn page() -> &'static str {
    &PAGE
}

fn render(document: &Value) -> String {
    let mut html = Html::default();
    let info = &document["info"];
    let title = format!("{} {}", text(&info["title"]), text(&info["version"]));
    html.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    html.element("title", &escaped(&title));
    html.element("style", STYLE);
    html.raw("</head><body><main>");
    html.element("h1", &escaped(&title));
    html.raw(&prose(text(&info["description"])));
    html.raw("<p><a href=\"openapi.json\">openapi.json</a> has everything on this page.</p>");
    for tag in list(&document["tags"]) {
        html.element("h2", &escaped(text(&tag["name"])));
        html.raw(&prose(text(&tag["description"])));
        for (path, method, operation) in operations(document) {
            if operation["tags"][0] == tag["name"] {
                show_operation(&mut html, document, path, method, operation);
            }
        }
    }
    show_schemas(&mut html, document);
    show_codes(&mut html, document);
    html.raw("</main></body></html>\n");
    html.into_text()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.as_str(), value))
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    entries(&document["paths"]).flat_map(|(path, item)| {
        entries(item).map(move |(method, operation)| (path, method, operation))
    })
}

/// The value itself, or the component that it refers to.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let reference = value["$ref"].as_str();
    let pointer = reference.and_then(|reference| reference.strip_prefix('#'));
    pointer
        .and_then(|pointer| document.pointer(pointer))
        .unwrap_or(value)
}

fn show_operation(html: &mut Html, document: &Value, path: &str, method: &str, operation: &Value) {
    let call = format!("{} {path}", method.to_uppercase());
    let id = escaped(text(&operation["operationId"]));
    let summary = escaped(text(&operation["summary"]));
    html.raw(&format!(
        "<details id=\"{id}\"><summary><code>{}</code> {summary}</summary>",
        escaped(&call)
    ));
    html.raw(&prose(text(&operation["description"])));
    html.element("p", &scopes(operation));
    let parameters = list(&operation["parameters"]).iter();
    let parameters = parameters.map(|parameter| resolved(document, parameter));
    html.table(
        &["Parameter", "In", "Value", "Meaning"],
        parameters.map(|parameter| {
            let name = named(text(&parameter["name"]), parameter["required"] == true);
            let place = escaped(text(&parameter["in"]));
            [
                name,
                place,
                shape(&parameter["schema"]),
                prose(text(&parameter["description"])),
            ]
        }),
    );
    let body = &operation["requestBody"];
    html.table(
        &["Body", "Value", "Meaning"],
        entries(&body["content"]).map(|(media_type, content)| {
            [
                code(media_type),
                shape(&content["schema"]),
                prose(text(&body["description"])),
            ]
        }),
    );
    let answers = entries(&operation["responses"]);
    html.table(
        &["Status", "Answer", "Headers", "Meaning"],
        answers.map(|(status, answer)| show_answer(status, resolved(document, answer))),
    );
    html.raw("</details>");
}

fn show_answer(status: &str, answer: &Value) -> [String; 4] {
    let contents: Vec<String> = entries(&answer["content"])
        .map(|(media_type, content)| format!("{} {}", code(media_type), shape(&content["schema"])))
        .collect();
    let headers: Vec<String> = entries(&answer["headers"])
        .map(|(name, _)| code(name))
        .collect();
    let meaning = prose(text(&answer["description"]));
    [
        escaped(status),
        contents.join("<br>"),
        headers.join(" "),
        meaning,
    ]
}

/// Who may use the operation. Each alternative has one scheme and one scope.
fn scopes(operation: &Value) -> String {
    let mut names: Vec<&str> = Vec::new();
    for alternative in list(&operation["security"]) {
        for (_, scopes) in entries(alternative) {
            for scope in list(scopes).iter().map(text) {
                if !names.contains(&scope) {
                    names.push(scope);
                }
            }
        }
    }
    let names: Vec<String> = names.into_iter().map(code).collect();
    match names.is_empty() {
        true => "Needs no key.".to_owned(),
        false => format!("Needs a key with scope {}.", names.join(" or ")),
    }
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", escaped(text))
}

fn named(name: &str, is_required: bool) -> String {
    let mark = if is_required { " <b>required</b>" } else { "" };
    format!("{}{mark}", code(name))
}

fn show_schemas(html: &mut Html, document: &Value) {
    html.element("h2", "schemas");
    for (name, schema) in entries(&document["components"]["schemas"]) {
        let name = escaped(name);
        html.raw(&format!(
            "<details id=\"schema-{name}\"><summary><code>{name}</code></summary>"
        ));
        html.raw(&prose(text(&schema["description"])));
        if schema.get("properties").is_none() {
            html.element("p", &shape(schema));
        }
        html.table(
            &["Field", "Value", "Meaning"],
            fields(schema)
                .into_iter()
                .map(|(name, is_required, field)| {
                    [
                        named(name, is_required),
                        shape(field),
                        prose(text(&field["description"])),
                    ]
                }),
        );
        for example in list(&schema["examples"]) {
            let example = serde_json::to_string_pretty(example).unwrap_or_default();
            html.element("pre", &escaped(&example));
        }
        html.raw("</details>");
    }
}

fn show_codes(html: &mut Html, document: &Value) {
    html.element("h2", "codes");
    let codes = entries(&document["components"]["x-codes"]);
    let rows = codes.flat_map(|(name, meanings)| {
        let meanings = entries(meanings);
        meanings.map(move |(status, meaning)| [code(name), escaped(status), prose(text(meaning))])
    });
    html.table(&["Code", "Status", "Meaning"], rows);
}

#[cfg(test)]
mod tests;
