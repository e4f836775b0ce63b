"""What Schemathesis does not know: files that are CSV, and the codes of refusals."""

import csv
import io

import schemathesis
from hypothesis import strategies

# A request that matches no call may have these codes.
OF_NO_CALL = {"not_found", "method_not_allowed"}


def as_csv(rows):
    text = io.StringIO()
    csv.writer(text).writerows([("name", "price"), *rows])
    return text.getvalue()


CELL = strategies.text("ab é0123456789.,;\"'\n", max_size=6)
ROWS = strategies.lists(strategies.tuples(CELL, CELL), max_size=4)
# Random bytes are seldom a table, so hardly any would be stored.
schemathesis.openapi.format("binary", ROWS.map(as_csv))


@schemathesis.hook
def before_call(context, case, kwargs):
    """The file is the last part of a form. The fields of a JSON object have no order."""
    if isinstance(case.body, dict) and "file" in case.body:
        case.body["file"] = case.body.pop("file")


@schemathesis.check
def code_conformance(context, response, case):
    """Each refusal has a code that the document lists for its status."""
    content_type = response.headers.get("content-type", [""])[0]
    if not content_type.startswith("application/problem+json"):
        return
    problem = response.json()
    status, code = response.status_code, problem["code"]
    assert problem["status"] == status, f"the problem has status {problem['status']}, not {status}"
    assert response.headers["x-request-id"] == [problem["request_id"]], "the ids of the request differ"
    answer = case.operation.definition.raw["responses"].get(str(status), {})
    known = OF_NO_CALL | set(answer.get("x-codes", ()))
    assert code in known, f"the document lists no code {code} for status {status}"
