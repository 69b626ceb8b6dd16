"""doctor --teacher against stand-ins of six servers, and of servers that cannot do what a recipe needs."""

from __future__ import annotations

import json

import pytest

from support.faulty_server import Answer, Seen, completion, fake_teacher, raw_completion
from support.quirky_server import QUIRKS, refuses, rewords, sends
from support.stand_in_servers import SERVERS
from tunewright.commands import doctor
from tunewright.commands.doctor import examine_teacher
from tunewright.errors import UserError
from tunewright.recipe import Recipe
from tunewright.settings import JudgeSettings, SynthesisSettings, TeacherSettings


def ready(seen: Seen) -> Answer:
    """Answer as the requests of the check ask."""
    if "prompt" in seen.body:
        return Answer(body=raw_completion(" Paris"))
    wants_json = "JSON" in seen.body["messages"][-1]["content"]
    return Answer(body=completion(json.dumps({"answer": "ready"}) if wants_json else "ready"))


def recipe(url: str, **changes: object) -> Recipe:
    teacher = TeacherSettings(url=url, model="m", api_key_env="SOME_KEY", patience_s=5)
    return Recipe(teacher=teacher, synthesis=SynthesisSettings(tasks=("answer-first", "free-qa"))).model_copy(
        update=changes
    )


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sesame")


WAYS = {
    "Ollama": ["at the URL with /v1 added", "room for 4,096 tokens of reasoning"],
    "LM Studio": ["at the URL with /v1 added", "room for 4,096 tokens of reasoning"],
    "llama.cpp": ["without the JSON schema, which the prompt alone describes (400: failed to parse grammar)"],
    "vLLM": ["with the system text in the first user turn (400: System role not supported)"],
    "OpenRouter": ["room for 4,096 tokens of reasoning"],
    "Azure": ["with max_completion_tokens in place of max_tokens", "without temperature"],
}


@pytest.mark.parametrize("name", SERVERS)
def test_the_check_says_how_each_server_is_asked(name, capsys):
    path, quirk = SERVERS[name]
    with fake_teacher(quirk(ready)) as server:
        examine_teacher(recipe(server.url.removesuffix("/v1") + path))
        assert len(server.seen) <= 2 + 2
    printed = capsys.readouterr().out
    assert printed.count("ok  ") == 2
    for way in WAYS[name]:
        assert way in printed
    assert "sesame" not in printed


def test_each_form_that_a_recipe_needs_is_tried_once(capsys):
    synthesis = SynthesisSettings(tasks=("free-qa",), general_samples=3)
    with fake_teacher(ready) as server:
        judge = JudgeSettings(url=server.url, model="judge")
        examine_teacher(recipe(server.url, synthesis=synthesis, judge=judge))
        assert [seen.path.rpartition("/v1")[2] for seen in server.seen] == [
            "/chat/completions",
            "/chat/completions",
            "/completions",
            "/chat/completions",
        ]
    assert capsys.readouterr().out.count("ok  ") == 4


def test_every_server_of_a_fleet_is_checked(capsys):
    with fake_teacher(ready) as first, fake_teacher(QUIRKS["max_tokens"][0](ready)) as second:
        examine_teacher(recipe((first.url, second.url), synthesis=SynthesisSettings()))
        assert (len(first.seen), len(second.seen)) == (1, 2)
    assert "max_completion_tokens" in capsys.readouterr().out


def no_json(body, choice) -> None:
    choice["message"]["content"] = "I would rather not."


@pytest.mark.parametrize(
    ("respond", "num_failed", "words"),
    [
        (rewords(no_json)(ready), 1, "no JSON in the reply"),
        (refuses(sends("response_format"), "not for you", 403)(ready), 1, "denies access (403)"),
        (lambda seen: Answer(402, {"error": {"message": "Insufficient credits"}}), 2, "has no credit"),
        (lambda seen: Answer(404, {"error": {"message": 'model "m" not found'}}), 2, "no chat completions for model"),
        (lambda seen: Answer(200, b"<html>log in</html>"), 2, "a web page"),
        (lambda seen: Answer(body=completion("", "length")), 2, "the reply is not whole (length)"),
    ],
)
def test_what_does_not_work_is_named(capsys, respond, num_failed, words):
    with fake_teacher(respond) as server, pytest.raises(UserError, match=rf"^{num_failed} call"):
        examine_teacher(recipe(server.url))
    printed = capsys.readouterr().out
    assert printed.count("FAIL") == num_failed
    assert words in printed


def test_a_machine_that_is_too_busy_fails_the_check_and_is_no_defect(monkeypatch):
    monkeypatch.setattr(doctor, "SELF_TEST", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "_SELF_TEST_S", 0.2)
    passed, text = doctor.CHECKS["quantized step"]()
    assert not passed
    assert "less busy" in text
