"""Every quirk of the field's servers: the same exam and the same samples, with at most two calls wasted."""

from __future__ import annotations

import pytest

from support.able_teacher import able
from support.faulty_server import Answer, fake_teacher, in_turn
from support.quirky_server import QUIRKS, Respond, rewords
from support.stand_in_servers import SERVERS
from support.synthesis_run import SUBJECTS, make_run, recipe_for
from tunewright.errors import TeacherError
from tunewright.records import Question, Sample, StageSummary
from tunewright.run_folder import RunFolder
from tunewright.settings import SynthesisSettings
from tunewright.synthesis.stage import exam, synth
from tunewright.teacher.protocol import REASONING_TOKENS


def write_all(
    folder, respond: Respond, teacher: dict[str, object] | None = None, version: str = "/v1"
) -> tuple[RunFolder, StageSummary, list[dict]]:
    """Run exam and synth with both tasks; return the run, the last summary, and the bodies that were sent."""
    run = make_run(folder, SUBJECTS[:3])
    with fake_teacher(respond) as server:
        recipe = recipe_for(
            server.url.removesuffix("/v1") + version,
            synthesis=SynthesisSettings(samples_per_document=4, tasks=("answer-first", "free-qa")),
        )
        recipe = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update=teacher or {})})
        exam(run, recipe)
        summary = synth(run, recipe)
        return run, summary, [seen.body for seen in server.seen]


def questions_and_samples(run: RunFolder) -> tuple[list[Question], list[Sample]]:
    return run.read_records("exam.jsonl", Question), run.read_records("samples.jsonl", Sample)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The questions and samples of a server without quirks, and the number of its calls."""
    run, summary, bodies = write_all(tmp_path_factory.mktemp("plain") / "run", able)
    assert "teacher_is_asked" not in summary.figures
    return *questions_and_samples(run), len(bodies)


@pytest.mark.parametrize("name", QUIRKS)
def test_every_quirk_gives_the_same_samples(tmp_path, plain, name):
    questions, samples, num_calls = plain
    quirk, most_wasted = QUIRKS[name]
    version = "" if name.startswith("no /v1") else "/v1"
    run, summary, bodies = write_all(tmp_path / "run", quirk(able), version=version)
    assert questions_and_samples(run) == (questions, samples)
    assert num_calls <= len(bodies) <= num_calls + most_wasted
    assert bool(most_wasted) <= ("teacher_is_asked" in summary.figures)  # and its reason: see test_dialect


@pytest.mark.parametrize("name", SERVERS)
def test_each_of_six_servers_gives_the_same_samples(tmp_path, plain, name, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sesame")
    questions, samples, num_calls = plain
    path, quirk = SERVERS[name]
    run, _, bodies = write_all(tmp_path / "run", quirk(able), {"api_key_env": "SOME_KEY"}, version=path)
    assert questions_and_samples(run) == (questions, samples)
    assert len(bodies) <= num_calls + 2


def test_a_thinking_teacher_gets_room_and_its_tokens_are_paid(tmp_path):
    quirk, _ = QUIRKS["cut in its reasoning"]
    run, summary, bodies = write_all(tmp_path / "run", quirk(able), {"price": (0.0, 1.0), "budget": 5.0})
    limits = [body["max_tokens"] for body in bodies]
    assert limits[0] == 64
    assert all(limit > REASONING_TOKENS for limit in limits[1:])
    entries = run.journal("teacher.jsonl").entries
    tokens, costs = [entry["num_tokens"] for entry in entries], [entry["cost"] for entry in entries]
    assert sorted(tokens)[-2:] == [3, 64 + 3]  # the call that was cut, and the one after it
    assert max(costs) == pytest.approx(67e-6)
    assert "room for 4,096 tokens of reasoning" in str(summary.figures["teacher_is_asked"])


def test_reasoning_is_switched_off_by_a_setting(tmp_path):
    quirk, _ = QUIRKS["cut in its reasoning"]
    _, summary, bodies = write_all(tmp_path / "run", quirk(able), {"reasoning": False})
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in bodies)
    assert max(body["max_tokens"] for body in bodies) < REASONING_TOKENS
    assert "teacher_is_asked" not in summary.figures


def test_a_teacher_that_only_reasons_is_named(tmp_path):
    def empty(body, choice) -> None:
        choice["message"] |= {"content": "", "reasoning": "All of it went here"}

    with pytest.raises(TeacherError, match="calls to the teacher failed") as caught:
        write_all(tmp_path / "run", rewords(empty)(able))
    assert "ends in its reasoning" in caught.value.cause
    assert "teacher.reasoning=false" in caught.value.hint


def test_half_a_character_is_one_rejected_reply(tmp_path, plain):
    """It is journaled, so a run that dies of it dies at each start."""
    half = Answer(body=b'{"choices": [{"message": {"content": "What is \\ud800 told?"}, "finish_reason": "stop"}]}')
    run = make_run(tmp_path / "run", SUBJECTS[:3])
    with fake_teacher(in_turn(half, then=able)) as server:
        recipe = recipe_for(server.url)
        first = exam(run, recipe)
        num_calls = len(server.seen)
        assert exam(run, recipe).rejected == first.rejected == {"teacher reply holds half a character": 1}
        assert len(server.seen) == num_calls
    assert len(run.read_records("exam.jsonl", Question)) == len(plain[0])  # another sentence took its place


def test_why_calls_failed_is_in_the_summary(tmp_path):
    def respond(seen) -> Answer:
        if "response_format" in seen.body or "Reply with JSON only" in seen.body["messages"][-1]["content"]:
            return Answer(400, {"error": "the passage is not allowed"})
        return able(seen)

    _, summary, _ = write_all(tmp_path / "run", respond)
    assert "the passage is not allowed" in str(summary.figures["most_frequent_failure"])
    assert summary.figures["failed_calls"]


def test_usage_that_cannot_be_true_counts_as_the_worst_case(tmp_path):
    def neg(body, choice) -> None:
        body["usage"] = {"prompt_tokens": -(10**9), "completion_tokens": -(10**9)}

    with pytest.raises(TeacherError, match="exceed the budget"):
        write_all(tmp_path / "run", rewords(neg)(able), {"price": (1.0, 1.0), "budget": 0.003})
    spent = [entry["cost"] for entry in RunFolder(tmp_path / "run").journal("teacher.jsonl").entries]
    assert spent
    assert min(spent) > 0
    assert sum(spent) <= 0.003
