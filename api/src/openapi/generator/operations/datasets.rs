//! The calls about datasets.

use serde_json::{Value, json};

use super::super::answers::{answer, json_answer, schema};
use super::super::operation::{Operation, operation};

/// The description of the calls for a dataset with the name `suggest`. Its path is also that of the
/// call that proposes a definition.
const NAMED_SUGGEST: &str =
    "The dataset has the name `suggest`. The call is the same as for `/datasets/{name}`.";

pub(super) fn operations() -> Vec<Operation> {
    let get = "Show a dataset";
    let put = "Declare a dataset, or change its definition";
    let delete = "Delete a dataset and its table";
    vec![
        list(),
        one(operation("GET /datasets/{name}", "get_dataset", get)),
        one(operation(
            "GET /datasets/suggest",
            "get_dataset_named_suggest",
            get,
        ))
        .about(NAMED_SUGGEST),
        declare(operation("PUT /datasets/{name}", "put_dataset", put))
            .about(
                "A change may add columns at the end, if they are not required, and may change the
                rules for reading cells. Any other change is refused.",
            )
            .link(201, "get_dataset", "name", "$request.path.name")
            .link(201, "delete_dataset", "name", "$request.path.name"),
        declare(operation(
            "PUT /datasets/suggest",
            "put_dataset_named_suggest",
            put,
        ))
        .about(NAMED_SUGGEST),
        remove(operation(
            "DELETE /datasets/{name}",
            "delete_dataset",
            delete,
        ))
        .about("A table of your own stays."),
        remove(operation(
            "DELETE /datasets/suggest",
            "delete_dataset_named_suggest",
            delete,
        ))
        .about(NAMED_SUGGEST),
    ]
}

fn list() -> Operation {
    operation("GET /datasets", "list_datasets", "List datasets, by name")
        .about("A page of large definitions has fewer datasets than `limit`.")
        .shared(&["Limit", "Cursor"])
        .answer(200, json_answer("A page of datasets.", &[], "DatasetPage"))
        .refuse(400, &["repeated_option", "malformed_option"])
}

fn one(operation: Operation) -> Operation {
    operation
        .answer(200, json_answer("The dataset.", &[], "Dataset"))
        .refuse(400, &["malformed_name"])
        .refuse(404, &["dataset_not_found"])
}

fn declare(operation: Operation) -> Operation {
    operation
        .shared(&["DocumentEncoding"])
        .body(
            "The definition, with at most 1 MiB.",
            json!({ "application/json": { "schema": schema("DefinitionRequest") } }),
        )
        .answer(
            200,
            json_answer("The dataset has this definition now.", &[], "Dataset"),
        )
        .answer(201, json_answer("The dataset is new.", &[], "Dataset"))
        .refuse(400, &["malformed_name"])
        .refuse(404, &["dataset_not_found"])
        .refuse(409, &["dataset_conflict"])
        .refuse(413, &["definition_too_large"])
        .refuse(415, &["unsupported_media_type", "unsupported_encoding"])
        .refuse(
            422,
            &["malformed_definition", "incomplete_body", "body_timeout"],
        )
        .refuse(507, &["storage_full"])
        .refuse_table()
}

fn remove(operation: Operation) -> Operation {
    operation
        .answer(204, answer("The dataset is deleted.", &[], Value::Null))
        .refuse(400, &["malformed_name"])
        .refuse(404, &["dataset_not_found"])
        .refuse(409, &["dataset_in_use"])
        .refuse(507, &["storage_full"])
}
