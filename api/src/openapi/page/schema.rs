//! Schemas as HTML.

use serde_json::Value;

use super::html::escaped;
use super::{code, entries, list, text};

/// The values that a schema allows, in short.
pub(super) fn shape(schema: &Value) -> String {
    if let Some(name) = text(&schema["$ref"]).strip_prefix("#/components/schemas/") {
        let name = escaped(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    for (field, joint) in [("oneOf", " or "), ("allOf", " with ")] {
        let parts: Vec<String> = list(&schema[field]).iter().map(shape).collect();
        if !parts.is_empty() {
            return parts.join(joint);
        }
    }
    let values = list(&schema["enum"]);
    if !values.is_empty() {
        let values: Vec<String> = values.iter().map(json).collect();
        return values.join(" ");
    }
    if schema.get("items").is_some() && schema["items"] != false {
        return format!("list of {}{}", shape(&schema["items"]), limits(schema));
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(text).collect(),
        kind => vec![text(kind)],
    };
    let format = escaped(text(&schema["format"]));
    format!(
        "{} {format}{}",
        escaped(&kinds.join(" or ")),
        limits(schema)
    )
}

/// The limits of the values.
fn limits(schema: &Value) -> String {
    const LIMITS: [&str; 9] = [
        "const",
        "default",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "pattern",
    ];
    let given = LIMITS.iter().filter(|name| schema.get(**name).is_some());
    let given = given.map(|name| format!("<br>{name} {}", json(&schema[*name])));
    given.collect()
}

fn json(value: &Value) -> String {
    match value {
        Value::String(text) => code(text),
        other => code(&other.to_string()),
    }
}

/// The fields of an object, and whether they are required.
pub(super) fn fields(schema: &Value) -> Vec<(&str, bool, &Value)> {
    let own = entries(&schema["properties"]).map(|(name, field)| {
        let is_required = list(&schema["required"]).iter().any(|it| it == name);
        (name, is_required, field)
    });
    let mut fields: Vec<_> = own.collect();
    for part in list(&schema["allOf"]) {
        fields.extend(self::fields(part));
    }
    fields
}
