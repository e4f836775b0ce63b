//! The calls about keys and tokens.

use serde_json::json;

use super::super::answers::{json_answer, schema};
use super::super::operation::parameter;
use super::super::operation::{Operation, operation};

pub(super) fn operations() -> Vec<Operation> {
    vec![list(), make(), revoke(), make_token()]
}

fn list() -> Operation {
    operation(
        "GET /keys",
        "list_keys",
        "List keys without their secrets, the oldest first",
    )
    .about("Revoked and expired keys stay in the list.")
    .parameters([parameter(
        "query",
        "tenant",
        "Only keys of this tenant.",
        schema("Tenant"),
    )])
    .shared(&["Limit", "Cursor"])
    .answer(200, json_answer("A page of keys.", &[], "KeyPage"))
    .refuse(400, &["repeated_option", "malformed_option"])
}

fn make() -> Operation {
    operation("POST /keys", "make_key", "Make a key, and show it once")
        .shared(&["DocumentEncoding"])
        .body(
            "What the holder of the key may do, with at most 16 KiB.",
            json!({ "application/json": { "schema": schema("KeyRequest") } }),
        )
        .answer(
            201,
            json_answer(
                "The new key. In the answer to a repeated request, `key` is `null`.",
                &["Cache-Control", "Idempotency-Replayed?"],
                "CreatedKey",
            ),
        )
        .link(201, "revoke_key", "id", "$response.body#/id")
        .repeatable()
        .refuse(403, &["token_not_allowed"])
        .refuse(409, &["authentication_off"])
        .refuse(413, &["key_request_too_large"])
        .refuse_fields()
        .refuse(422, &["malformed_key_request"])
}

fn make_token() -> Operation {
    operation("POST /tokens", "make_token", "Make a token from the key")
        .about(
            "A token is for a program that must not have the key, such as a web page that sends one
            file. Its holder belongs to the tenant of the key. The call needs a key: neither a token
            nor the JWT of another issuer makes tokens.",
        )
        .shared(&["DocumentEncoding"])
        .body(
            "What the holder of the token may do, with at most 16 KiB.",
            json!({ "application/json": { "schema": schema("TokenRequest") } }),
        )
        .answer(
            201,
            json_answer("The token.", &["Cache-Control"], "CreatedToken"),
        )
        .refuse(403, &["wrong_dataset", "token_not_allowed"])
        .refuse(409, &["authentication_off"])
        .refuse(413, &["token_request_too_large"])
        .refuse_fields()
        .refuse(422, &["malformed_token_request"])
}

impl Operation {
    /// The reasons to refuse the body of a request for a key or a token.
    fn refuse_fields(self) -> Self {
        self.refuse(415, &["unsupported_media_type", "unsupported_encoding"])
            .refuse(422, &["incomplete_body", "body_timeout"])
            .refuse(507, &["storage_full"])
    }
}

fn revoke() -> Operation {
    operation("DELETE /keys/{id}", "revoke_key", "Revoke a key")
        .about(
            "Every API refuses the key within 5 s. A repeated call keeps the first `revoked_at`.",
        )
        .answer(200, json_answer("The key, which is revoked.", &[], "Key"))
        .refuse(400, &["malformed_id"])
        .refuse(404, &["key_not_found"])
        .refuse(507, &["storage_full"])
}
