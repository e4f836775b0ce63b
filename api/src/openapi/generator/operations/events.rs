//! The call about events.

use serde_json::json;

use super::super::answers::json_answer;
use super::super::operation::parameter;
use super::super::operation::{Operation, operation};

pub(super) fn operations() -> Vec<Operation> {
    let list = operation(
        "GET /events",
        "list_events",
        "List what happened to uploads, in order",
    )
    .about(
        "Each change of an upload's status leaves one event. `next` is there on every page, so a
        client can go on for ever: an empty page means that nothing has happened since then.",
    )
    .parameters([parameter(
        "query",
        "after",
        "The `next` of the previous page. Without it, the list begins with the first event.",
        json!({ "type": "string", "pattern": "^[0-9]{1,19}$" }),
    )])
    .shared(&["Limit"])
    .answer(200, json_answer("A page of events.", &[], "EventPage"))
    .refuse(400, &["repeated_option", "malformed_option"]);
    vec![list]
}
