"""The process behind the chat page, with a real tiny model: every arm answers, and errors are messages."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.tuned_run import make_speaking_model, make_tuned_run
from tunewright.chat.models import ChatModels
from tunewright.recipe import load_recipe
from tunewright.records import Chunk
from tunewright.run_folder import RunFolder
from tunewright.studio.talk import _unless_idle, converse

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    student = make_speaking_model(tmp_path_factory.mktemp("student") / "model")
    opened = make_tuned_run(tmp_path_factory.mktemp("talk") / "run", student)
    text = opened.file("recipe.toml").read_text().replace('[retrieval]\nmodel = "embedded"', '[retrieval]\nmodel = ""')
    opened.file("recipe.toml").write_text(text)
    assert load_recipe(opened.file("recipe.toml")).retrieval.model == ""
    return opened


def talk(run: Path, orders: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> list[dict[str, Any]]:
    for module in ("chat.models", "studio.talk"):  # a random model seldom ends an answer
        monkeypatch.setattr(f"tunewright.{module}.MAX_NEW_TOKENS", 12)
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(order) + "\n" for order in orders)))
    converse(run)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_arms_answer_side_by_side_as_in_a_chat(run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    orders = [{"question": "What did the nurses do?", "arms": ["base", "tuned", "rag"], "turns": []},
              {"why": "the nurses had a headache"},
              {"question": "x " * 90000, "arms": ["base"], "turns": []},
              {"question": "And the rice?", "arms": ["tuned", "rag"], "turns": [{"question": "Q", "answers": {"tuned": "A"}}]}]  # fmt: skip
    messages = talk(run.path, orders, monkeypatch, capsys)
    parts = [[]]  # type: list[list[dict[str, Any]]]
    for message in messages:
        parts.append([]) if message.get("done") else parts[-1].append(message)
    answers = {
        arm: "".join(m.get("piece", "") for m in parts[0] if m.get("arm") == arm) for arm in ("base", "tuned", "rag")
    }
    models = ChatModels(load_recipe(run.file("recipe.toml")), run.file("adapter"))
    for arm in ("base", "tuned"):
        ids = models.prompt_ids(arm, "What did the nurses do?", [])
        assert answers[arm] == "".join(models.answer(arm, ids))
    assert answers["base"] != answers["tuned"] and answers["rag"]
    shown = next(m["passages"] for m in parts[0] if m.get("arm") == "rag" and "passages" in m)
    texts = [chunk.text for chunk in run.read_records("chunks.jsonl", Chunk)]
    assert shown and all(any(text in passage for text in texts) for passage in shown)
    first = [m["arm"] for m in parts[0] if "piece" in m]
    assert first.index("tuned") < len(first) - 1 - first[::-1].index(
        "base"
    )  # beside each other, not one after the other
    assert any("sample" in line or "passage" in line for line in parts[1][0]["why"])
    assert "too long" in parts[2][0]["error"] and parts[2][0]["hint"]
    again = next(m["passages"] for m in parts[3] if m.get("arm") == "rag" and "passages" in m)
    assert again[0] != shown[0]  # each question has its own passages
    assert any("piece" in m for m in parts[3])  # the conversation continues after an error


def test_it_ends_when_nobody_talks_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr("tunewright.studio.talk._IDLE_S", 0.05)
    monkeypatch.setattr("tunewright.studio.talk.os._exit", lambda code: ended.set())

    def lines() -> Iterator[str]:
        yield "at once"
        assert not ended.is_set()
        assert ended.wait(20)

    assert list(_unless_idle(lines())) == ["at once"]


def test_a_run_without_a_tuned_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    messages = talk(tmp_path, [{"question": "x", "arms": ["tuned"], "turns": []}, "not json"], monkeypatch, capsys)
    assert "is not a run folder" in messages[0]["error"] and messages[1] == {"done": True}
    assert messages[-1] == {"done": True}
