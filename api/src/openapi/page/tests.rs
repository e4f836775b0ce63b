use super::super::DOCUMENT;
use super::*;

#[test]
fn the_page_has_every_operation_and_every_schema() {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let page = page();
    let mut shown = 0;
    for (path, method, operation) in operations(&document) {
        let call = format!("<code>{} {path}</code>", method.to_uppercase());
        assert!(page.contains(&call), "{call}");
        let id = format!("<details id=\"{}\">", text(&operation["operationId"]));
        assert!(page.contains(&id), "{id}");
        shown += 1;
    }
    assert!(shown > 20, "{shown}");
    for (name, _) in entries(&document["components"]["schemas"]) {
        assert!(
            page.contains(&format!("<details id=\"schema-{name}\">")),
            "{name}"
        );
    }
}

#[test]
fn an_operation_is_shown_with_the_components_that_it_refers_to() {
    let (_, operation) = page().split_once("<details id=\"send_file\">").unwrap();
    let (operation, _) = operation.split_once("</details>").unwrap();
    for part in [
        "<td><code>delimiter</code></td>",
        "<td><code>Content-Encoding</code></td>",
        "<td>431</td>",
        "has more than 64 KiB",
        "<a href=\"#schema-UploadForm\">",
        "scope <code>upload</code>.",
    ] {
        assert!(operation.contains(part), "{part}");
    }
}

#[test]
fn every_link_of_the_page_leads_to_a_part_of_it_or_to_the_document() {
    let links = page().split("href=\"").skip(1);
    for link in links.filter_map(|rest| rest.split('"').next()) {
        let is_there = match link.strip_prefix('#') {
            Some(id) => page().contains(&format!("id=\"{id}\"")),
            None => link == "openapi.json",
        };
        assert!(is_there, "{link}");
    }
}

#[test]
fn the_page_has_no_script_and_loads_nothing() {
    for forbidden in [
        "<script",
        "src=",
        "<link",
        "url(",
        "@import",
        " style=",
        "http-equiv",
    ] {
        assert!(!page().contains(forbidden), "{forbidden}");
    }
    assert!(POLICY.starts_with("default-src 'none'; style-src 'sha256-"));
}

#[test]
fn text_of_the_document_is_never_markup() {
    let document = serde_json::json!({
        "info": { "title": "<b>", "version": "\"&'", "description": "a `<i>` b" },
    });
    let page = render(&document);
    assert!(
        page.contains("<h1>&lt;b&gt; &quot;&amp;&#39;</h1>"),
        "{page}"
    );
    assert!(page.contains("<p>a <code>&lt;i&gt;</code> b</p>"), "{page}");
}

/// A document that has this text wherever a document has a text or a name.
fn of_one_text(text: &str) -> Value {
    let schema = serde_json::json!({
        "description": text, "type": [text, "null"], "format": text, "pattern": text, "const": text,
        "default": text, "required": [text], "examples": [{ text: text }],
        "properties": {
            text: { "type": text, "description": text, "enum": [text] },
            "listed": { "items": { "$ref": format!("#/components/schemas/{text}") } },
            "either": { "oneOf": [{ "type": text }, { "enum": [{ text: text }] }] },
        },
    });
    let content = serde_json::json!({ text: { "schema": schema } });
    serde_json::json!({
        "info": { "title": text, "version": text, "description": text },
        "tags": [{ "name": text, "description": text }],
        "paths": { text: { text: {
            "operationId": text, "summary": text, "description": text, "tags": [text],
            "security": [{ text: [text] }],
            "parameters": [{ "name": text, "in": text, "description": text, "schema": schema }],
            "requestBody": { "description": text, "content": content },
            "responses": { text: {
                "description": text, "content": content, "headers": { text: {} },
            } },
        } } },
        "components": {
            "schemas": { text: schema, "plain": { "type": text, "pattern": text } },
            "x-codes": { text: { text: text } },
        },
    })
}

#[test]
fn no_text_and_no_name_of_the_document_becomes_markup_or_leaves_an_attribute() {
    let page = render(&of_one_text("`\"'><evil>&"));
    let shown = page.matches("&lt;evil&gt;").count();
    // Some of these texts are nowhere on the page, and others are there twice.
    assert!(shown > 40, "{shown}: {page}");
    let markup = page.to_ascii_lowercase();
    for forbidden in ["<evil", "\"'", "'>"] {
        assert!(!markup.contains(forbidden), "{forbidden}: {page}");
    }
}
