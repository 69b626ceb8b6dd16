"""The local engine on a tiny random model: real batches, real sampling."""

from __future__ import annotations

import json
import os
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from support import TESTS
from support.families import make_family
from support.reciting_model import make_reciting_model
from support.tiny import make_model
from tunewright.errors import RecipeError, TeacherError
from tunewright.models.chat_template import end_ids, load_tokenizer
from tunewright.models.continuous_batching import GenerationRow, RollingBatch
from tunewright.models.loading import load_base
from tunewright.recipe import Recipe
from tunewright.records import Message
from tunewright.run_folder import RunFolder
from tunewright.settings import LOCAL, TeacherSettings
from tunewright.teacher import Request, open_teacher, teacher_identity
from tunewright.teacher.local import LocalClient
from tunewright.teacher.protocol import UnusableReplyError

WORDS = [
    "the",
    "study",
    "followed",
    "patients",
    "in",
    "three",
    "hospitals",
    "and",
    "the",
    "treated",
    "group",
    "had",
    "the",
    "lower",
    "risk",
    "of",
    "all",
]


@pytest.fixture(scope="module", autouse=True)
def a_single_thread():
    """Products as small as these are not worth sharing out, and threads that wait for each other take long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def parts(folder):
    tokenizer = load_tokenizer(folder)
    model = load_base(folder, "none", "cpu", torch.float32).eval()
    # A random model would hardly ever end: every tenth token does.
    return model, tokenizer, sorted({*end_ids(tokenizer, model), *range(0, 400, 10)})


def asks(number: int, temperature: float = 0.0) -> list[Request]:
    """Prompts of many lengths, chat and raw, that may write from 1 to 30 tokens."""
    requests = []
    for n in range(number):
        text = " ".join(WORDS[: 1 + n % len(WORDS)]) + f" {n}"
        request = Request((Message(role="user", content=text),), 1 + (7 * n) % 30, temperature, n)
        requests.append(replace(request, messages=(), raw=text) if n % 3 == 0 else request)
    return requests


def answers(parts, requests, rows):
    client = LocalClient(*parts, most_rows=rows)
    try:
        with ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(client.complete, requests))
    finally:
        client.stop()


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_in_a_rolling_batch_the_answers_are_those_without_a_batch(parts, temperature):
    requests = asks(24, temperature)
    alone, together = answers(parts, requests, 1), answers(parts, requests, 5)
    assert together == alone
    assert {reply.finish for reply in alone} == {"stop", "length"}
    assert len({reply.text for reply in alone}) > 12
    for request, reply in zip(requests, alone, strict=True):
        assert 1 <= reply.num_tokens <= request.max_tokens
        assert reply.finish == "stop" or reply.num_tokens == request.max_tokens


@pytest.mark.parametrize("name", ["mistral", "phi3", "gemma3_text", "qwen3"])
def test_rows_of_other_families_may_join_too(name, tmp_path):
    """Sliding windows count columns of the cache: rows that join are padded in front only."""
    folder = make_family(name, tmp_path / name)
    tokenizer = load_tokenizer(folder)
    family = load_base(folder, "none", "cpu", torch.float32).eval(), tokenizer, [3]
    requests = [replace(request, max_tokens=25) for request in asks(6)]
    assert answers(family, requests, 3) == answers(family, requests, 1)


def test_a_row_that_ends_lets_another_in(parts):
    batch = RollingBatch(*parts[:2], ())
    rows = [GenerationRow([5, 6, 7], 2), GenerationRow([8, 9], 9)]
    batch.join(rows)
    assert batch.step() == []
    assert batch.step() == rows[:1]
    late = GenerationRow([5, 6, 7, 8, 9, 11, 12], 3)
    batch.join([late])
    assert batch.rows == [rows[1], late]
    ended = [row for _ in range(7) for row in batch.step()]
    assert ended == [late, rows[1]]
    assert batch.rows == []


def test_columns_that_no_row_needs_are_given_back(parts):
    batch = RollingBatch(*parts[:2], ())
    batch.join([GenerationRow(list(range(3, 60)), 1), GenerationRow([5, 6], 40)])
    batch.step()
    assert batch._decoder.mask.shape[1] == 3  # two of the prompt and the first one written


def test_sampling_follows_the_seed_and_the_temperature(parts):
    base = replace(asks(1)[0], max_tokens=20, temperature=1.5)
    first, again, other, greedy = answers(
        parts, [base, base, replace(base, seed=1), replace(base, temperature=0.0)], rows=4
    )
    assert first == again
    assert len({first.text, other.text, greedy.text}) == 3


def test_drawn_tokens_follow_the_distribution(parts):
    model, tokenizer, _ = parts
    batch = RollingBatch(model, tokenizer, ())
    batch.rows = [GenerationRow([5], 1, 1.0, seed) for seed in range(4000)]
    logits = torch.tensor([[0.1, 0.2, 0.7]]).log().repeat(4000, 1)
    shares = batch._choose(logits).bincount(minlength=3) / 4000
    assert torch.allclose(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.03)


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(parts):
    parts = (*parts[:2], [])
    request = replace(asks(1)[0], max_tokens=30)
    whole = answers(parts, [request], 1)[0]
    assert whole.finish == "length"
    mark = whole.text[9:12]
    cut = answers(parts, [replace(request, stop=("never there", mark))], 1)[0]
    assert cut.finish == "stop"
    assert cut.text == whole.text[: whole.text.index(mark)]


def test_a_prompt_that_does_not_fit_fails_alone(parts):
    model, tokenizer, ends = parts
    client = LocalClient(model, tokenizer, ends, 4)
    client._context = 40
    with pytest.raises(UnusableReplyError, match="does not fit a context of 40"):
        client.complete(replace(asks(1)[0], raw="group " * 100))
    assert client.complete(asks(2)[1]).num_tokens
    client.stop()


def test_after_stop_waiting_calls_raise(parts):
    client = LocalClient(*parts, 2)
    client.stop()
    with pytest.raises(UnusableReplyError, match="stopped"):
        client.complete(asks(1)[0])


def test_an_error_of_the_model_ends_every_call(parts, monkeypatch):
    monkeypatch.setattr(RollingBatch, "step", lambda self: 1 / 0)
    client = LocalClient(*parts, 2)
    for request in asks(2):
        with pytest.raises((TeacherError, UnusableReplyError)) as caught:
            client.complete(request)
        assert "ZeroDivisionError" in str(caught.value) or "stopped" in str(caught.value)


def test_out_of_memory_halves_the_rows_and_changes_no_answer(parts, monkeypatch):
    requests = asks(12)
    expected = answers(parts, requests, 1)
    real = RollingBatch.join

    def join(self, rows):
        if len(self.rows) + len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(self, rows)

    monkeypatch.setattr(RollingBatch, "join", join)
    assert answers(parts, requests, 12) == expected


def test_a_stage_asks_a_local_teacher(folder, tmp_path):
    settings = TeacherSettings(url=LOCAL, model=str(folder), concurrency=4)
    replies = []
    for name in ("a", "b"):
        run = RunFolder.create(tmp_path / name)
        with open_teacher(run.journal("teacher.jsonl"), settings, "synth") as teacher:
            replies.append(teacher.ask_all(asks(9), "asking"))
            assert teacher.num_calls == 9
            assert teacher.seconds > 0
    assert replies[0] == replies[1]
    assert None not in replies[0]


def test_the_reasoning_of_a_local_teacher_is_no_part_of_its_answer(tmp_path):
    text = "<think>hm</think>yes"
    folder = make_reciting_model(tmp_path / "thinks", text, ("<think>", "</think>"))
    settings = TeacherSettings(url="local", model=str(folder))
    run = RunFolder.create(tmp_path / "run")
    with open_teacher(run.journal("teacher.jsonl"), settings, "synth") as teacher:
        request = Request((Message(role="user", content="Why?"),), 2, 0.0, 0)  # the first try ends in the reasoning
        assert [reply.text for reply in teacher.ask_all([request], "asking") if reply] == ["yes"]


def test_what_names_a_local_teacher(folder):
    settings = TeacherSettings(url=LOCAL, model=str(folder))
    assert teacher_identity(settings) != teacher_identity(settings.model_copy(update={"quantization": "nf4"}))
    assert teacher_identity(settings) == teacher_identity(
        settings.model_copy(update={"model": folder.name}), folder.parent
    )


def test_a_local_folder_is_taken_from_the_recipes_folder(folder):
    recipe = Recipe(teacher=TeacherSettings(url=LOCAL, model=folder.name), folder=folder.parent)
    assert recipe.with_absolute_paths().teacher.model == str(folder)
    named = Recipe(teacher=TeacherSettings(url=LOCAL, model="owner/name"), folder=folder.parent)
    assert named.with_absolute_paths().teacher.model == "owner/name"


def test_a_local_teacher_needs_a_model(tmp_path):
    with pytest.raises(RecipeError, match="teacher.model is empty"):
        open_teacher(
            RunFolder.create(tmp_path / "run").journal("teacher.jsonl"), TeacherSettings(url=LOCAL), "synth"
        ).__enter__()


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """A machine with vLLM and a GPU, as far as the choice of the engine looks; the stand-in computes."""
    script = tmp_path / "bin" / "vllm"
    script.parent.mkdir()
    stand_in = shlex.join([sys.executable, str(TESTS / "support" / "stand_in_vllm.py")])
    script.write_text(f'#!/bin/sh\nexec {stand_in} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    return script


def answered(folder, model):
    settings = TeacherSettings(url=LOCAL, quantization="none", temperature=0.0, model=str(model))
    request = Request((Message(role="user", content="Which?"),), 12, 0.0, 1)
    with open_teacher(RunFolder.create(folder).journal("teacher.jsonl"), settings, "synth") as teacher:
        (reply,) = teacher.ask_all([request], "questions")
    return reply.text


@pytest.mark.slow
def test_where_vllm_is_installed_it_answers_for_the_local_teacher(vllm, tmp_path, capfd):
    model = make_reciting_model(tmp_path / "model", "The treated group.")
    assert answered(tmp_path / "run", model) == "The treated group."
    printed = " ".join(capfd.readouterr().err.split())
    assert "starting vllm serve" in printed and "answers through vLLM" in printed
    assert "--generation-config vllm" in printed  # the base's file may have penalties


def test_a_vllm_that_does_not_start_gives_way_to_transformers(vllm, tmp_path, capfd, monkeypatch):
    vllm.write_text("#!/bin/sh\necho no memory left >&2\nexit 1\n")
    model = make_reciting_model(tmp_path / "model", "The treated group.")
    seen = iter([True])  # the GPU, by the choice of the engine alone: transformers finds none
    monkeypatch.setattr(torch.cuda, "is_available", lambda: next(seen, False))
    assert answered(tmp_path / "run", model) == "The treated group."
    printed = " ".join(capfd.readouterr().err.split())
    assert "vLLM does not start (no memory left)" in printed and "slower" in printed


RECORDS_A_REQUEST = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        open("body.json", "wb").write(body)
        self.send_response(200)
        self.end_headers()
        choice = {"index": 0, "text": " Trieste", "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 2}
        self.wfile.write(json.dumps({"choices": [choice], "usage": usage}).encode())
    def log_message(self, *arguments):
        pass
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_a_raw_text_reaches_vllm_without_a_token_before_it(vllm, tmp_path, monkeypatch):
    """The real vLLM puts the tokenizer's first token before a raw text; the model in this process does not."""
    (tmp_path / "server.py").write_text(RECORDS_A_REQUEST)
    vllm.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/server.py" "$@"\n')
    monkeypatch.chdir(tmp_path)
    model = make_reciting_model(tmp_path / "model", "The treated group.")
    settings = TeacherSettings(url=LOCAL, quantization="none", temperature=0.0, model=str(model))
    with open_teacher(RunFolder.create(tmp_path / "run").journal("teacher.jsonl"), settings, "synth") as teacher:
        (reply,) = teacher.ask_all([Request((), 12, 0.0, 1, raw="The town is")], "questions")
    body = json.loads((tmp_path / "body.json").read_text())
    assert (reply.text.strip(), body["prompt"], body["add_special_tokens"]) == ("Trieste", "The town is", False)
