"""The hub, as far as a stand-in on the loopback can play it: success, gated, missing, refused, unreachable."""

import os
import subprocess
import sys

import pytest

from support.stand_in_hub import Fault, stand_in_hub

CODE = """
import sys
from tunewright.errors import ModelError
from tunewright.models.source import locate
try:
    print(sorted(p.name for p in locate("owner/name").iterdir()))
except ModelError as error:
    print(error)
"""


def ask(endpoint, tmp_path, code=CODE, **more):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", **more}
    if "HF_TOKEN" not in more:
        environment.pop("HF_TOKEN", None)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True).stdout


def test_a_model_is_fetched_once_and_located_without_network(tmp_path):
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
        (403, "", ["refuses to send", "403", "HF_TOKEN"]),
        (429, "", ["asks to wait", "429", "again"]),
        (503, "", ["in trouble", "503", "status.huggingface.co"]),
    ],
)
def test_each_refusal_has_its_message(tmp_path, status, code, words):
    with stand_in_hub(Fault(".", status, code=code)) as hub:
        printed = ask(hub.url, tmp_path)
        assert printed.count("hint: ") == 1
    for word in words:
        assert word in printed, printed


def test_no_network_has_its_message(tmp_path):
    printed = ask("http://127.0.0.1:9", tmp_path)
    assert "cannot be reached" in printed
    assert "model.base=/path/to/name" in printed


def test_a_refused_token_differs_from_a_missing_token_and_is_never_printed(tmp_path):
    with stand_in_hub(Fault(".", 401)) as hub:
        printed = ask(hub.url, tmp_path, HF_TOKEN="hf_canary4711")
        assert hub.authorizations == {"Bearer hf_canary4711"}
    assert "refused the token" in printed
    assert "hf_canary4711" not in printed


def test_a_switch_that_forbids_the_hub_differs_from_no_network(tmp_path):
    with stand_in_hub() as hub:
        printed = ask(hub.url, tmp_path, HF_HUB_OFFLINE="1")
        assert hub.requests == []
    assert "HF_HUB_OFFLINE is set" in printed
    assert "HF_HUB_OFFLINE" not in ask("http://127.0.0.1:9", tmp_path)


def test_reading_and_pushing_use_the_same_words_and_each_name_is_filled_in_once():
    from types import SimpleNamespace

    from tunewright.models.hub_errors import explain

    def words(status, writing, repo="OWNER/REPO-NAME-HUB", **more):
        request = SimpleNamespace(headers={"authorization": "x"})
        response = SimpleNamespace(status_code=status, request=request, headers=more, json=lambda: {})
        error = RuntimeError("wrapped")
        error.__cause__ = OSError("refused")
        error.__cause__.response = response
        return explain(error, repo, writing)

    for status in (409, 412, 429, 500):
        assert words(status, True) == words(status, False)
    gated = words(403, True, **{"X-Error-Code": "GatedRepo"})
    assert gated == words(403, False, **{"X-Error-Code": "GatedRepo"})
    assert gated.headline.startswith("OWNER/REPO-NAME-HUB is gated")
    message = words(403, True, **{"X-Error-Message": "no hf_secret here https://x/y?sig=1\nat all"})
    assert message.cause.endswith(": no … here https://x/y?… at all")
    assert explain(OSError(28, "No space left on device"), "a/b", writing=False) is None
    assert explain(ValueError("a bug"), "a/b", writing=True) is None


def test_a_quantized_model_of_the_hub_is_refused_before_its_weights_are_fetched(tmp_path):
    with stand_in_hub() as hub:
        hub.repos["owner/name"].files |= {
            "config.json": b'{"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}}',
            "README.md": b"---\nbase_model: owner/plain\n---\n",
            "model.safetensors": b"x",
        }
        printed = ask(hub.url, tmp_path, code=CODE.replace('"owner/name"', '"owner/name", trained=True'))
        assert not [request for request in hub.requests if "safetensors" in request]
    assert "GPTQ in 4 bit" in printed
    assert "--set model.base=owner/plain" in printed


def test_pickled_weights_of_the_hub_are_fetched_where_there_are_no_others(tmp_path):
    with stand_in_hub() as hub:
        hub.repos["owner/name"].files |= {"pytorch_model.bin": b"damaged", "training_args.bin": b"x"}
        printed = ask(hub.url, tmp_path, TUNEWRIGHT_CACHE=str(tmp_path / "converted"))
        assert not [request for request in hub.requests if "training_args" in request]
    assert "cannot convert the pickled weights" in printed
