//! The call about the audit log.

use serde_json::json;

use super::super::answers::{json_answer, schema};
use super::super::operation::parameter;
use super::super::operation::{Operation, operation};

pub(super) fn operations() -> Vec<Operation> {
    let list = operation(
        "GET /audit",
        "list_audit_entries",
        "List the entries of the audit log, the oldest first",
    )
    .about(
        "Each change by a client or a command leaves one entry. The list has the entries of all
        tenants.",
    )
    .parameters([
        parameter(
            "query",
            "tenant",
            "Only entries of this tenant.",
            schema("Tenant"),
        ),
        parameter(
            "query",
            "after",
            "The `next` of the previous page, or the `id` of an entry: the list begins after it.",
            json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
        ),
    ])
    .shared(&["Limit"])
    .answer(
        200,
        json_answer("A page of the audit log.", &[], "AuditPage"),
    )
    .refuse(400, &["repeated_option", "malformed_option"]);
    vec![list]
}
