//! The options of a file as parameters and as fields of a form.

use carga_intake::options::{OF_DATASETS, OPTIONS, OptionSpec, REPEATABLE};
use serde_json::{Map, Value, json};

use super::answers::schema;
use super::operation::parameter;

/// Which options a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AllowedOptions {
    All,
    /// All but those of imports into a dataset.
    WithoutDataset,
}

impl AllowedOptions {
    fn specs(self) -> impl Iterator<Item = &'static OptionSpec> {
        let is_allowed = move |name| self == Self::All || !OF_DATASETS.contains(&name);
        OPTIONS.iter().filter(move |spec| is_allowed(spec.name))
    }
}

/// The options that a call takes, as references to the parameters of the components.
pub(super) fn references(allowed: AllowedOptions) -> impl Iterator<Item = Value> {
    let reference = |spec: &OptionSpec| format!("#/components/parameters/option.{}", spec.name);
    allowed
        .specs()
        .map(move |spec| json!({ "$ref": reference(spec) }))
}

/// The options as parameters of the query, by their names among the components.
pub(super) fn parameters() -> impl Iterator<Item = (String, Value)> {
    OPTIONS.iter().map(|spec| {
        let mut parameter = parameter("query", spec.name, &description(spec), value_schema(spec));
        if REPEATABLE.contains(&spec.name) {
            parameter["style"] = json!("form");
            parameter["explode"] = json!(true);
        }
        (format!("option.{}", spec.name), parameter)
    })
}

/// A form with the options as fields, and with the file.
pub(super) fn form(allowed: AllowedOptions) -> Value {
    let mut properties: Map<String, Value> = Map::new();
    for spec in allowed.specs() {
        let mut schema = value_schema(spec);
        schema["description"] = json!(description(spec));
        properties.insert(spec.name.to_owned(), schema);
    }
    let file = json!({
        "type": "string", "format": "binary",
        "description": "The file: CSV, plain or compressed once with gzip or zstd. It is the last part of the form.",
    });
    properties.insert("file".to_owned(), file);
    json!({
        "type": "object",
        "description": "A form with one file. Options are fields before the part `file`; each may also be in the query instead.",
        "properties": properties,
        "required": ["file"],
        "additionalProperties": false,
    })
}

fn description(spec: &OptionSpec) -> String {
    let only = match OF_DATASETS.contains(&spec.name) && spec.name != "dataset" {
        true => "Only with `dataset`. ",
        false => "",
    };
    format!(
        "{only}{}. Takes {}. Default: {}.",
        spec.help, spec.takes, spec.default
    )
}

/// The values that an option takes. The default is in the description only: some generated clients
/// send every default, or require fields that have one.
fn value_schema(spec: &OptionSpec) -> Value {
    let words = |words: &[&str]| json!({ "type": "string", "enum": words });
    let text = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    // No cell has a NUL, and U+FFFD stands for bytes that are not UTF-8.
    let valid_text = || json!({ "type": "string", "pattern": r"^[^\u0000\ufffd]*$" });
    match spec.name {
        "delimiter" => text(r"^(tab|[^\u0000\n\r\ufffd])$"),
        "quote" | "escape" => text(r"^(none|[!-/:-@\[-`{-~])$"),
        "encoding" => json!({ "type": "string", "examples": ["utf-8", "windows-1252", "cp850"] }),
        "skip" => json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
        "header" | "trim" | "atomic" => words(&["true", "false"]),
        "columns" => json!({ "type": "string", "minLength": 1, "examples": ["id,name,price"] }),
        "names" => words(&["repair", "strict"]),
        "short_rows" => words(&["reject", "pad"]),
        "on_error" => words(&["reject", "abort"]),
        "on_duplicate" => words(&["allow", "reject"]),
        "max_rejects" => text(r"^([0-9]{1,18}|(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%)$"),
        "filename" => json!({ "type": "string" }),
        "sha256" => text("^[0-9a-fA-F]{64}$"),
        "dataset" => schema("DatasetName"),
        "null" => json!({ "type": "array", "items": valid_text(), "maxItems": 1000 }),
        "decimal" => json!({ "type": "string", "minLength": 1, "maxLength": 1, "examples": [","] }),
        "date_format" => {
            let mut format = valid_text();
            format["examples"] = json!(["%d/%m/%Y"]);
            format
        }
        "unknown_columns" => words(&["error", "ignore"]),
        "mode" => words(&["append", "update", "ignore"]),
        name => panic!("option `{name}` has no schema; add one here"),
    }
}
