"""``--json``: one document on stdout that its schema describes, errors too, and the exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import jsonschema
import pytest

from support import ROOT, TESTS, data_run, finished_run
from support.json_output import SCHEMAS, json_of
from tunewright.cli import commands
from tunewright.commands import json_documents
from tunewright.commands.json_documents import VERSIONS

WITH_JSON = {"plan", "preview", "status", "report", "compare", "exam", "inspect", "doctor"}
FIELDS = TESTS / "recorded" / "json_fields.json"


def test_the_commands_that_print_results_have_json():
    having = {
        name for name, command in commands.commands.items() if "--json" in {o for p in command.params for o in p.opts}
    }
    assert having == WITH_JSON
    assert {name for name, _ in VERSIONS.values()} == {*WITH_JSON, "error"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs of two models")
    finished_run.write(folder / "small")
    finished_run.write(folder / "large", quality={**finished_run.QUALITY, "tuned": 0.9})
    return folder


def test_a_finished_run_as_documents(finished):
    folder = finished / "small"
    status = json_of("status", folder)
    assert status["schema"] == "tunewright/status/1"
    assert status["verdict"] == json.loads((folder / "verdict.json").read_text())["name"]
    assert not status["busy"]
    exam = json_of("exam", folder)
    questions = [json.loads(line)["question"] for line in (folder / "exam.jsonl").read_text().splitlines()]
    assert [question["question"] for question in exam["questions"]] == questions
    assert exam["rings"][-1]["questions"] == len(questions)
    compared = json_of("compare", folder, finished / "large")
    assert [row["run"] for row in compared["runs"]] == ["small", "large"]
    assert compared["runs"][1]["scores"]["tuned"]["mean"] > compared["runs"][0]["scores"]["tuned"]["mean"]
    assert compared["differences"][0]["interval"]["high"] < 0


def test_the_training_data_as_a_document(tmp_path):
    data = data_run.write(tmp_path / "run")
    document = json_of("inspect", data.path)
    assert document["num_samples"] == len((data.path / "train.jsonl").read_text().splitlines())
    assert sum(task["kept"] for task in document["tasks"]) == document["num_samples"]
    assert sum(row["samples"] for row in document["rejected"]) == sum(task["rejected"] for task in document["tasks"])


def test_errors_are_documents_and_exit_codes_are_as_documented(tmp_path, finished):
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert documented == {0, 1, 2, 3, 130}
    missing = json_of("plan", tmp_path / "none.toml", code=1)
    assert missing["code"] == "recipe"
    assert missing["hint"].startswith("write one: tunewright init")
    assert missing["exit_code"] == 1
    assert json_of("status", "--json", tmp_path, code=1)["code"] == "run-folder"
    assert json_of("plan", "--jsno", "--json", code=2)["code"] == "usage"
    assert "Choose one" in json_of("exam", finished / "small", "--json", "--export", "x.csv", code=2)["headline"]


def test_a_refusal_of_the_system_an_interruption_and_a_defect_are_documents_too(capsys):
    from tunewright.cli import report_error

    refusal = PermissionError(13, "Permission denied", "x.jsonl")
    for error, code, exit_code in (
        (refusal, "stage", 3),
        (KeyboardInterrupt(), "interrupted", 130),
        (ZeroDivisionError("x"), "defect", 3),
    ):
        assert report_error(error, as_json=True) == exit_code
        assert json.loads(capsys.readouterr().out)["code"] == code


def test_stdout_holds_nothing_else_and_no_secret():
    code = (
        "import os, sys\nfrom tunewright import console\n"
        "with console.reserved_stdout():\n    print('a library'); os.write(1, b'a child')\n"
        "console.document({'text': 'of sk-canary-4711-abcdef \\u202e \\x85', 'list': [{'n': 1}]})\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(printed.stdout) == {"text": "of … \u202e \x85", "list": [{"n": 1}]}
    assert "a library" in printed.stderr
    assert "a child" in printed.stderr


def fields(node, path="", definitions=None):
    """Yield "path: type" for every field of a schema."""
    definitions = definitions or node.get("$defs", {})
    if "$ref" in node:
        yield from fields(definitions[node["$ref"].rpartition("/")[2]], path, definitions)
    for name, inner in node.get("properties", {}).items():
        yield from fields(inner, f"{path}.{name}", definitions)
    for inner in (*node.get("anyOf", ()), *node.get("prefixItems", ())):
        yield from fields(inner, path, definitions)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from fields(node[key], f"{path}[]", definitions)
    if "type" in node and path:
        yield f"{path}: {node['type']}"


def test_a_version_keeps_its_fields():
    recorded = json.loads(FIELDS.read_text(encoding="utf-8"))
    for name, described in SCHEMAS.items():
        assert name in recorded, f"record the fields of {name} in {FIELDS.name}"
        gone = set(recorded[name]) - set(fields(described))
        assert not gone, f"these are gone or of another type, so raise the version of {name}: {gone}"


def test_the_strictness_of_a_schema(finished):
    document = json_of("status", finished / "small")
    strict = SCHEMAS[document["schema"]]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "busy": "no"}, strict)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({key: value for key, value in document.items() if key != "stages"}, strict)
    jsonschema.validate({**document, "of a later version": 1}, strict)
    undefined = json_documents.content(
        json_documents.PlanDocument(folder="", stages=(), seconds=float("nan"), keys=(), memory=None, notes=())
    )
    assert undefined["seconds"] is None
