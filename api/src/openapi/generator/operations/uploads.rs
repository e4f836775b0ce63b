//! The calls about uploads, except those that take a file.

use serde_json::{Value, json};

use super::super::answers::{answer, json_answer, schema};
use super::super::operation::parameter;
use super::super::operation::{Operation, operation};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        list(),
        one(),
        rows(),
        rejected(),
        cancel(),
        undo(),
        batches(),
        retry(),
        retry_batch(),
    ]
}

fn list() -> Operation {
    operation(
        "GET /uploads",
        "list_uploads",
        "List uploads, the newest first",
    )
    .parameters([
        parameter(
            "query",
            "status",
            "Only uploads with this status.",
            schema("Status"),
        ),
        parameter(
            "query",
            "dataset",
            "Only uploads into this dataset, also if it is deleted.",
            schema("DatasetName"),
        ),
    ])
    .shared(&["Limit", "Cursor"])
    .answer(200, json_answer("A page of uploads.", &[], "UploadPage"))
    .refuse(400, &["repeated_option", "malformed_option"])
}

fn one() -> Operation {
    operation(
        "GET /uploads/{id}",
        "get_upload",
        "Show an upload, in every status",
    )
    .answer(
        200,
        json_answer(
            "The upload. The header `Retry-After` is there until it has ended.",
            &["Retry-After?"],
            "Upload",
        ),
    )
    .refuse(400, &["malformed_id"])
    .refuse(404, &["upload_not_found"])
}

fn rows() -> Operation {
    let format = json!({ "type": "string", "enum": ["csv", "ndjson"] });
    let about =
        "The format. Without it, the header `Accept` decides: `application/x-ndjson` asks for
        NDJSON, and anything else for CSV.";
    operation(
        "GET /uploads/{id}/rows",
        "get_rows",
        "Stream the stored rows",
    )
    .about(
        "The rows are in the order of the file. If the store fails in the middle, Carga cuts the
            connection, so that a client does not take a part of the rows for all of them.",
    )
    .parameters([parameter("query", "format", about, format)])
    .answer(
        200,
        download(
            "The rows.",
            "id,name,price\n1,Ada,\"9,50\"\n",
            "{\"id\":\"1\",\"name\":\"Ada\",\"price\":\"9,50\"}\n",
        ),
    )
    .refuse(
        400,
        &["malformed_id", "repeated_option", "malformed_option"],
    )
    .refuse(404, &["upload_not_found"])
    .refuse(409, &["wrong_state", "rows_in_user_table"])
}

fn rejected() -> Operation {
    let safe = json!({ "type": "string", "enum": ["spreadsheet"] });
    let about = "Puts an apostrophe before cells that a spreadsheet would run as a formula. This
        works with CSV only.";
    operation("GET /uploads/{id}/rejected", "get_rejected_rows", "Stream the rejected rows")
        .about(
            "The CSV has the columns of the file, and then those of Carga: `_carga_row`,
            `_carga_line`, `_carga_offset`, `_carga_column`, `_carga_code`, `_carga_constraint` (only
            with a dataset), `_carga_message` and `_carga_raw`. An import ignores these, so a
            corrected report can be sent as it is. Each line of NDJSON is a `RejectedRow`.",
        )
        .parameters([parameter("query", "safe", about, safe)])
        .answer(
            200,
            download(
                "The rejected rows. Until the upload has ended, these are the rows that were rejected so far.",
                "id,name,price,_carga_row,_carga_line,_carga_offset,_carga_column,_carga_code,_carga_message,_carga_raw\n,,,2,3,25,,too_many_fields,\"expected 3 fields, found 4; if a value contains the delimiter, quote the value\",2;Grace;1;2\n",
                "{\"row\":2,\"line\":3,\"offset\":25,\"column\":null,\"code\":\"too_many_fields\",\"constraint\":null,\"message\":\"expected 3 fields, found 4; if a value contains the delimiter, quote the value\",\"raw\":\"2;Grace;1;2\",\"fields\":null}\n",
            ),
        )
        .refuse(400, &["malformed_id", "repeated_option", "malformed_option"])
        .refuse(404, &["upload_not_found"])
}

fn cancel() -> Operation {
    operation(
        "POST /uploads/{id}/cancel",
        "cancel_upload",
        "Cancel an upload",
    )
    .about(
        "Stops an upload that is `receiving` or `processing`, and removes its rows. The call may
            be repeated.",
    )
    .answer(
        202,
        json_answer("The upload is `cancelled`.", &[], "Upload"),
    )
    .refuse(400, &["malformed_id"])
    .refuse(404, &["upload_not_found"])
    .refuse(409, &["wrong_state"])
    .refuse(507, &["storage_full"])
}

fn undo() -> Operation {
    operation("POST /uploads/{id}/undo", "undo_upload", "Undo an upload")
        .about(
            "Removes the rows of an upload that is `completed` or `partial`. Rows that it replaced in
            the table of a dataset get their previous values again. The call may be repeated.",
        )
        .answer(202, json_answer("The upload is `undone`.", &[], "Upload"))
        .refuse(400, &["malformed_id"])
        .refuse(404, &["upload_not_found"])
        .refuse(409, &["wrong_state", "not_reversible"])
        .refuse(507, &["storage_full"])
}

fn batches() -> Operation {
    operation(
        "GET /uploads/{id}/batches",
        "list_batches",
        "List the batches of an upload, in the order of the file",
    )
    .about(
        "The list has the batches that are stored and those that are or were dead letters. Batches in
            the queue are in no list.",
    )
    .parameters([parameter(
        "query",
        "status",
        "Only batches with this status.",
        schema("BatchStatus"),
    )])
    .shared(&["Limit", "Cursor"])
    .answer(200, json_answer("A page of batches.", &[], "BatchPage"))
    .refuse(
        400,
        &["malformed_id", "repeated_option", "malformed_option"],
    )
    .refuse(404, &["upload_not_found"])
}

fn retry() -> Operation {
    let row = json!({ "type": "integer", "minimum": 1, "maximum": i64::MAX });
    operation(
        "POST /uploads/{id}/retry",
        "retry_upload",
        "Retry the dead letters of an upload",
    )
    .about(
        "Remove the cause first. A `partial` upload is `processing` again, in the same epoch, and its
            rows are hidden until it ends. The call may be repeated: a batch that is being retried
            or is stored stays as it is.",
    )
    .parameters([parameter(
        "query",
        "row",
        "Only the batch with the row that has this number.",
        row,
    )])
    .answer(202, json_answer("The upload.", &[], "Upload"))
    .refuse(
        400,
        &["malformed_id", "repeated_option", "malformed_option"],
    )
    .refuse(404, &["upload_not_found", "batch_not_found"])
    .refuse(409, &["wrong_state"])
    .refuse(507, &["storage_full"])
}

fn retry_batch() -> Operation {
    operation(
        "POST /uploads/{id}/batches/{seq}/retry",
        "retry_batch",
        "Retry one dead letter of an upload",
    )
    .about("Everything else is as in `retry_upload`.")
    .answer(202, json_answer("The upload.", &[], "Upload"))
    .refuse(400, &["malformed_id"])
    .refuse(404, &["upload_not_found", "batch_not_found"])
    .refuse(409, &["wrong_state"])
    .refuse(507, &["storage_full"])
}

fn download(description: &str, csv: &str, ndjson: &str) -> Value {
    let text = |example: &str| json!({ "schema": { "type": "string" }, "example": example });
    let content = json!({
        "text/csv": text(csv),
        "application/x-ndjson": text(ndjson),
    });
    answer(
        description,
        &["Content-Disposition", "Carga-Upload-Status"],
        content,
    )
}
