from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.faulty_server import Answer, Seen, completion, fake_teacher
from tunewright.errors import RecipeError, TeacherError
from tunewright.recipe import parse_recipe
from tunewright.records import Message
from tunewright.run_folder import RunFolder
from tunewright.settings import TeacherSettings
from tunewright.teacher import Request, open_teacher
from tunewright.teacher.journal import Spending, most_prompt_tokens


def asks(number: int, max_tokens: int = 16) -> list[Request]:
    return [Request((Message(role="user", content=f"question {n}"),), max_tokens, 0.0, 0) for n in range(number)]


def priced(url: str, budget: float = 0.0, **changes: object) -> TeacherSettings:
    """One dollar per prompt token, ten per written one."""
    prices = {"price": (1e6, 1e7), "budget": budget}
    return TeacherSettings(url=url, model="m", **prices, **changes)


COST = 7 * 1 + 3 * 10  # of one of the server's replies


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run")


def test_cost_and_seconds_are_counted_and_journaled(run):
    with fake_teacher() as server, open_teacher(run.journal("teacher.jsonl"), priced(server.url), "synth") as teacher:
        teacher.ask_all(asks(4), "asking")
        assert teacher.cost == 4 * COST
        assert 0 < teacher.seconds < 60
    entries = run.journal("teacher.jsonl").entries
    assert [entry["cost"] for entry in entries] == [COST] * 4
    with open_teacher(run.journal("teacher.jsonl"), priced(server.url), "synth") as teacher:
        teacher.ask_all(asks(4), "asking")
        assert teacher.cost == 0


def test_the_budget_is_never_passed_and_everything_is_kept(run):
    worst = most_prompt_tokens(asks(1)[0]) + 16 * 10
    budget = 5 * COST + worst + 1  # room for the worst of a sixth call, not of a seventh
    with fake_teacher() as server:
        with (
            open_teacher(run.journal("teacher.jsonl"), priced(server.url, budget, concurrency=4), "synth") as teacher,
            pytest.raises(TeacherError, match="budget of") as caught,
        ):
            teacher.ask_all(asks(20), "asking")
        assert "teacher.budget" in caught.value.hint
        assert len(server.seen) == teacher.num_calls == 6
        with open_teacher(run.journal("teacher.jsonl"), priced(server.url, 1e9), "synth") as teacher:
            assert None not in teacher.ask_all(asks(20), "asking")
            assert teacher.num_calls == 14


def test_the_budget_covers_what_the_journal_holds_priced_or_not(run):
    with fake_teacher() as server:
        free = TeacherSettings(url=server.url, model="m")
        with open_teacher(run.journal("teacher.jsonl"), free, "exam") as teacher:
            teacher.ask_all(asks(3), "asking")
        with (
            open_teacher(run.journal("teacher.jsonl"), priced(server.url, 3 * COST + 100), "synth") as teacher,
            pytest.raises(TeacherError, match="budget"),
        ):
            teacher.ask_all(asks(5), "asking")
        assert len(server.seen) == 3


def test_the_judge_has_a_budget_of_its_own(run):
    worst = most_prompt_tokens(asks(1)[0]) + 16 * 10
    others = [replace(ask, seed=100) for ask in asks(9)]
    with fake_teacher() as server:
        with open_teacher(run.journal("teacher.jsonl"), priced(server.url, 1e9), "synth") as teacher:
            teacher.ask_all(asks(9), "asking")
        with (
            open_teacher(
                run.journal("teacher.jsonl"), priced(server.url, 2 * COST + worst + 5, concurrency=1), "judge"
            ) as judge,
            pytest.raises(TeacherError, match="budget") as caught,
        ):
            judge.ask_all(others, "judging")
        assert judge.num_calls == 3 and "judge.budget" in caught.value.hint
        with open_teacher(
            run.journal("teacher.jsonl"), priced(server.url, 10 * COST + worst + 5, concurrency=1), "synth"
        ) as teacher:
            teacher.ask_all(others[3:5], "asking")  # what the judge cost is not the teacher's
            assert teacher.num_calls == 2


def test_calls_under_way_count_at_their_worst_case(run):
    """Two calls fit the budget only one after the other: never are two at the server."""
    here, alone = threading.Semaphore(1), []

    def respond(seen: Seen) -> Answer:
        alone.append(here.acquire(blocking=False))
        threading.Event().wait(0.02)
        here.release()
        return Answer(body=completion("ok"))

    request = asks(1)[0]
    worst = most_prompt_tokens(request) + 16 * 10
    with (
        fake_teacher(respond) as server,
        open_teacher(
            run.journal("teacher.jsonl"), priced(server.url, 3 * COST + worst + 5, concurrency=3), "synth"
        ) as teacher,
    ):
        assert None not in teacher.ask_all(asks(4), "asking")
    assert alone == [True] * 4


def test_a_failed_call_gives_its_room_back(run):
    spending = Spending(priced("http://x/v1", 500))
    reserved = spending.reserve(asks(1)[0])
    spending.settle(reserved, 0.0)
    assert spending.reserve(asks(1)[0]) == reserved
    assert spending.spent == 0


@given(st.text(max_size=200), st.text(max_size=200))
@settings(max_examples=50)
def test_no_prompt_has_more_tokens_than_its_bound(first, second):
    request = Request((Message(role="system", content=first), Message(role="user", content=second)), 1, 0.0, 0)
    assert most_prompt_tokens(request) >= len((first + second).encode("utf-8", "replace")) + 2 * 10
    schema = {"type": "object", "properties": {first: {"type": "string"}}}
    assert most_prompt_tokens(replace(request, schema=schema)) >= most_prompt_tokens(request) + len(json.dumps(schema))


def test_a_budget_needs_prices(tmp_path):
    with pytest.raises(RecipeError, match="wrong setting") as caught:
        parse_recipe({"teacher": {"budget": 5.0}}, tmp_path)
    assert "teacher.price" in caught.value.cause


def test_a_reply_without_token_counts_costs_its_worst_case(run):
    silent = {"choices": [{"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}]}
    worst = most_prompt_tokens(asks(1)[0]) + 16 * 10
    with fake_teacher(lambda seen: Answer(200, silent)) as server:
        with (
            open_teacher(
                run.journal("teacher.jsonl"), priced(server.url, 3 * worst, concurrency=1), "synth"
            ) as teacher,
            pytest.raises(TeacherError, match="budget of"),
        ):
            teacher.ask_all(asks(9), "asking")
        assert len(server.seen) == 3


def test_an_answer_that_is_all_thought_is_paid_once_and_is_no_sample(run):
    thought = {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
    thought["usage"] = {"prompt_tokens": 7, "completion_tokens": 3}
    with fake_teacher(lambda seen: Answer(200, thought)) as server:
        with open_teacher(run.journal("teacher.jsonl"), priced(server.url), "synth") as teacher:
            (reply,) = teacher.ask_all(asks(1), "asking")
        assert (reply.text, reply.finish, len(server.seen)) == ("", "length", 1)
    assert [entry["cost"] for entry in run.journal("teacher.jsonl").entries] == [COST]


def test_a_budget_that_is_used_up_ends_the_stage_whatever_sums_round_to():
    """0.1 + 0.2 + 0.3 less each of them is no zero: a call that waits for the others would wait for ever."""
    settings = TeacherSettings(url="http://x/v1", model="m", price=(0.0, 1e5), budget=0.65)
    spending = Spending(settings)
    sizes = [replace(asks(1)[0], max_tokens=number) for number in (1, 2, 3)]
    reserved = [spending.reserve(request) for request in sizes]
    for amount in reserved:
        spending.settle(amount, amount)
    ended = threading.Event()

    def reserve() -> None:
        with pytest.raises(TeacherError, match="exceed the budget"):
            spending.reserve(sizes[0])
        ended.set()

    threading.Thread(target=reserve, daemon=True).start()
    assert ended.wait(10)
