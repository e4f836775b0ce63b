//! The calls that take a file.

use serde_json::{Value, json};

use super::super::answers::{json_answer, schema};
use super::super::codes;
use super::super::operation::{Operation, operation};
use super::super::options::{AllowedOptions, references};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        post_upload(),
        put_upload(),
        preview(),
        validate(),
        suggest(),
    ]
}

fn post_upload() -> Operation {
    with_file(
        operation("POST /uploads", "send_file", "Send a file"),
        AllowedOptions::All,
    )
    .about(
        "The answer comes when the whole file has been read and every batch is durable. Its rows
            may still wait to be stored; `GET /uploads/{id}` shows how many are stored.",
    )
    .answer(
        202,
        json_answer(
            "The file is durable. In the answer to a repeated request, the upload is as it is now.",
            &["Location", "Idempotency-Replayed?"],
            "Upload",
        ),
    )
    .repeatable()
    .refuse(404, &["dataset_not_found"])
    .refuse(409, &["duplicate_file", "cancelled"])
    .refuse_upload()
}

fn put_upload() -> Operation {
    let put = operation(
        "PUT /uploads/{id}",
        "send_file_with_id",
        "Send a file under an id",
    );
    with_file(put, AllowedOptions::All)
        .about(
            "Does the same as `POST /uploads`, with an id that the client chose. The client can then
            poll the upload while the request is running, and can repeat the request after a lost
            connection.",
        )
        .answer(
            200,
            json_answer(
                "The id was used by an upload that is `completed` or `partial`, and whose SHA-256 is that of the option `sha256`. The body was not read.",
                &[],
                "Upload",
            ),
        )
        .answer(202, json_answer("The file is durable.", &["Location"], "Upload"))
        .followed_by_uploads()
        .refuse(400, &["malformed_id"])
        .refuse(404, &["dataset_not_found"])
        .refuse(409, &["id_used", "duplicate_file", "cancelled"])
        .refuse_upload()
}

fn preview() -> Operation {
    let preview = operation(
        "POST /uploads/preview",
        "preview_file",
        "Show how an import would read a file",
    );
    with_file(preview, AllowedOptions::WithoutDataset)
        .about(
            "Reads at most the first MiB and stores nothing. The answer is 200 also for a file that
            an import would refuse; `problem` then has the reason, and `suggestions` has options
            with which an import would accept the file.",
        )
        .answer(
            200,
            json_answer("How an import would read the file.", &[], "Preview"),
        )
        .refuse(422, &["damaged_compression"])
}

fn validate() -> Operation {
    let validate = operation(
        "POST /uploads/validate",
        "validate_file",
        "Check a whole file without storing it",
    );
    with_file(validate, AllowedOptions::All)
        .about(
            "Makes every check of an upload. With the option `dataset`, the rows are also tried in
            the table of the dataset, in a transaction that is rolled back.",
        )
        .answer(
            200,
            json_answer(
                "What an upload of the file would do now.",
                &[],
                "Validation",
            ),
        )
        .refuse(404, &["dataset_not_found"])
        .refuse(409, &["duplicate_file"])
        .refuse(413, &["validation_too_large"])
        .refuse(422, &["validation_too_long"])
        .refuse(503, &["validation_busy"])
        .refuse_file()
        .refuse_dataset()
        .refuse_rows()
}

fn suggest() -> Operation {
    let suggest = operation(
        "POST /datasets/suggest",
        "suggest_dataset",
        "Propose a definition for a file",
    );
    with_file(suggest, AllowedOptions::WithoutDataset)
        .about("Reads the whole file and stores nothing. Check the definition before you use it.")
        .answer(
            200,
            json_answer(
                "The definition, and the reasons for it.",
                &[],
                "SuggestedDataset",
            ),
        )
        .refuse(415, &["not_csv"])
        .refuse(422, &["no_definition"])
        .refuse_file()
        .refuse_rows()
}

/// What all calls with a file have in common.
fn with_file(operation: Operation, allowed: AllowedOptions) -> Operation {
    operation
        .parameters(references(allowed))
        .shared(&["FileEncoding"])
        .body(
            "The file as a form with one part named `file`, or as the whole body.",
            content(allowed),
        )
        .refuse(
            400,
            &["repeated_option", "malformed_option", "option_too_long"],
        )
        .refuse(400, &["malformed_form", "unnamed_part", "missing_file"])
        .refuse(403, &["wrong_dataset"])
        .refuse(413, &["upload_too_large", "expanded_too_large"])
        .refuse(
            415,
            &[
                "unsupported_media_type",
                "unsupported_charset",
                "unsupported_encoding",
            ],
        )
        .refuse(422, &["incomplete_body", "body_timeout"])
        .refuse(429, &["too_many_uploads"])
        .refuse(503, &["stopping", "interrupted"])
}

fn content(allowed: AllowedOptions) -> Value {
    let form = match allowed {
        AllowedOptions::All => "UploadForm",
        AllowedOptions::WithoutDataset => "FileForm",
    };
    let file = "text/csv, application/gzip, application/zstd, application/octet-stream";
    let file = json!({ "file": { "contentType": file } });
    json!({
        "multipart/form-data": { "schema": schema(form), "encoding": file },
        "text/csv": {
            "schema": {
                "type": "string", "format": "binary",
                "description": "The file: CSV, plain or compressed once with gzip or zstd. The content type may have the parameters `charset` and `header` (`present` or `absent`).",
            },
            "example": "id;name;price\n1;Ada;9,50\n2;Grace;7,25\n",
        },
    })
}

impl Operation {
    /// The reasons to refuse a file that is read to its end.
    fn refuse_file(self) -> Self {
        self.refuse(415, &["not_csv"])
            .refuse(422, &["empty_file", "unknown_encoding", "no_columns"])
            .refuse(422, &["empty_column_name", "duplicate_column_name"])
            .refuse(
                422,
                &[
                    "header_too_large",
                    "too_many_columns",
                    "column_name_too_long",
                ],
            )
            .refuse(
                422,
                &[
                    "bad_quote",
                    "unclosed_quote",
                    "undecodable",
                    "nul_character",
                ],
            )
            .refuse(
                422,
                &["row_too_large", "sha256_mismatch", "damaged_compression"],
            )
            .refuse(422, &["part_after_file"])
    }

    /// The reasons to refuse a file because of its rejected rows.
    fn refuse_rows(self) -> Self {
        let rejected: Vec<&'static str> = codes::of_rejected_rows()
            .into_keys()
            .map(|code| &*code.leak())
            .collect();
        self.refuse(422, &["no_row_fits", "too_many_rejects"])
            .refuse(422, &rejected)
    }

    /// The reasons to refuse a file because of its dataset.
    fn refuse_dataset(self) -> Self {
        self.refuse(
            422,
            &[
                "columns_do_not_match",
                "malformed_option",
                "no_key",
                "merge_failed",
            ],
        )
        .refuse_table()
        .refuse(507, &["storage_full"])
    }

    /// The reasons to refuse a dataset because of its table.
    pub(super) fn refuse_table(self) -> Self {
        self.refuse(422, &["table_unsupported", "table_not_found", "table_kind"])
            .refuse(
                422,
                &["table_permission", "column_not_found", "column_generated"],
            )
            .refuse(422, &["column_type", "column_missing", "key_not_unique"])
    }

    /// The operations about the upload that was accepted.
    fn followed_by_uploads(self) -> Self {
        let next = [
            "get_upload",
            "get_rows",
            "get_rejected_rows",
            "cancel_upload",
            "undo_upload",
        ];
        next.into_iter().fold(self, |operation, id| {
            operation.link(202, id, "id", "$response.body#/id")
        })
    }

    /// The reasons to refuse an upload.
    fn refuse_upload(self) -> Self {
        self.refuse_file()
            .refuse_dataset()
            .refuse_rows()
            .refuse(403, &["token_used_up"])
            .refuse(429, &["quota_exceeded"])
            .refuse(422, &["interrupted", "batches_lost", "accounting_mismatch"])
            .refuse(503, &["queue_unavailable", "outcome_unknown"])
    }
}
