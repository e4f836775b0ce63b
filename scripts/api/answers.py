"""Checks that Schemathesis has tested every operation of the document.

python answers.py DOCUMENT ANSWERS NAME
"""

import json
import sys

# The fewest answers of an operation that are enough. Most operations have some hundred.
LEAST = 5


def main(document, answers, name):
    with open(document, encoding="utf-8") as file:
        paths = json.load(file)["paths"]
    with open(answers, encoding="utf-8") as file:
        counts = json.load(file)
    faults = []
    for path, item in paths.items():
        for method, operation in item.items():
            call = f"{method.upper()} {path}"
            answered = counts["answers"].get(call, 0)
            if answered < LEAST:
                faults.append(f"{call} has {answered} answers, and {LEAST} are the least; raise MAX_TIME")
            takes_file = "multipart/form-data" in operation.get("requestBody", {}).get("content", {})
            if takes_file and not counts["accepted"].get(call):
                faults.append(f"{call} has accepted no file")
    if faults:
        sys.exit("\n".join(faults))
    print(f"{name}: {sum(counts['answers'].values())} answers of all {len(counts['answers'])} operations")


main(*sys.argv[1:])
