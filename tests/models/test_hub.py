"""The hub, as far as a stand-in on the loopback can play it: success, gated, missing, refused, unreachable."""

import os
import subprocess
import sys

import pytest

from stand_in_hub import Fault, stand_in_hub

CODE = """
import sys
from tunewright.errors import ModelError
from tunewright.models.source import locate
try:
    print(sorted(p.name for p in locate("owner/name").iterdir()))
except ModelError as error:
    print(error)
"""


def ask(endpoint, tmp_path, **more):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", **more}
    environment.pop("HF_TOKEN", None)
    command = [sys.executable, "-c", CODE]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True).stdout


def test_a_model_is_fetched_and_found_again_without_network(tmp_path):
    with stand_in_hub() as hub:
        assert ask(hub.url, tmp_path) == "['config.json', 'tokenizer.json']\n"
    assert ask(hub.url, tmp_path, HF_HUB_OFFLINE="1") == "['config.json', 'tokenizer.json']\n"


@pytest.mark.parametrize(
    "status, code, words",
    [
        (403, "GatedRepo", ["is gated", "license", "HF_TOKEN"]),
        (401, "GatedRepo", ["is gated", "HF_TOKEN"]),
        (404, "RepoNotFound", ["no model owner/name", "404", "spelling"]),
        (401, "", ["owner/name", "401", "HF_TOKEN"]),
        (403, "", ["would not give", "403", "HF_TOKEN"]),
    ],
)
def test_refusals_are_told_apart(tmp_path, status, code, words):
    with stand_in_hub(Fault(".", status, code=code)) as hub:
        told = ask(hub.url, tmp_path)
    for word in words:
        assert word in told, told


def test_no_network_is_said(tmp_path):
    told = ask("http://127.0.0.1:9", tmp_path)
    assert "cannot be reached" in told
    assert "model.base=/path/to/name" in told
