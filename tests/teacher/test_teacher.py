from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.faulty_server import Answer, completion, echo, fake_teacher, in_turn, sometimes
from tunewright.errors import RecipeError, RunFolderError, TeacherError, UserError
from tunewright.models import source
from tunewright.records import Message
from tunewright.run_folder import Journal, RunFolder
from tunewright.settings import TeacherSettings
from tunewright.teacher import Reply, Request, open_teacher, teacher_identity
from tunewright.teacher.client import ChatClient, Retries
from tunewright.teacher.journal import CallJournal


def ask(text: str, seed: int = 0) -> Request:
    return Request((Message(role="user", content=text),), 16, 0.0, seed)


def asks(number: int) -> list[Request]:
    return [ask(f"question {n}") for n in range(number)]


def settings_for(url: str, **changes: object) -> TeacherSettings:
    return TeacherSettings(url=url, model="m", **changes)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


def test_replies_come_in_order_and_once(run):
    with fake_teacher() as server:
        with open_teacher(run.journal("teacher.jsonl"), settings_for(server.url, concurrency=5), "synth") as teacher:
            requests = [*asks(30), *asks(10)]
            replies = teacher.ask_all(requests, "asking")
            assert [r.text for r in replies] == [m.messages[0].content.upper() for m in requests]
            assert (teacher.num_calls, teacher.num_from_journal) == (30, 10)
            assert (teacher.num_prompt_tokens, teacher.num_tokens) == (210, 90)
        assert len(server.seen) == 30
    entries = run.journal("teacher.jsonl").entries
    assert len({entry["key"] for entry in entries}) == 30
    assert set(entries[0]) == {
        "key",
        "stage",
        "model",
        "text",
        "finish",
        "num_prompt_tokens",
        "num_tokens",
        "seconds",
    }


def test_calls_run_at_the_same_time_up_to_the_setting(run):
    together = threading.Barrier(4)
    first = threading.Event()

    def respond(seen):
        if first.is_set():
            together.wait(10)  # breaks, and so fails the test, unless four requests are here at once
        first.set()  # the first call is made alone
        return echo(seen)

    with (
        fake_teacher(respond) as server,
        open_teacher(run.journal("teacher.jsonl"), settings_for(server.url, concurrency=4), "synth") as teacher,
    ):
        assert None not in teacher.ask_all(asks(9), "asking")


def test_the_journal_answers_a_second_run_without_any_server(run):
    with (
        fake_teacher() as server,
        open_teacher(run.journal("teacher.jsonl"), settings_for(server.url), "synth") as teacher,
    ):
        first = teacher.ask_all(asks(5), "asking")
    with open_teacher(run.journal("teacher.jsonl"), settings_for(server.url), "synth") as teacher:  # the server is gone
        assert teacher.ask_all(asks(5), "asking") == first
        assert (teacher.num_calls, teacher.num_from_journal) == (0, 5)


def test_a_torn_last_line_costs_a_single_call(run, capsys):
    with fake_teacher() as server:
        with open_teacher(run.journal("teacher.jsonl"), settings_for(server.url), "synth") as teacher:
            first = teacher.ask_all(asks(5), "asking")
        journal = run.file("teacher.jsonl")
        journal.write_bytes(journal.read_bytes()[:-9])
        with open_teacher(run.journal("teacher.jsonl"), settings_for(server.url), "synth") as teacher:
            assert teacher.ask_all(asks(5), "asking") == first
            assert teacher.num_calls == 1
    assert "a crash cut the last reply" in capsys.readouterr().err


def test_a_damaged_entry_is_named(run):
    run.journal("teacher.jsonl").append({"key": "k", "text": 5})
    with (
        pytest.raises(RunFolderError, match="line 1"),
        open_teacher(run.journal("teacher.jsonl"), settings_for("http://x/v1"), "synth"),
    ):
        pass


def test_half_a_character_in_an_earlier_journal_is_a_malformed_reply(run):
    entry = {"key": ask("a").key("http://x/v1|m"), "stage": "synth", "model": "http://x/v1|m", "text": "a \ud800 b"}
    run.journal("teacher.jsonl").append(entry | {"finish": "stop", "num_prompt_tokens": 1, "num_tokens": 1})
    with open_teacher(run.journal("teacher.jsonl"), settings_for("http://x/v1"), "synth") as teacher:
        assert teacher.ask_all([ask("a")], "asking") == [Reply("a \ufffd b", "malformed", 1, 1)]


def test_a_few_failed_calls_are_counted_and_not_journalled(run):
    def respond(seen):
        bad = seen.body["messages"][0]["content"].endswith(("3", "4"))
        return Answer(400, {"error": "too long"}) if bad else echo(seen)

    with fake_teacher(respond) as server:
        with open_teacher(run.journal("teacher.jsonl"), settings_for(server.url), "synth") as teacher:
            replies = teacher.ask_all(asks(10), "asking")
            assert [n for n, reply in enumerate(replies) if reply is None] == [3, 4]
            assert (teacher.num_calls, teacher.num_failed) == (8, 2)
        server.respond = echo
        with open_teacher(run.journal("teacher.jsonl"), settings_for(server.url), "synth") as teacher:
            assert None not in teacher.ask_all(asks(10), "asking")
            assert teacher.num_calls == 2


@pytest.mark.parametrize("number", [1, 3, 40])
def test_when_all_calls_fail_the_stage_stops(run, number):
    with (
        fake_teacher(lambda seen: Answer(400, {"error": "no such thing"})) as server,
        open_teacher(run.journal("teacher.jsonl"), settings_for(server.url, concurrency=2), "synth") as teacher,
        pytest.raises(TeacherError, match="calls to the teacher failed") as caught,
    ):
        teacher.ask_all(asks(number), "asking")
    assert "no such thing" in caught.value.cause
    assert len(server.seen) <= 7  # five failures, and what was under way


def test_answers_before_a_fatal_error_are_kept(run):
    def respond(seen):
        return Answer(401, {}) if seen.body["messages"][0]["content"].endswith("7") else echo(seen)

    with fake_teacher(respond) as server:
        with (
            open_teacher(run.journal("teacher.jsonl"), settings_for(server.url, concurrency=1), "synth") as teacher,
            pytest.raises(UserError, match="401"),
        ):
            teacher.ask_all(asks(20), "asking")
        assert len(run.journal("teacher.jsonl").entries) == 7
        assert len(server.seen) == 8


def test_the_key_comes_from_the_environment_and_stays_out_of_the_run(run, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sesame")
    with (
        fake_teacher() as server,
        open_teacher(run.journal("teacher.jsonl"), settings_for(server.url, api_key_env="MY_KEY"), "synth") as teacher,
    ):
        teacher.ask_all(asks(2), "asking")
        assert server.seen[0].headers["Authorization"] == "Bearer sesame"
    assert not [p for p in run.path.rglob("*") if p.is_file() and b"sesame" in p.read_bytes()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        ({"url": "localhost:8000"}, "not a URL"),
        ({"model": ""}, "teacher.model is empty"),
    ],
)
def test_wrong_settings_are_refused_before_any_call(run, changes, message):
    wrong = settings_for("http://localhost:1/v1").model_copy(update=changes)
    with pytest.raises(RecipeError, match=message), open_teacher(run.journal("teacher.jsonl"), wrong, "synth"):
        pass


def test_identity_names_the_model_and_the_url():
    assert teacher_identity(TeacherSettings()) == source.IDENTITY
    assert teacher_identity(settings_for("http://host:1/v1/")) == "http://host:1/v1|m"


def test_a_request_key_depends_on_every_part():
    base = ask("a")
    others = [
        ask("b"),
        ask("a", seed=1),
        Request(base.messages, 17, 0.0, 0),
        Request(base.messages, 16, 0.5, 0),
        Request(base.messages, 16, 0.0, 0, {"type": "object"}),
        Request((Message(role="system", content="a"),), 16, 0.0, 0),
        Request((), 16, 0.0, 0, raw="a"),
        Request(base.messages, 16, 0.0, 0, stop=("a",)),
    ]
    assert len({request.key("m") for request in [base, *others]} | {base.key("n")}) == len(others) + 2
    assert base.key("m") == ask("a").key("m")


def test_the_keys_of_older_journals_still_hold():
    assert ask("a").key("m") == "91da153c9b990bb9"
    assert Request(ask("a").messages, 16, 0.5, 3, {"type": "object"}).key("http://x/v1|m") == "b40d56ebde6359ec"


def test_a_faulty_server_is_called_until_every_answer_is_complete(run):
    """30 % of the calls meet 429, 5xx, a hang, cut JSON or a wrong type: nothing is missing, nothing is malformed."""
    number = 300
    with fake_teacher(sometimes(0.3, seed=1)) as server:
        settings = settings_for(server.url, concurrency=16, timeout_s=0.5)
        with open_teacher(run.journal("teacher.jsonl"), settings, "synth") as teacher:
            replies = teacher.ask_all(asks(number), "asking")
            failed = teacher.num_failed
        with open_teacher(
            run.journal("teacher.jsonl"), settings, "synth"
        ) as teacher:  # the few that met faults in a row
            replies = teacher.ask_all(asks(number), "asking")
            assert teacher.num_from_journal == number - failed
        calls = len(server.seen)
    assert [reply.text for reply in replies if reply] == [f"QUESTION {n}" for n in range(number)]
    assert failed <= 12
    assert calls <= number / 0.7 * 1.25  # a mean of 1 / (1 - 0.3) attempts per answer
    entries = run.journal("teacher.jsonl").entries
    assert len({entry["key"] for entry in entries}) == len(entries) == number
    assert all(entry["text"].startswith("QUESTION ") and entry["finish"] == "stop" for entry in entries)


def test_a_long_429_is_a_pause_not_a_failure(run, capsys):
    busy = [Answer(429)] * 40
    with fake_teacher(in_turn(*busy)) as server:
        settings = settings_for(server.url, concurrency=4)
        with open_teacher(run.journal("teacher.jsonl"), settings, "synth") as teacher:
            teacher._connect = lambda show: ChatClient(
                server.url, "m", 5, retries=Retries(first_wait_s=0.01, longest_wait_s=0.02), show=show
            )
            assert None not in teacher.ask_all(asks(20), "asking")
            assert teacher.num_failed == 0
        assert len(server.seen) == 60
    assert "asking 0/20 paused: the server says it is busy; next try in 0 s" in capsys.readouterr().err


def test_when_patience_ends_what_was_answered_is_kept(run):
    served: list[int] = []

    def respond(seen):
        served.append(1)
        return echo(seen) if len(served) <= 6 else Answer(429)

    with fake_teacher(respond) as server:
        settings = settings_for(server.url, concurrency=2, patience_s=0.3)
        with (
            open_teacher(run.journal("teacher.jsonl"), settings, "synth") as teacher,
            pytest.raises(TeacherError, match="has been busy") as caught,
        ):
            teacher.ask_all(asks(20), "asking")
        assert "kept" in caught.value.hint
        served.clear()
        server.respond = echo
        with open_teacher(run.journal("teacher.jsonl"), settings, "synth") as teacher:
            assert None not in teacher.ask_all(asks(20), "asking")
            assert teacher.num_from_journal == 6


def test_replies_of_many_threads_are_each_on_disk_before_they_are_used(run):
    journal = CallJournal(run.journal("teacher.jsonl"))
    seen: list[bool] = []

    def put(number: int) -> None:
        for n in range(20):
            key = f"{number}-{n}"
            journal.put(key, "synth", "m", Reply("ok", "stop", 1, 1))
            seen.append(f'"{key}"' in run.file("teacher.jsonl").read_text(encoding="utf-8"))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 160
    assert len(run.journal("teacher.jsonl").entries) == 160
    journal.close()
    assert not journal.put("late", "synth", "m", Reply("ok", "stop", 1, 1))
    assert len(run.journal("teacher.jsonl").entries) == 160


def test_a_write_that_fails_loses_no_other_reply(run, monkeypatch):
    journal = CallJournal(run.journal("teacher.jsonl"))
    real, failures = Journal.append, iter([OSError("disk full")])

    def append(self, *entries):
        for failure in failures:
            raise failure
        real(self, *entries)

    monkeypatch.setattr(Journal, "append", append)
    with pytest.raises(OSError, match="disk full"):
        journal.put("a", "synth", "m", Reply("ok", "stop", 1, 1))
    assert journal.get("a") is None
    journal.put("b", "synth", "m", Reply("ok", "stop", 1, 1))
    assert [entry["key"] for entry in run.journal("teacher.jsonl").entries] == ["b"]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=25), st.sets(st.integers(0, 12), max_size=4))
def test_every_request_is_counted_once(tmp_path_factory, numbers, failing):
    run = RunFolder.create(tmp_path_factory.mktemp("run"))
    failing = failing if len(failing) * 2 <= len(set(numbers) - failing) else set()

    def respond(seen):
        bad = int(seen.body["messages"][0]["content"]) in failing
        # It names a cause: without any, the first request of all might be asked again in another form.
        return Answer(422, {"error": "the prompt is too long"}) if bad else Answer(body=completion("ok"))

    with (
        fake_teacher(respond) as server,
        open_teacher(run.journal("teacher.jsonl"), settings_for(server.url), "synth") as teacher,
    ):
        replies = teacher.ask_all([ask(str(number)) for number in numbers], "asking")
        assert [reply is None for reply in replies] == [number in failing for number in numbers]
        assert teacher.num_calls + teacher.num_failed == len(set(numbers))
        assert teacher.num_from_journal == len(numbers) - len(set(numbers))
        assert len(server.seen) == len(set(numbers))


CHILD = """
import sys
from pathlib import Path
from tunewright.settings import TeacherSettings
from tunewright.records import Message
from tunewright.run_folder import RunFolder
from tunewright.teacher import Request, open_teacher
requests = [Request((Message(role="user", content=f"question {n}"),), 16, 0.0, 0) for n in range(40)]
settings = TeacherSettings(url=sys.argv[2], model="m", concurrency=4)
with open_teacher(RunFolder.create(Path(sys.argv[1])).journal("teacher.jsonl"), settings, "synth") as teacher:
    teacher.ask_all(requests, "asking")
"""


def test_kill_9_loses_at_most_the_calls_under_way(run):
    """Each answer waits for the test's leave, so that the kill falls in the middle whatever the machine's speed."""
    leave = threading.Semaphore(13)

    def respond(seen):
        leave.acquire(timeout=20)
        return echo(seen)

    with fake_teacher(respond) as server:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(run.path), server.url], stderr=subprocess.DEVNULL)
        journal = run.file("teacher.jsonl")
        while child.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 9):
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        leave.release(100)
        kept = len([line for line in journal.read_bytes().splitlines() if line.endswith(b"}")])
        assert 9 <= kept <= 13
        with open_teacher(run.journal("teacher.jsonl"), settings_for(server.url, concurrency=4), "synth") as teacher:
            replies = teacher.ask_all(asks(40), "asking")
            assert [reply.text for reply in replies] == [f"QUESTION {n}" for n in range(40)]
            assert teacher.num_calls == 40 - kept
        assert len(server.seen) <= 40 + 4  # four at once were under way
    assert len({json.loads(line)["key"] for line in journal.read_bytes().splitlines()}) == 40
