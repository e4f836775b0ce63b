//! The schemas of requests and answers, made from their types.

use carga_common::access::{Scope, TokenId};
use carga_common::dataset::{DatasetName, MAX_COLUMNS};
use carga_common::upload::UploadId;
use carga_intake::preview::Preview;
use carga_intake::suggest::SuggestedDataset;
use carga_intake::validation::Validation;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::answers::schema;
use super::options::{AllowedOptions, form};
use crate::problem::Problem;
use crate::routes::{audit, batches, datasets, events, health, keys, log_filter, read, tokens};

/// The schemas by name.
pub(super) fn all() -> Map<String, Value> {
    let mut found = Vec::new();
    add::<DatasetName>(&mut found);
    add::<Scope>(&mut found);
    add::<UploadId>(&mut found);
    add::<read::Page>(&mut found);
    add::<batches::Page>(&mut found);
    add::<datasets::Page>(&mut found);
    add::<keys::Page>(&mut found);
    add::<keys::Created<'_>>(&mut found);
    add::<keys::Fields>(&mut found);
    add::<TokenId>(&mut found);
    add::<tokens::Created<'_>>(&mut found);
    add::<tokens::Fields>(&mut found);
    add::<audit::Page>(&mut found);
    add::<events::Page>(&mut found);
    add::<log_filter::View>(&mut found);
    add::<log_filter::Change>(&mut found);
    add::<health::Readiness>(&mut found);
    add::<Problem>(&mut found);
    add::<Preview>(&mut found);
    add::<Validation>(&mut found);
    add::<SuggestedDataset>(&mut found);
    let mut schemas: Map<String, Value> = Map::new();
    for (name, mut schema) in found {
        clean(&mut schema);
        schemas.insert(renamed(&name).to_owned(), schema);
    }
    refine(&mut schemas);
    schemas.insert("UploadForm".to_owned(), form(AllowedOptions::All));
    schemas.insert("FileForm".to_owned(), form(AllowedOptions::WithoutDataset));
    schemas.insert("DefinitionRequest".to_owned(), definition_request(&schemas));
    schemas.insert("ColumnRequest".to_owned(), column_request(&schemas));
    add_examples(&mut schemas);
    schemas
}

fn add<T: ToSchema>(found: &mut Vec<(String, Value)>) {
    let mut schemas = Vec::new();
    T::schemas(&mut schemas);
    schemas.push((T::name().into_owned(), T::schema()));
    let values = schemas.into_iter();
    found.extend(values.map(|(name, schema)| (name, serde_json::to_value(schema).unwrap())));
}

/// The name for clients: without `Record` and `View`, and unique among all schemas.
fn renamed(name: &str) -> &str {
    match name {
        "BatchRecord" => "Batch",
        "BatchesView" => "Batches",
        "BytesView" => "Bytes",
        "Created" => "CreatedKey",
        "DatasetColumnsView" => "DatasetColumns",
        "DatasetView" => "Dataset",
        "Fields" => "KeyRequest",
        "KeyRecord" => "Key",
        "RowsView" => "Rows",
        "TrialWarning" => "ValidationWarning",
        "UploadView" => "Upload",
        "Warning" => "PreviewWarning",
        name => name,
    }
}

/// Makes a derived schema that of an answer. serde writes a field that is `None` as null, so the
/// field is required; a field that is left out instead is not nullable.
fn clean(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Object(fields) => {
            fields.values_mut().for_each(clean);
            for text in ["description", "$ref"] {
                if let Some(Value::String(text)) = fields.get_mut(text) {
                    *text = cleaned(text);
                }
            }
            hoist_description(fields);
            require_nullable(fields);
        }
        _ => {}
    }
}

/// A description without the syntax of Rust, or a reference to a schema by its name for clients.
fn cleaned(text: &str) -> String {
    match text.strip_prefix("#/components/schemas/") {
        Some(name) => format!("#/components/schemas/{}", renamed(name)),
        None => super::operation::unwrapped(&text.replace("`None`", "`null`")),
    }
}

/// Moves the description of a field from one of the alternatives for its value to the field.
fn hoist_description(field: &mut Map<String, Value>) {
    let Some(Value::Array(alternatives)) = field.get_mut("oneOf") else {
        return;
    };
    let mut objects = alternatives.iter_mut().filter_map(Value::as_object_mut);
    if let Some(description) = objects.find_map(|object| object.remove("description")) {
        field.insert("description".to_owned(), description);
    }
}

fn require_nullable(object: &mut Map<String, Value>) {
    let Some(Value::Object(properties)) = object.get("properties") else {
        return;
    };
    let mut required: Vec<String> = properties
        .iter()
        .filter(|(_, property)| is_nullable(property))
        .map(|(name, _)| name.clone())
        .collect();
    let given = object.get("required").and_then(Value::as_array);
    let given = given.into_iter().flatten().filter_map(Value::as_str);
    required.extend(given.map(str::to_owned));
    required.sort_unstable();
    required.dedup();
    object.insert("required".to_owned(), json!(required));
}

fn is_nullable(schema: &Value) -> bool {
    let is_null = |kind: &Value| kind == "null" || kind["type"] == "null";
    let alternatives = schema["type"].as_array().or(schema["oneOf"].as_array());
    alternatives.is_some_and(|alternatives| alternatives.iter().any(is_null))
}

/// Adds what the types do not say.
fn refine(schemas: &mut Map<String, Value>) {
    let codes = super::codes::errors().into_iter().flat_map(|row| row.codes);
    let mut codes: Vec<String> = codes
        .chain(super::codes::of_rejected_rows().into_keys())
        .collect();
    codes.sort_unstable();
    codes.dedup();
    // Not an enumeration: a later version may have more codes, and clients should accept them.
    let code = &mut schemas["Problem"]["properties"]["code"];
    code["x-extensible-enum"] = json!(codes);
    schemas["Problem"]["properties"]["status"]["minimum"] = json!(400);
    schemas["Problem"]["properties"]["status"]["maximum"] = json!(599);
    let readiness = &mut schemas["Readiness"]["properties"];
    readiness["status"]["enum"] = json!(["ready", "degraded", "unavailable", "draining"]);
    let dependency = json!({ "type": "string", "enum": ["ok", "unavailable"] });
    readiness["dependencies"]["additionalProperties"] = dependency;
    schemas["Upload"]["properties"]["degraded"]["items"]["enum"] =
        json!(["progress", "batches_missing"]);
    schemas["Dialect"]["properties"]["compression"]["enum"] = json!(["gzip", "zstd", null]);
    for mark in ["decimal", "thousands"] {
        let mark = &mut schemas["ColumnDefinition"]["properties"][mark];
        mark["minLength"] = json!(1);
        mark["maxLength"] = json!(1);
    }
    // A pair has two texts. Not every generator of clients knows `prefixItems`.
    let text = json!({ "type": "string" });
    schemas["Suggestion"]["properties"]["options"]["items"] =
        json!({ "type": "array", "items": text, "minItems": 2, "maxItems": 2 });
    refine_key_request(&mut schemas["KeyRequest"]);
    refine_token_request(&mut schemas["TokenRequest"]);
    schemas["LogFilterRequest"]["description"] = json!("The new log filter of the process.");
    schemas["LogFilterRequest"]["properties"]["filter"]["maxLength"] = json!(4096);
    refine_validation(schemas);
}

/// A validation hides from a key without scope `read` which stored values differ.
fn refine_validation(schemas: &mut Map<String, Value>) {
    for (name, field) in [
        ("RowOutcomes", "would_update"),
        ("RowOutcomes", "unchanged"),
        ("Validation", "changed_columns"),
    ] {
        let property = &mut schemas[name]["properties"][field];
        *property = nullable(property);
        let description = property["description"].as_str().unwrap();
        property["description"] = json!(format!(
            "{description} It is `null` for a key without scope `read`."
        ));
    }
}

/// The fields of a request are strings, so that a fault can name its field.
fn refine_key_request(request: &mut Value) {
    request["description"] = json!("What the holder of a new key may do.");
    let properties = &mut request["properties"];
    properties["scopes"]["items"] = schema("Scope");
    properties["scopes"]["minItems"] = json!(1);
    for (field, name) in [("tenant", "Tenant"), ("dataset", "DatasetName")] {
        let description = properties[field]["description"].clone();
        let one_of = json!([{ "type": "null" }, schema(name)]);
        properties[field] = json!({ "description": description, "oneOf": one_of });
    }
    properties["name"]["minLength"] = json!(1);
    properties["name"]["maxLength"] = json!(100);
    properties["name"]["pattern"] = json!(r"^[^\u0000-\u001f\u007f-\u009f]*$");
    properties["expires_at"]["format"] = json!("date-time");
    request["required"] = json!(["scopes"]);
}

fn refine_token_request(request: &mut Value) {
    request["description"] = json!("What the holder of a new token may do.");
    let properties = &mut request["properties"];
    properties["scopes"]["items"] = schema("Scope");
    properties["scopes"]["minItems"] = json!(1);
    let description = properties["dataset"]["description"].clone();
    let one_of = json!([{ "type": "null" }, schema("DatasetName")]);
    properties["dataset"] = json!({ "description": description, "oneOf": one_of });
    let limits = [
        ("expires_in", u64::from(tokens::MAX_LIFETIME)),
        ("max_uploads", tokens::MAX_UPLOADS),
        ("max_bytes", tokens::MAX_BYTES),
    ];
    for (field, most) in limits {
        properties[field]["minimum"] = json!(1);
        properties[field]["maximum"] = json!(most);
    }
    request["required"] = json!([]);
}

/// The definition in a `PUT`. Fields may be left out or be null, and those of an answer are
/// ignored.
fn definition_request(schemas: &Map<String, Value>) -> Value {
    let mut request = relaxed(&schemas["Definition"], &["columns"]);
    let columns = &mut request["properties"]["columns"];
    columns["items"] = schema("ColumnRequest");
    columns["minItems"] = json!(1);
    columns["maxItems"] = json!(MAX_COLUMNS);
    request["properties"]["key"]["maxItems"] = json!(32);
    request["properties"]["key"]["uniqueItems"] = json!(true);
    request["properties"]["null"]["maxItems"] = json!(1000);
    for list in ["key", "null"] {
        request["properties"][list]["items"] = without_nul();
    }
    for field in ["name", "created_at", "updated_at"] {
        let ignored = "Ignored, so that an answer can be edited and sent back.";
        request["properties"][field] = json!({ "description": ignored });
    }
    request["description"] = json!(
        "The definition of a dataset. The modes `update` and `ignore` need a `key`, which is a list of column names. The default of `mode` is `update` with a `key`, and `append` without."
    );
    request
}

fn column_request(schemas: &Map<String, Value>) -> Value {
    let mut request = relaxed(&schemas["ColumnDefinition"], &["name", "type"]);
    request["properties"]["name"]["minLength"] = json!(1);
    request["properties"]["name"]["maxLength"] = json!(63);
    for list in ["from", "null", "currency", "true", "false"] {
        request["properties"][list]["maxItems"] = json!(1000);
        request["properties"][list]["items"] = without_nul();
    }
    request["properties"]["name"]["pattern"] = without_nul()["pattern"].clone();
    request
}

/// The databases cannot store the character NUL.
fn without_nul() -> Value {
    json!({ "type": "string", "pattern": r"^[^\u0000]*$" })
}

/// The schema of a request with the fields of an answer. Only some fields are required, and the
/// others may be null.
fn relaxed(answer: &Value, required: &[&str]) -> Value {
    let mut request = answer.clone();
    for (name, property) in request["properties"].as_object_mut().unwrap() {
        if !required.contains(&name.as_str()) && !is_nullable(property) {
            *property = nullable(property);
        }
    }
    request["required"] = json!(required);
    request["additionalProperties"] = json!(false);
    request
}

fn nullable(property: &Value) -> Value {
    let mut property = property.clone();
    match property.get("$ref").cloned() {
        Some(reference) => {
            let description = property["description"].clone();
            let oneof = json!([{ "type": "null" }, { "$ref": reference }]);
            json!({ "description": description, "oneOf": oneof })
        }
        None => {
            property["type"] = json!([property["type"], "null"]);
            property
        }
    }
}

fn add_examples(schemas: &mut Map<String, Value>) {
    let examples: Value = serde_json::from_str(include_str!("examples.json")).unwrap();
    for (name, example) in examples.as_object().unwrap() {
        let schema = schemas.get_mut(name);
        let schema = schema.unwrap_or_else(|| panic!("an example of no schema: {name}"));
        schema["examples"] = json!([example]);
    }
}
