"""A command with ``--json``, and its document checked against the schema."""

from __future__ import annotations

import json
import os
from typing import Any

import jsonschema

from support.warm_process import run_command
from tunewright.commands.json_documents import VERSIONS, schema

SCHEMAS = {f"tunewright/{name}/{version}": schema(kind) for kind, (name, version) in VERSIONS.items()}


def json_of(*arguments: object, code: int = 0) -> Any:
    """Return the document that a command writes to stdout; it fails on a single character beside the document."""
    words = [*arguments, *(() if "--json" in arguments else ("--json",))]
    result = run_command(words, {**os.environ, "NO_COLOR": "1"})
    assert result.returncode == code, result.stderr
    document = json.loads(result.stdout)
    jsonschema.validate(document, SCHEMAS[document["schema"]])
    return document
