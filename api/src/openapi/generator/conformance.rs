//! Compares values with schemas of the document. Knows the keywords that the document uses, except
//! patterns and formats, which `scripts/check-api.sh` checks.

use serde_json::Value;

/// The differences between a value and its schema, each with its path; empty if the value conforms.
pub(super) fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(document, schema, value, "$", &mut found);
    found
}

fn check(document: &Value, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        let target = target.unwrap_or_else(|| panic!("{reference} is missing"));
        check(document, target, value, path, found);
    }
    for part in list(&schema["allOf"]) {
        check(document, part, value, path, found);
    }
    let alternatives = list(&schema["oneOf"]);
    let fitting = alternatives
        .iter()
        .filter(|it| faults(document, it, value).is_empty());
    if !alternatives.is_empty() && fitting.count() != 1 {
        found.push(format!(
            "{path}: not exactly one of the alternatives: {value}"
        ));
    }
    if !is_of_type(&schema["type"], value) {
        found.push(format!("{path}: not of type {}: {value}", schema["type"]));
    }
    let values = list(&schema["enum"]);
    if !values.is_empty() && !values.contains(value) {
        found.push(format!("{path}: not one of {values:?}: {value}"));
    }
    check_range(schema, value, path, found);
    check_items(document, schema, value, path, found);
    check_fields(document, schema, value, path, found);
}

fn check_range(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let size = match value {
        Value::String(text) => Some(text.chars().count() as f64),
        Value::Array(items) => Some(items.len() as f64),
        value => value.as_f64(),
    };
    let Some(size) = size else { return };
    let limit = |names: [&str; 3]| names.iter().find_map(|name| schema[*name].as_f64());
    let least = limit(["minimum", "minLength", "minItems"]);
    let most = limit(["maximum", "maxLength", "maxItems"]);
    if least.is_some_and(|least| size < least) || most.is_some_and(|most| size > most) {
        found.push(format!("{path}: out of range: {value}"));
    }
}

fn check_items(
    document: &Value,
    schema: &Value,
    value: &Value,
    path: &str,
    found: &mut Vec<String>,
) {
    for (index, item) in list(value).iter().enumerate() {
        let path = format!("{path}[{index}]");
        check(document, &schema["items"], item, &path, found);
    }
}

fn check_fields(
    document: &Value,
    schema: &Value,
    value: &Value,
    path: &str,
    found: &mut Vec<String>,
) {
    let Value::Object(fields) = value else { return };
    for name in list(&schema["required"]).iter().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            found.push(format!("{path}.{name}: missing"));
        }
    }
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        match (
            schema["properties"].get(name),
            &schema["additionalProperties"],
        ) {
            (Some(schema), _) => check(document, schema, value, &path, found),
            (None, Value::Bool(false)) => found.push(format!("{path}: not expected")),
            (None, schema) => check(document, schema, value, &path, found),
        }
    }
}

fn is_of_type(kinds: &Value, value: &Value) -> bool {
    match kinds {
        Value::Array(kinds) => kinds.iter().any(|kind| is_of_type(kind, value)),
        Value::String(kind) => match kind.as_str() {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            kind => panic!("no such type: {kind}"),
        },
        _ => true,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
