"""Teaches Schemathesis what it does not know: CSV files, and the codes of refusals."""

import atexit
import csv
import io
import json
import os
import re
from collections import Counter

import schemathesis
from hypothesis import strategies
from urllib3.util import parse_url

# The refusals of requests that match no operation. An operation may list such a code, too.
CODES_WITHOUT_CALL = {(404, "not_found"), (405, "method_not_allowed")}


def as_csv(rows):
    text = io.StringIO()
    csv.writer(text).writerows([("name", "price"), *rows])
    return text.getvalue()


CELL = strategies.text("ab é0123456789.,;\"'\n", max_size=6)
ROWS = strategies.lists(strategies.tuples(CELL, CELL), max_size=4)
PLAIN_FILE = as_csv([("Ada", "9.50"), ("Grace", "7.25")])
# Random bytes are seldom a table, so hardly any would be stored.
schemathesis.openapi.format("binary", ROWS.map(as_csv))


def takes_file(operation):
    body = operation.definition.raw.get("requestBody", {})
    return "multipart/form-data" in body.get("content", {})


# For each operation that takes a file: how many of its calls fit the document.
FILES = Counter()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes some files plain, and moves the file of a form to its end."""
    if takes_file(case.operation) and case.meta and case.meta.generation.mode.is_positive:
        FILES[case.operation.label] += 1
        # Random options seldom fit one another, so hardly any file would be accepted.
        if FILES[case.operation.label] % 8 == 1:
            case.query = {}
            case.body = {"file": PLAIN_FILE} if isinstance(case.body, dict) else PLAIN_FILE
    # The fields of a JSON object have no order, but the file is the last part of a form.
    if isinstance(case.body, dict) and "file" in case.body:
        case.body["file"] = case.body.pop("file")


# How many answers each operation has given, and how many of them had a status of success.
ANSWERS, ACCEPTED = Counter(), Counter()


@schemathesis.hook
def after_call(context, case, response):
    if case.method != case.operation.method.upper():
        return
    ANSWERS[case.operation.label] += 1
    if 200 <= response.status_code < 300:
        ACCEPTED[case.operation.label] += 1


@atexit.register
def write_answers():
    """Writes the counts for `answers.py`."""
    if file := os.environ.get("CARGA_ANSWERS"):
        with open(file, "w", encoding="utf-8") as counts:
            json.dump({"answers": ANSWERS, "accepted": ACCEPTED}, counts)


def resolved(document, value):
    """The value itself, or the component that it refers to."""
    if "$ref" not in value:
        return value
    for name in value["$ref"].removeprefix("#/").split("/"):
        document = document[name]
    return document


def methods_of(paths, path):
    """The methods that the document has for a path; none for an unknown path."""

    def fits(template):
        return re.fullmatch(re.sub(r"\\{[^/]*?\\}", "[^/]+", re.escape(template)), path)

    # A path without parameters comes before one with parameters.
    fitting = sorted(filter(fits, paths), key=lambda template: template.count("{"))
    methods = {method.upper() for method in paths[fitting[0]]} if fitting else set()
    return methods | {"HEAD"} if "GET" in methods else methods


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
    document = case.operation.schema.raw_schema
    answer = resolved(document, case.operation.definition.raw["responses"].get(str(status), {}))
    if code in answer.get("x-codes", ()):
        return
    assert (status, code) in CODES_WITHOUT_CALL, f"the document lists no code {code} for status {status}"
    methods = methods_of(document["paths"], parse_url(response.request.url).path or "/")
    if status == 404:
        assert not methods, "the path is in the document"
        return
    assert methods and response.request.method not in methods, "the method is in the document"
    allowed = {method.strip() for method in response.headers["allow"][0].split(",")}
    assert allowed == methods, f"the header Allow has {allowed}, and the document has {methods}"
