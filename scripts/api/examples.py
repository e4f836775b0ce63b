"""Checks that each example of the document conforms to its schema, with its formats and patterns."""

import json
import sys
from urllib.parse import quote

from openapi_schema_validator import OAS31Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

# A reference in a schema begins at the root of the document.
ROOT = "urn:carga:openapi"


def with_example(node, pointer=""):
    """The pointers to schemas with an example, and the examples."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    if isinstance(node.get("examples"), list):
        yield from ((pointer, example) for example in node["examples"])
    if "example" in node and "schema" in node:
        yield f"{pointer}/schema", node["example"]
    for name, child in node.items():
        if name not in ("example", "examples"):
            name = quote(str(name).replace("~", "~0").replace("/", "~1"), safe="~")
            yield from with_example(child, f"{pointer}/{name}")


def main(file):
    with open(file, encoding="utf-8") as document:
        document = json.load(document)
    registry = Registry().with_resource(ROOT, DRAFT202012.create_resource(document))
    faults, examples = [], 0
    for pointer, example in with_example(document):
        schema = {"$ref": f"{ROOT}#{pointer}"}
        formats = OAS31Validator.FORMAT_CHECKER
        validator = OAS31Validator(schema, registry=registry, format_checker=formats)
        faults += [f"{pointer}: {fault.message}" for fault in validator.iter_errors(example)]
        examples += 1
    if faults or not examples:
        sys.exit("\n".join(faults) or "the document has no examples")
    print(f"{examples} examples conform to their schemas")


main(sys.argv[1])
